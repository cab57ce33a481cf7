"""WebSockets whose peer vanished without a word."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

CLOSE_PATIENCE_S = 1.0
"""A peer that answered no ping has this long to take what is still under way to it, and the reason."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's own, but for a peer that takes nothing any more: there it would wait as long as TCP does, minutes."""

    def keepalive_timeout(self) -> None:
        """No pong came in time."""
        super().keepalive_timeout()
        self.loop.call_later(CLOSE_PATIENCE_S, self.transport.abort)
