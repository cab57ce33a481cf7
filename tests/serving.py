"""A real server for tests: `streamer serve` as a process of its own, on a free loopback port."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

STREAMER = Path(sys.executable).with_name("streamer")
START_S = 90.0


@dataclass
class Server:
    """`url` has no slash at its end; `output` is what it printed so far."""

    process: asyncio.subprocess.Process
    url: str
    output: list[str]

    async def line(self, word: str, within_s: float = START_S) -> str:
        """The next line printed that holds `word`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(within_s):
            while data := await self.process.stdout.readline():
                text = data.decode().rstrip()
                self.output.append(text)
                if word in text:
                    return text
        raise AssertionError(f"the server ended without printing {word!r}: {self.output}")

    async def stop(self, within_s: float = 20.0) -> int:
        """SIGTERM, as an init system would; the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(within_s):
            return await self.process.wait()


@asynccontextmanager
async def serve(model: Path, *arguments: str, ready: bool = True) -> AsyncIterator[Server]:
    """Run `streamer serve --model MODEL --port 0 …`; by default until it is warm."""
    process = await asyncio.create_subprocess_exec(
        STREAMER,
        *("serve", "--model", str(model), "--port", "0", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    server = Server(process, "", [])
    try:
        text = await server.line("http://")
        server.url = next(word for word in text.split() if word.startswith("http://")).rstrip("/")
        if ready:
            await server.line("ready")
        yield server
    finally:
        try:
            await server.stop()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise


async def run(*arguments: str, only_errors: bool = False) -> tuple[int, str]:
    """Exit status of a `streamer` command, and what it printed (`only_errors`: on stderr alone)."""
    process = await asyncio.create_subprocess_exec(
        STREAMER,
        *arguments,
        stdout=asyncio.subprocess.DEVNULL if only_errors else asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE if only_errors else asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(90):
        printed, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, (errors if only_errors else printed).decode()
