"""What a clip job takes from a live stream: the same stream, watched and steered, with and without one beside it.

    python -m benchmarks.clips [--model model/starter] [--seconds 30] [--rounds 2] [--steps N] [--guidance 2]

Starts `streamer serve`, watches `main` over its WebSocket and steers it every few seconds, in turn alone and beside a
clip that always has work; then lets a clip run with nobody watching. *repeated* are pictures shown again for want of
the next, *lead* is what the stream has in hand, *gap* the time between two fragments at the viewer, *steer* from POST
to release by the server's clock, *clip* the share of a second of its video that a clip gains a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamer_client import Client, Video
from streamer_client.stream import Stream
from streamer_client.video import VideoSocket

from benchmarks.serving import serve

SETTLE_S = 3.0
STEER_EVERY_S = 4.0
LOOK_S = 0.5
COLUMNS = ("repeated", "lead median", "lead least", "gap 99%", "gap worst", "steer", "clip")


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("model/starter"))
    parser.add_argument("--seconds", type=float, default=30.0, help="of each part")
    parser.add_argument("--rounds", type=int, default=2, help="how often alone and beside take turns")
    parser.add_argument("--steps", type=int, help="denoising steps of the clip")
    parser.add_argument("--guidance", type=float, help="guidance scale of the clip")
    asyncio.run(run(parser.parse_args()))


@dataclass
class Seen:
    """What one part of the run showed."""

    repeated: int = 0
    leads_s: list[float] = field(default_factory=list)
    arrivals_s: list[float] = field(default_factory=list)
    steers_s: list[float] = field(default_factory=list)
    clip_share: float | None = None

    def row(self) -> list[str]:
        """Seconds, but for the first column and the last."""
        gaps_s = sorted(after - before for before, after in zip(self.arrivals_s, self.arrivals_s[1:], strict=False))
        worst = ["-"] * 4
        if gaps_s:
            values = (statistics.median(self.leads_s), min(self.leads_s), gaps_s[int(0.99 * len(gaps_s))], gaps_s[-1])
            worst = [f"{value:.3f}" for value in values]
        steer = f"{statistics.median(self.steers_s):.2f}" if self.steers_s else "-"
        clip = "-" if self.clip_share is None else f"{self.clip_share:.2f}"
        return [str(self.repeated) if gaps_s else "-", *worst, steer, clip]


class Viewer:
    """One viewer of a stream, who notes into `seen`."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.seen = Seen()
        self.playing = asyncio.Event()

    async def video(self) -> None:
        """When each fragment came."""
        async with VideoSocket(self.stream.video_url) as video:
            async for _ in video.messages():
                self.seen.arrivals_s.append(time.monotonic())
                self.playing.set()

    async def events(self) -> None:
        """Underruns and steers."""
        async for event in self.stream.events():
            if event.type == "underrun":
                self.seen.repeated += event.data["repeated"]
            elif event.type == "steer.released":
                self.seen.steers_s.append(event.data["latency_s"])

    async def leads(self) -> None:
        """What is in hand, now and then."""
        while True:
            self.seen.leads_s.append((await self.stream.refresh())["lead_s"])
            await asyncio.sleep(LOOK_S)


async def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    async with serve(options.model) as (url, _), Client(url) as client:
        model = await client.model()
        stream = await client.streams.get("main")
        print(
            f"{model['checkpoint']} on {model['device']}, {stream.info['size']} at {model['rate_hz']:g} Hz; seconds"
        )
        print(f"{'':<16}" + "".join(f"{name:>13}" for name in COLUMNS), flush=True)
        viewer = Viewer(stream)
        tasks = [asyncio.create_task(work()) for work in (viewer.video, viewer.events, viewer.leads)]
        await viewer.playing.wait()
        for _ in range(options.rounds):
            _print("alone", await _part(viewer, model, options.seconds))
            async with _clip(client, model, options) as clip:
                _print("beside a clip", await _part(viewer, model, options.seconds, clip))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with _clip(client, model, options) as clip:
            await asyncio.sleep(SETTLE_S)  # the stream is paused now
            unwatched = Seen(clip_share=await _gained(clip, options.seconds))
            _print("nobody watches", unwatched)


async def _part(viewer: Viewer, model: dict[str, Any], seconds: float, clip: Video | None = None) -> Seen:
    """Watch and steer for so long."""
    await asyncio.sleep(SETTLE_S)
    viewer.seen = seen = Seen()
    steering = asyncio.create_task(_steer(viewer, model))
    if clip is None:
        await asyncio.sleep(seconds)
    else:
        seen.clip_share = await _gained(clip, seconds)
    steering.cancel()
    await asyncio.gather(steering, return_exceptions=True)
    return seen


async def _steer(viewer: Viewer, model: dict[str, Any]) -> None:
    entries = [entry["prompt"] for bank in model["vocabulary"].values() for entry in bank]
    for number in range(1_000_000):
        await asyncio.sleep(STEER_EVERY_S)
        viewer.stream.steer(entries[number % len(entries)])


async def _gained(clip: Video, seconds: float) -> float:
    """Seconds of its video that a clip gains in a second; it is deleted before it is done."""
    before, start_s = (await clip.refresh())["progress"], time.monotonic()
    await asyncio.sleep(seconds)
    after = (await clip.refresh())["progress"]
    return float((after - before) / 100 * float(clip.info["seconds"]) / (time.monotonic() - start_s))


@contextlib.asynccontextmanager
async def _clip(client: Client, model: dict[str, Any], options: argparse.Namespace) -> AsyncIterator[Video]:
    """A clip that is long enough to last."""
    prompt = next(entry["prompt"] for bank in model["vocabulary"].values() for entry in bank)
    wanted = {"seconds": model["clips"]["seconds"], "steps": options.steps, "guidance_scale": options.guidance}
    clip = await client.videos.create(prompt, seed=1, **wanted)
    try:
        yield clip
    finally:
        await clip.delete()


def _print(name: str, seen: Seen) -> None:
    print(f"{name:<16}" + "".join(f"{cell:>13}" for cell in seen.row()), flush=True)


if __name__ == "__main__":
    main()
