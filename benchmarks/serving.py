"""A real server to measure: `streamer serve` as a process of its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

STREAMER = Path(sys.executable).with_name("streamer")


@asynccontextmanager
async def serve(model: Path) -> AsyncIterator[tuple[str, psutil.Process]]:
    """The address and the process of a server that is warm; its only child is the model worker."""
    arguments = ("serve", "--model", str(model), "--port", "0")
    process = await asyncio.create_subprocess_exec(STREAMER, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        url, line = "", ""
        while "ready" not in line:
            line = (await process.stdout.readline()).decode()
            if not line:
                raise SystemExit("the server ended before it was ready")
            print(line.rstrip(), flush=True)
            url = url or next((word for word in line.split() if word.startswith("http")), "")
        yield url, psutil.Process(process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
