"""One worker process: spawned on a socket pair, its stderr kept short, ended for certain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Sequence

from streamer.engine.protocol import CANNOT_START_EXIT

logger = logging.getLogger(__name__)

READ_BYTES = 1 << 20
END_S = (2.0, 5.0, 5.0)
"""How long a worker may take to end when its socket closes, after SIGTERM, and after SIGKILL."""
STDERR_BYTES = 8192
MAX_REASON_CHARS = 400


class Child:
    """A running worker and our end of its socket."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process = process
        self.reader = reader
        self.writer = writer
        self._tail = bytearray()
        self._stderr = asyncio.create_task(self._keep_stderr(), name="worker stderr")

    @classmethod
    async def spawn(cls, arguments: Sequence[str]) -> Child:
        """Start `python -m streamer.engine.worker --fd N *arguments`.

        Raises:
            OSError: no process or socket to be had.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                fd = theirs.fileno()
                command = [sys.executable, "-m", "streamer.engine.worker", "--fd", str(fd), *arguments]
                # Its own session: Ctrl-C in a terminal reaches the server alone, which then ends the worker.
                process = await asyncio.create_subprocess_exec(
                    *command,
                    pass_fds=[fd],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    start_new_session=True,
                )
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=READ_BYTES)
        except BaseException:
            ours.close()
            raise
        return cls(process, reader, writer)

    async def read(self, silence_s: float) -> bytes:
        """Bytes of the worker; empty when it is gone, or was killed because it said nothing for `silence_s`."""
        try:
            async with asyncio.timeout(silence_s):
                return await self.reader.read(READ_BYTES)
        except TimeoutError:
            self.kill(f"it said nothing for {silence_s:.0f} s")
        except ConnectionError:
            pass  # it is gone: the empty answer says so, `end` says why
        return b""

    def kill(self, why: str) -> None:
        """End it at once."""
        logger.error("killing the model worker (pid %d): %s", self.process.pid, why)
        self._tail += f"\nkilled by the server: {why}\n".encode()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def end(self) -> str:
        """Close the socket, wait, then SIGTERM, wait, then SIGKILL. Returns one line: why it ended."""
        self.writer.transport.abort()
        stops = (lambda: None, self.process.terminate, self.process.kill)
        for stop, patience_s in zip(stops, END_S, strict=True):
            with contextlib.suppress(ProcessLookupError):
                stop()
            try:
                async with asyncio.timeout(patience_s):
                    await self.process.wait()
                break
            except TimeoutError:
                continue
        try:
            async with asyncio.timeout(1.0):
                await self._stderr
        except TimeoutError:
            pass  # somebody else still holds the pipe; what was read is enough
        return self._reason()

    def _reason(self) -> str:
        code = self.process.returncode
        lines = [line.strip() for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        last = lines[-1][:MAX_REASON_CHARS] if lines else ""
        if code == CANNOT_START_EXIT and last:
            return last
        if last.startswith("killed by the server"):
            return f"the model worker was {last}"
        if code is not None and code < 0:
            return f"the model worker was ended by {signal.Signals(-code).name}"
        if code == 0:
            return "the model worker ended"
        return f"the model worker failed: {last or f'exit status {code}'}"

    async def _keep_stderr(self) -> None:
        assert self.process.stderr is not None
        line = bytearray()
        while data := await self.process.stderr.read(4096):
            self._tail += data
            del self._tail[:-STDERR_BYTES]
            line += data
            *whole, line = line.split(b"\n")
            for text in whole:
                logger.info("worker: %s", text.decode(errors="replace"))
            del line[:-STDERR_BYTES]
