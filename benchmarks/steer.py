"""How fast a steer is: wait, compute and total from its POST to its first picture, while a viewer watches.

    python -m benchmarks.steer [--model model/starter | --url http://127.0.0.1:8000] [--steers 60] [--seed 1]
                               [--sides cut,whole] [--steer-block N]

Starts `streamer serve` once a side: *cut*, where a steer may begin inside a block (and with a block of --steer-block
latent frames), and *whole*, where it waits for a block to end; both on the same weights. Or takes a running server's
`main`, as it is. Watches the video over its WebSocket, and steers at random moments, each after the one before was
released. By the server's clock, *compute* is from telling the worker to the steer's first decoded picture, *wait* the
rest of the time until that was due, *total* both. By this process's, *client* is from the POST to the
`steer.released` event, *viewer* from the POST to the fragment with that picture.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from streamer_client import Client
from streamer_client.stream import Stream
from streamer_client.video import VideoSocket, packets

from benchmarks.serving import serve

COLUMNS = ("wait", "compute", "total", "client", "viewer")
SETTLE_S = 3.0
STEER_TIMEOUT_S = 60.0


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("model/starter"))
    parser.add_argument("--url", help="a running server instead")
    parser.add_argument("--steers", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1, help="of the moments and prompts")
    parser.add_argument("--sides", default="whole,cut", help="whole, cut or both")
    parser.add_argument("--steer-block", type=int, help="latent frames; default: what the checkpoint says")
    options = parser.parse_args()
    if options.url:
        asyncio.run(run(options.url, options))
        return
    for side in options.sides.split(","):
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(measure(variant(options.model, Path(folder), side, options.steer_block), options))


def variant(model: Path, folder: Path, side: str, steer_block: int | None) -> Path:
    """A folder with the model's own files, and a `stream.json` that lets steers cut blocks or not."""
    config = json.loads((model / "stream.json").read_text())
    lengths = config["block_latent_frames"]
    if side == "cut":
        longest = max(lengths[0], config.get("first_block_latent_frames", 1))
        config["block_latent_frames"] = [*lengths, *sorted({*range(1, longest), steer_block or 1} - {*lengths})]
        config["cut_blocks"] = True
        config["steer_block_latent_frames"] = steer_block or config.get("steer_block_latent_frames")
    elif side == "whole":
        config |= {"cut_blocks": False, "steer_block_latent_frames": None}
    else:
        raise SystemExit(f"--sides: {side!r} is neither cut nor whole")
    for path in model.iterdir():
        (folder / path.name).symlink_to(path.resolve())
    (folder / "stream.json").unlink()
    (folder / "stream.json").write_text(json.dumps(config))
    steer = f", a steer's of {config['steer_block_latent_frames']}" if config["steer_block_latent_frames"] else ""
    print(f"\n{side}: blocks of {lengths[0]} latent frames{steer}", flush=True)
    return folder


async def measure(model: Path, options: argparse.Namespace) -> None:
    """Start a server, steer and print."""
    async with serve(model) as (url, _):
        await run(url, options)


async def run(url: str, options: argparse.Namespace) -> None:
    """Steer and print."""
    async with Client(url) as client:
        model = await client.model()
        stream = await client.streams.get("main")
        watch = Watch(stream)
        tasks = [asyncio.create_task(watch.video()), asyncio.create_task(watch.events())]
        try:
            await asyncio.wait_for(watch.playing.wait(), STEER_TIMEOUT_S)
            await asyncio.sleep(SETTLE_S)
            watch.underruns = 0
            rows = [row async for row in steers(client, stream, watch, model, options)]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    print_table(rows, watch, stream.info)


class Watch:
    """One viewer: the video, and the events beside it, with the moments at which they came."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._arrived: dict[int, float] = {}
        self._steers: dict[str, asyncio.Future[tuple[float, Any]]] = {}
        self._fragment = asyncio.Condition()
        self.playing = asyncio.Event()
        self.underruns = 0
        self.lock_s = 0.0

    async def video(self) -> None:
        """Take the video and note when each tick's picture came."""
        async with VideoSocket(self._stream.video_url) as video:
            rate_hz, init = float(video.hello["rate_hz"]), b""
            async for data in video.messages():
                now_s = time.monotonic()
                if not init:
                    init = data
                    continue
                async with self._fragment:
                    for packet in packets(init, data):
                        self._arrived[round(float(packet.pts * packet.time_base) * rate_hz)] = now_s
                    self._fragment.notify_all()
                newest = max(self._arrived)
                self._arrived.pop(newest - 600, None)
                await video.acknowledge(newest)
                self.playing.set()

    async def events(self) -> None:
        """Take the events and note when each steer was released."""
        async for event in self._stream.events():
            if event.type == "underrun":
                self.underruns += event.data["repeated"]
            elif event.type == "clock":
                self.lock_s = event.data["lock_s"]
            elif event.type == "steer.released":
                future = self.released(event.data["id"])
                if not future.done():
                    future.set_result((time.monotonic(), event))

    def released(self, id: str) -> asyncio.Future[tuple[float, Any]]:
        """Resolves with the moment of a steer's release here, and its event."""
        return self._steers.setdefault(id, asyncio.get_running_loop().create_future())

    async def arrival(self, tick: int) -> float:
        """When the picture of a tick, or a later one, came."""
        async with self._fragment:
            await self._fragment.wait_for(lambda: max(self._arrived) >= tick)
            return min(at_s for number, at_s in self._arrived.items() if number >= tick)


async def steers(
    client: Client, stream: Stream, watch: Watch, model: dict[str, Any], options: argparse.Namespace
) -> AsyncIterator[dict[str, float]]:
    """Steer at random moments; seconds by column."""
    dice = random.Random(options.seed)
    banks = [bank for bank in model["vocabulary"].values() if bank][:2]
    before = ""
    for number in range(options.steers):
        await asyncio.sleep(dice.uniform(0.0, 2.0))
        prompt = before
        while prompt == before:
            prompt = " ".join(dice.choice(bank)["prompt"] for bank in banks)
        before = prompt
        asked_s = time.monotonic()
        asked = await client.request("POST", f"/v1/streams/{stream.id}/steers", body={"prompt": prompt})
        async with asyncio.timeout(STEER_TIMEOUT_S):
            released_s, event = await watch.released(asked["id"])
            arrived_s = await watch.arrival(event.tick)
        row = {"wait": event.data["wait_s"], "compute": event.data["compute_s"], "total": event.data["latency_s"]}
        row |= {"client": released_s - asked_s, "viewer": arrived_s - asked_s}
        if options.steers > 1 and number % 10 == 9:
            print(f"{number + 1} of {options.steers}", file=sys.stderr, flush=True)
        yield row


def print_table(rows: list[dict[str, float]], watch: Watch, info: dict[str, Any]) -> None:
    """Seconds: median, 90th percentile and worst of each column."""
    print(f"{len(rows)} steers, {info['size']} at {info['rate_hz']:g} Hz; lock time at the end {watch.lock_s:.2f} s")
    print(f"{'seconds':<10}" + "".join(f"{name:>10}" for name in COLUMNS))
    for name, pick in (("median", 0.5), ("90%", 0.9), ("worst", 1.0)):
        cells = (sorted(row[column] for row in rows) for column in COLUMNS)
        values = (statistics.median(c) if pick == 0.5 else c[min(len(c) - 1, int(pick * len(c)))] for c in cells)
        print(f"{name:<10}" + "".join(f"{value:>10.2f}" for value in values))
    print(f"pictures repeated for want of the next: {watch.underruns}")


if __name__ == "__main__":
    main()
