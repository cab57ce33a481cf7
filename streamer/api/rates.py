"""How often one caller may steer one stream: a token bucket each."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.requests import HTTPConnection

from streamer.session.errors import TooMany
from streamer.session.session import Session

STEERS_HZ = 30.0
"""More than a stream has boundaries, and than a fader sends: whoever asks faster has run wild."""
BURST = 120
KEPT_CALLERS = 1024


class SteerRates:
    """Counts the steers of the callers that asked last, by their address.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def count(self, connection: HTTPConnection, session: Session) -> None:
        """One more steer.

        Raises:
            TooMany: too soon after the ones before.
        """
        now_s, caller = self._clock(), (session.id, connection.client.host if connection.client else "")
        left, at_s = self._left.pop(caller, (float(BURST), now_s))
        left = min(BURST, left + (now_s - at_s) * STEERS_HZ)
        refused = left < 1
        self._left[caller] = (left if refused else left - 1, now_s)
        if len(self._left) > KEPT_CALLERS:
            self._left.popitem(last=False)
        if refused:
            message = f"at most {STEERS_HZ:g} steers a second, {BURST} at once"
            raise TooMany(message, limit=STEERS_HZ, retry_after_s=(1 - left) / STEERS_HZ)
