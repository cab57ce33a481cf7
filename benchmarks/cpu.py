"""What the starter costs on the CPU: alone against diffusers classes in the same loop, then served to a viewer.

    python -m benchmarks.cpu [--model model/starter] [--threads 2] [--rounds 12] [--seconds 20] [--isa avx2]

First table: a block is a commit and its denoising passes, then its latent frames decoded one by one. Both sides run
the same number of passes over the same shapes with the same weights; diffusers' classes carry no state between blocks
and make floats, ours carry it and make I420 bytes. The sides take turns, block by block, so that a busy machine is
unfair to neither; medians and minima are over the rounds. Below stands the rate that a server would take for the
quickest block, as its warm-up counts.

Second table: `streamer serve` with one WebSocket viewer, processor time of all its processes over wall time.

`--isa avx2` runs both as on a processor without AVX-512 (`benchmarks.isa`); `benchmarks.cheaper` tells what each
measure saves.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from diffusers import AutoencoderKLWan
from streamer_client import Client

from benchmarks.cheaper import decode, passes
from benchmarks.cheaper.passes import World
from benchmarks.isa import add_isa_argument, run_as
from benchmarks.serving import serve
from model.devices import default_dtype
from streamer.engine.budget import choose_rate


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("model/starter"))
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], help="default: as a server takes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the served part, 0 to leave it out")
    add_isa_argument(parser)
    options = parser.parse_args()
    run_as(options.isa, "benchmarks.cpu")
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    dtype = getattr(torch, options.dtype) if options.dtype else default_dtype("cpu")
    alone(options.model, dtype, options.rounds)
    if options.seconds > 0:
        asyncio.run(served(options.model, options.seconds))


def alone(folder: Path, dtype: torch.dtype, rounds: int) -> None:
    """Print milliseconds a picture of both sides, their ratio, and the rate that ours is good for."""
    world = World.of(folder)
    checkpoint = world.checkpoint
    pictures = checkpoint.streaming_vae.temporal_factor * checkpoint.config.block
    weights = {"torch_dtype": dtype, "local_files_only": True}
    vaes = [AutoencoderKLWan.from_pretrained(folder / "vae", **weights) for _ in range(2)]
    sides = {
        "diffusers' classes": block_of(passes.Plain(world, dtype), decode.Plain(vaes[0])),
        "ours": block_of(passes.Ours(world, world.net(dtype)), decode.Ours(vaes[1])),
    }
    times: dict[str, list[list[float]]] = {name: [] for name in sides}
    for run in range(rounds + 1):
        for name, block in sides.items():
            parts = [1e3 * seconds / pictures for seconds in block()]
            if run:  # the first warms up
                times[name].append([*parts, sum(parts)])
    count = len(checkpoint.config.timesteps)
    print(
        f"{folder}, {dtype}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads; "
        f"{count} passes + commit, {pictures} pictures a block"
    )
    print(f"{'ms a picture, median (min)':<28}{'passes':>16}{'decode':>16}{'all':>16}{'pictures/s':>12}")
    for name, rows in times.items():
        columns = list(zip(*rows, strict=True))
        cells = "".join(f"{f'{statistics.median(c):.1f} ({min(c):.1f})':>16}" for c in columns)
        print(f"{name:<28}{cells}{1e3 / statistics.median(columns[-1]):>12.1f}")
    slow, fast = (statistics.median([row[-1] for row in rows]) for rows in times.values())
    print(f"ratio {slow / fast:.2f}")
    quickest_s = min(row[-1] for row in times["ours"]) / 1e3
    print(f"a server takes {choose_rate(quickest_s, checkpoint.config.rate_hz, alone=False)[1]}")


def block_of(way: passes.Way, decoding: decode.Decoding) -> Callable[[], tuple[float, float]]:
    """Seconds of (passes, decode) of the next block of a running stream."""

    def block() -> tuple[float, float]:
        start = time.perf_counter()
        latents = way.run()
        middle = time.perf_counter()
        assert latents is not None
        decoding.run(latents)
        return middle - start, time.perf_counter() - middle

    block()  # the first one has nothing to commit
    return block


async def served(folder: Path, seconds: float) -> None:
    """Print the processor's share while one viewer watches over WebSocket."""
    async with serve(folder) as (url, server), Client(url) as client:
        await watch(client, server, seconds)


async def watch(client: Client, server: psutil.Process, seconds: float) -> None:
    stream = await client.streams.get("main")
    fragments = stream.fragments()
    settle = time.monotonic() + 5.0
    async for _ in fragments:
        if time.monotonic() > settle:
            break
    processes = {"server and encoder": server, "model worker": server.children()[0]}
    before = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
    whole, start, pictures = psutil.cpu_times(), time.monotonic(), 0
    async for _ in fragments:
        pictures += 1
        if time.monotonic() - start >= seconds:
            break
    wall = time.monotonic() - start
    now, cores = psutil.cpu_times(), psutil.cpu_count() or 1
    idle = (now.idle - whole.idle) / (wall * cores)
    rate = stream.info["rate_hz"]
    print(f"\none WebSocket viewer for {wall:.0f} s at {rate:g} Hz: {pictures / wall:.1f} pictures/s, {cores} cores")
    print(f"{'':<28}{'of all cores':>14}{'ms a picture':>14}")
    for name, process in processes.items():
        used = sum(process.cpu_times()[:2]) - before[name]
        print(f"{name:<28}{used / wall / cores:>13.0%}{1e3 * used / pictures:>14.1f}")
    print(f"{'idle (left for others)':<28}{idle:>13.0%}")
    await fragments.aclose()


if __name__ == "__main__":
    main()
