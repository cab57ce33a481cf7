"""Memory of a running server while one viewer watches and steers: a table over time, for every process.

    python -m benchmarks.memory [--model model/starter] [--minutes 10] [--every 30]

Unique set size, MiB: what would be freed if the process ended. A steer a row keeps the whole path busy.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import aclosing
from pathlib import Path

import psutil
from streamer_client import Client

from benchmarks.serving import serve

PROMPTS = ("a red sailboat on the sea at night", "a yellow balloon over a meadow by day", "a train in the desert")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("model/starter"))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=30.0, help="seconds a row")
    options = parser.parse_args()
    asyncio.run(run(options.model, 60 * options.minutes, options.every))


async def run(model: Path, seconds: float, every: float) -> None:
    """Start a server, watch `main`, print a row now and then."""
    async with serve(model) as (url, server), Client(url) as client:
        await watch(client, server, seconds, every)


async def watch(client: Client, server: psutil.Process, seconds: float, every: float) -> None:
    stream = await client.streams.get("main")
    worker = server.children()[0]
    print(f"{'seconds':>8}{'pictures':>10}{'server MiB':>12}{'worker MiB':>12}{'server fds':>12}{'worker fds':>12}")
    start, rows, pictures = time.monotonic(), 0, 0
    async with aclosing(stream.fragments()) as fragments:
        async for _ in fragments:
            pictures += 1
            elapsed = time.monotonic() - start
            if elapsed < rows * every:
                continue
            sizes = [process.memory_full_info().uss / 2**20 for process in (server, worker)]
            files = [process.num_fds() for process in (server, worker)]
            print(
                f"{elapsed:>8.0f}{pictures:>10}{sizes[0]:>12.1f}{sizes[1]:>12.1f}{files[0]:>12}{files[1]:>12}",
                flush=True,
            )
            if elapsed >= seconds:
                return
            stream.steer(PROMPTS[rows % len(PROMPTS)])
            rows += 1


if __name__ == "__main__":
    main()
