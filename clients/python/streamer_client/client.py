"""A connection to a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from streamer_client.errors import StreamerError, raise_for_problem
from streamer_client.stream import Stream
from streamer_client.videos import Videos


class Client:
    """An asynchronous client; use it with `async with`.

    Args:
        url: the server, e.g. `http://127.0.0.1:8000`.
        token: control token or scoped token, for servers elsewhere.
        timeout_s: of one REST call.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 30.0) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise StreamerError(f"not a server's address: {url}")
        self.url = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
        self.token = token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.AsyncClient(base_url=self.url, timeout=timeout_s, headers=headers, trust_env=False)
        self.streams = Streams(self)
        self.videos = Videos(self)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def model(self) -> dict[str, Any]:
        """What the server's checkpoint is and knows: sizes, rate, vocabulary, limits."""
        return dict(await self.request("GET", "/v1/model"))

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        files: dict[str, Any] | None = None,
        token: str | None = None,
    ) -> Any:
        """One REST call; the decoded JSON, or the text of other types. `files`: a form's parts instead of a body.

        Raises:
            Problem: the server refused.
            StreamerError: it can't be reached.
        """
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            response = await self._http.request(method, path, json=body, files=files, headers=headers)
        except httpx.HTTPError as error:
            raise StreamerError(f"{self.url} can't be reached: {error or type(error).__name__}") from error
        raise_for_problem(response)
        if not response.content:
            return None
        kind = response.headers.get("content-type", "").partition(";")[0]
        return response.json() if kind == "application/json" else response.text

    async def download(self, path: str) -> AsyncIterator[bytes]:
        """The bytes of one answer as they come.

        Raises:
            Problem: the server refused.
            StreamerError: it can't be reached, or the connection broke off.
        """
        try:
            async with self._http.stream("GET", path) as response:
                if not response.is_success:
                    await response.aread()
                raise_for_problem(response)
                async for data in response.aiter_bytes():
                    yield data
        except httpx.HTTPError as error:
            raise StreamerError(f"{self.url} can't be reached: {error or type(error).__name__}") from error

    def websocket_url(self, path: str) -> str:
        """`path` as a ws:// or wss:// address of this server."""
        return ("ws" if self.url.startswith("http:") else "wss") + self.url[self.url.index(":") :] + path


class Streams:
    """The server's streams."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(
        self, prompt: str | None = None, *, image: str | Path | bytes | None = None, **options: Any
    ) -> Stream:
        """A new stream; `options` are those of `POST /v1/streams` (seed, size, rate_hz, log, idle, …).

        Args:
            prompt: what it shows.
            image: a picture to start from: a path, or the content of a PNG, JPEG, WebP or GIF file.
            options: see above.

        Raises:
            Problem: a bad option (`field` and `limit` say which), or no room (`capacity-full`).
            OSError: the picture's file can't be read.
        """
        given = {"prompt": prompt, **options} if prompt is not None else options
        if image is None:
            return Stream(self._client, await self._client.request("POST", "/v1/streams", body=given))
        content = image if isinstance(image, bytes) else await asyncio.to_thread(Path(image).read_bytes)
        parts: dict[str, Any] = {
            name: (None, value if isinstance(value, str) else json.dumps(value)) for name, value in given.items()
        }
        parts["image"] = ("image", content)
        return Stream(self._client, await self._client.request("POST", "/v1/streams", files=parts))

    async def get(self, stream: str) -> Stream:
        """The stream with this id, or `main`."""
        return Stream(self._client, await self._client.request("GET", f"/v1/streams/{stream}"))

    async def list(self) -> list[dict[str, Any]]:
        """All streams (on loopback, or with the admin's token)."""
        return list((await self._client.request("GET", "/v1/streams"))["streams"])
