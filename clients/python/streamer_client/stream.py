"""One stream: its state, its steers, its events, its pictures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

from streamer_client.errors import StreamerError
from streamer_client.events import Event, follow
from streamer_client.pictures import Picture, decode
from streamer_client.steer import Steer
from streamer_client.video import fragments

if TYPE_CHECKING:
    from streamer_client.client import Client


class Stream:
    """A stream of the server. `info` is its last known state as the API gives it."""

    def __init__(self, client: Client, info: dict[str, Any]) -> None:
        self._client = client
        self.info = info
        self.id: str = info["id"]
        self.control_token: str | None = info.get("control_token")
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def token(self) -> str | None:
        return self.control_token or self._client.token

    @property
    def _path(self) -> str:
        return f"/v1/streams/{self.id}"

    @property
    def video_url(self) -> str:
        return self._client.websocket_url(f"{self._path}/video")

    async def refresh(self) -> dict[str, Any]:
        """Ask for the stream's state again."""
        self.info = await self._client.request("GET", self._path)
        return self.info

    async def end(self) -> None:
        """End the stream for everybody."""
        await self._client.request("DELETE", self._path, token=self.token)

    async def log(self) -> str:
        """The recipe (JSON Lines): posted back as `log`, it gives the same video."""
        return str(await self._client.request("GET", f"{self._path}/log"))

    def events(self, after: int | None = None) -> AsyncIterator[Event]:
        """Events past sequence number `after` (None: from now on)."""
        return follow(self._client.websocket_url(f"{self._path}/events"), token=self.token, after=after)

    def steer(self, prompt: str, **options: Any) -> Steer:
        """Ask for another prompt (`options` as `POST …/steers`: `at`, …); returns at once, see `Steer`."""
        steer = Steer(prompt)
        task = asyncio.create_task(self._steer(steer, {"prompt": prompt, **options}))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return steer

    async def _steer(self, steer: Steer, body: dict[str, Any]) -> None:
        # Resumed from before the POST, so that no event of the steer can be missed.
        try:
            before = int((await self.refresh())["seq"])
            steer.accepted(await self._client.request("POST", f"{self._path}/steers", body=body, token=self.token))
            async for event in self.events(after=before):
                if event.data.get("id") == steer.id:
                    steer.see(event)
                if steer.released.done():
                    return
            raise StreamerError(f"stream {self.id} ended before the steer was released")
        except StreamerError as error:
            steer.fail(error)

    def fragments(self) -> AsyncGenerator[bytes, None]:
        """The live video as fragmented MP4: the init segment, then one fragment a message."""
        return fragments(self.video_url, token=self.token)

    def pictures(self) -> AsyncGenerator[Picture, None]:
        """The live video, decoded. A reader slower than the stream skips to the newest keyframe."""
        return decode(self)
