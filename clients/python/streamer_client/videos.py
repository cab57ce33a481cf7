"""Clips: asked for, waited for, fetched."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer_client.errors import StreamerError

if TYPE_CHECKING:
    from streamer_client.client import Client

WAIT_S = 20.0
"""How long one look at a clip waits for something to change."""
PART = ".part"


class VideoFailed(StreamerError):
    """The server could not make the clip; `code` and the text say why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Video:
    """A clip on the server. `info` is its last known state as the API gives it."""

    def __init__(self, client: Client, info: dict[str, Any]) -> None:
        self._client = client
        self.info = info
        self.id: str = info["id"]
        self.control_token: str | None = info.get("control_token")

    @property
    def status(self) -> str:
        """`queued`, `in_progress`, `completed` or `failed`."""
        return str(self.info["status"])

    @property
    def progress(self) -> int:
        """Percent."""
        return int(self.info["progress"])

    @property
    def _path(self) -> str:
        return f"/v1/videos/{self.id}"

    async def refresh(self, wait_s: float = 0.0) -> dict[str, Any]:
        """Ask for its state again; with `wait_s` (up to 30) when it has changed, or after that time."""
        self.info = await self._client.request("GET", f"{self._path}?wait_s={wait_s:g}")
        return self.info

    async def made(self, on_change: Callable[[Video], None] = lambda video: None) -> Video:
        """Wait until it is made; `on_change` hears of every step on the way.

        Raises:
            VideoFailed: it could not be.
            Problem: it was deleted meanwhile.
        """
        while self.status not in ("completed", "failed"):
            await self.refresh(WAIT_S)
            on_change(self)
        if self.status == "failed":
            error = self.info["error"] or {}
            raise VideoFailed(error.get("code", "failed"), error.get("message", "it failed"))
        return self

    async def download(self, path: str | Path) -> Path:
        """Fetch the MP4; the file appears when it is whole.

        Raises:
            Problem: it is not made yet.
            OSError: the disk.
        """
        path = Path(path)
        part = path.with_name(path.name + PART)
        try:
            with await asyncio.to_thread(open, part, "wb") as file:
                async for data in self._client.download(f"{self._path}/content"):
                    await asyncio.to_thread(file.write, data)
            await asyncio.to_thread(os.replace, part, path)
        finally:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(part.unlink, missing_ok=True)
        return path

    async def delete(self) -> None:
        """End it if it is not over, and let the server forget it."""
        await self._client.request("DELETE", self._path, token=self.control_token or self._client.token)


class Videos:
    """The server's clips."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(self, prompt: str, *, image: str | Path | bytes | None = None, **options: Any) -> Video:
        """Ask for a clip.

        Args:
            prompt: What it shows.
            image: File, or its bytes, with the picture that it starts from.
            options: As `POST /v1/videos`: seconds, size, seed, negative_prompt, guidance_scale, steps, motion_score.

        Raises:
            Problem: a bad option (`field` and `limit` say which), or no room (`videos-full`).
            OSError: the file can't be read.
        """
        values = {"prompt": prompt} | {name: value for name, value in options.items() if value is not None}
        if image is None:
            return Video(self._client, await self._client.request("POST", "/v1/videos", body=values))
        data = image if isinstance(image, bytes) else await asyncio.to_thread(Path(image).read_bytes)
        form: dict[str, Any] = {name: (None, str(value)) for name, value in values.items()}
        form["input_reference"] = ("image", data, "application/octet-stream")
        return Video(self._client, await self._client.request("POST", "/v1/videos", files=form))

    async def retrieve(self, video: str) -> Video:
        """The clip with this id."""
        return Video(self._client, await self._client.request("GET", f"/v1/videos/{video}"))

    async def list(self, limit: int = 20, after: str | None = None, order: str = "desc") -> list[Video]:
        """A page of clips (on loopback, or with the admin's token); `after` is the last id of the page before."""
        query = f"limit={limit}&order={order}" + ("" if after is None else f"&after={after}")
        return [
            Video(self._client, info) for info in (await self._client.request("GET", f"/v1/videos?{query}"))["data"]
        ]
