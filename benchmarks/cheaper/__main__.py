"""What each measure saves against the plain form, and what it costs in the picture: one run, one table.

    python -m benchmarks.cheaper [--model model/starter] [--rounds 12] [--threads 2] [--isa avx2] [--no-inductor]
        [--torchao int8 int8-dynamic] [--decoder-base 32 16]

All rows take turns, a block each a round, beginning with another row each time, so that a busy machine is unfair to
none. In every round all passes begin at the same boundary of one stream, with the same weights, prompt and noise; all
decoders decode the same latents. Differences below a tenth need a quiet machine and more rounds.

`ms` a picture: median over the rounds, and the least; `less`: what is saved of the first row's time, by the least.
`latents`: relative error of the block (root mean square), and `PSNR`, in dB, that of its pictures, all decoded in
float32. Passes are compared with ours in float32 (diffusers' class has no past, so its error is that of a first
block), samplers with so many passes that more would change nothing, decoders with diffusers' in float32. `sharp` is
the mean gradient of the pictures, colours in 0..255.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging
from torch import Tensor

from benchmarks.cheaper import decode, passes
from benchmarks.cheaper.passes import Unavailable, World
from benchmarks.isa import add_isa_argument, run_as
from benchmarks.quality.look import sharpness
from model.devices import default_dtype, name_of
from model.quantize import QuantizeError

SETTLING = 3
"""Blocks before the first round: a stream begins unlike it goes on."""


@dataclass
class Row:
    """A way, and what was measured of it; or `why` it could not be gone."""

    name: str
    way: Any = None
    why: str = ""
    ms: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)
    sharp: list[float] = field(default_factory=list)
    latents: Tensor | None = None
    pictures: Tensor | None = None

    @property
    def goes(self) -> bool:
        return not self.why

    def timed(self, work: Callable[[], Tensor | None], pictures: int, counted: bool) -> None:
        """Run and note milliseconds a picture; what fails is not tried again."""
        start_s = time.perf_counter()
        try:
            self.latents = work()
        except RuntimeError as error:
            self.why = short(error)
            return
        if counted:
            self.ms.append(1e3 * (time.perf_counter() - start_s) / pictures)

    def judge(self, true: Tensor | None, pictures: Tensor | None, true_pictures: Tensor | None) -> None:
        """Note the error of its latents, and what its pictures (1, 3, pictures, h, w) in [-1, 1] look like."""
        if true is not None and self.latents is not None:
            self.errors.append(relative(self.latents, true))
        if pictures is None:
            return
        self.sharp.append(sharpness(((pictures[0].transpose(0, 1) + 1) * 127.5).round()))
        if true_pictures is not None:
            self.psnr.append(psnr(pictures, true_pictures))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("model/starter"))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--no-inductor", action="store_true", help="leave torch.compile out: it takes a minute to start"
    )
    parser.add_argument("--torchao", nargs="*", default=["int8", "int8-dynamic"], metavar="SCHEME")
    parser.add_argument("--decoder-base", type=int, nargs="*", default=[], metavar="N", help="other decoder widths")
    add_isa_argument(parser)
    options = parser.parse_args()
    run_as(options.isa, "benchmarks.cheaper")
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    measure(options)


def measure(options: argparse.Namespace) -> None:
    """Make all ways, let them take turns, print."""
    world, dtype = World.of(options.model), default_dtype("cpu")
    config, judge = world.config, Judge(world)
    rows = [
        made(passes.ways(world, dtype, judge.past, options.torchao, not options.no_inductor)),
        made(passes.samplers(world, dtype)),
        made(decode.ways(world, dtype, options.decoder_base)),
    ]
    plain, samplers, decoders = rows
    pictures = judge.vae.temporal_factor * config.block
    for count in range(options.rounds + 1):  # the first one warms up
        latents = judge.go_on()
        for row in turned([*plain, *samplers], count):
            if row.goes:
                row.way.begin(judge.past)
                row.timed(row.way.run, pictures, count > 0)
        for row in turned(decoders, count):
            if row.goes:
                row.timed(partial(row.way.run, latents), pictures, count > 0)
                row.pictures = row.way.pictures(latents)
        if count:
            judge.passes(plain)
            judge.samplers(samplers)
            judge.decoders(decoders)
    print(
        f"{options.model}, {config.width}x{config.height}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; a server takes {name_of(dtype)} here; "
        f"{options.rounds} rounds of {pictures} pictures"
    )
    for title, part in zip(
        (f"passes ({len(config.timesteps)} and a commit)", "how many passes", "decode"), rows, strict=True
    ):
        table(title, part)
    print()
    total("plain", [plain[0], decoders[0]])
    served = find(decoders, f"ours, {name_of(dtype)}")
    total("as served", [find(plain, f"ours, {name_of(dtype)}"), served])
    if served.goes:
        remembered(served.way, world)


def turned(rows: list[Row], count: int) -> list[Row]:
    """The rows from another one on in each round: what runs before a row leaves its caches warm or cold."""
    first = 3 * count % max(1, len(rows))
    return rows[first:] + rows[:first]


def made(ways: Iterable[tuple[str, Callable[[], Any]]]) -> list[Row]:
    """Make the ways; what can't be gone here says why."""
    rows = []
    for name, make in ways:
        try:
            row = Row(name, make())
        except (Unavailable, QuantizeError, RuntimeError) as error:
            row = Row(name, why=short(error))
        if isinstance(row.way, passes.Compiled):
            row.name += f" ({row.way.start_up_s:.0f} s to start)"
        rows.append(row)
    return rows


class Judge:
    """The stream that all ways start from, ours in float32, and what its blocks look like."""

    def __init__(self, world: World) -> None:
        self.vae = world.checkpoint.streaming_vae
        self._way = passes.Ours(world, world.checkpoint.transformer)
        self._state, self._before = self.vae.new_state(), self.vae.new_state()
        self._first = self.latents = next(self._way.stream)
        for _ in range(SETTLING):
            self._step()
        self.past = self._way.stream.snapshot()

    def go_on(self) -> Tensor:
        """The next block; `past` is now where it began."""
        self.past = self._way.stream.snapshot()
        self._step()
        return self.latents

    def _step(self) -> None:
        self.vae.decode(self.latents, self._state)
        self._before = copy.deepcopy(self._state)
        self.latents = next(self._way.stream)

    def _shown(self, latents: Tensor, first: bool = False) -> Tensor:
        state = self.vae.new_state() if first else copy.deepcopy(self._before)
        return self.vae.decode_samples(latents, state)

    def passes(self, rows: list[Row]) -> None:
        """Note what the round's blocks are worth against this stream's."""
        for row in rows:
            if row.goes and row.latents is not None:
                first = isinstance(row.way, passes.Plain)
                true = self._first if first else self.latents
                row.judge(true, self._shown(row.latents, first), self._shown(true, first))

    def samplers(self, rows: list[Row]) -> None:
        """The same against the first of them."""
        if not rows or rows[0].latents is None:
            return
        true = rows[0].latents
        shown = self._shown(true)
        rows[0].judge(None, shown, None)
        for row in rows[1:]:
            if row.goes and row.latents is not None:
                row.judge(true, self._shown(row.latents), shown)

    def decoders(self, rows: list[Row]) -> None:
        """The same of pictures alone, against the first of the ways to decode."""
        rows[0].judge(None, rows[0].pictures, None)
        for row in rows[1:]:
            if row.goes and row.pictures is not None:
                row.judge(None, row.pictures, rows[0].pictures)


def table(title: str, rows: list[Row]) -> None:
    """Print a part of the table; the first row is the plain form."""
    if not rows:
        return
    print(f"\n{title:<52}{'ms (least)':>16}{'less':>7}{'latents':>10}{'PSNR':>7}{'sharp':>7}")
    for row in rows:
        if not row.goes:
            print(f"{row.name:<52}  {row.why}")
            continue
        cells = f"{f'{statistics.median(row.ms):.1f} ({min(row.ms):.1f})':>16}"
        cells += f"{1 - min(row.ms) / min(rows[0].ms):>7.0%}" if row is not rows[0] else f"{'':>7}"
        cells += f"{statistics.mean(row.errors):>10.1e}" if row.errors else f"{'-':>10}"
        cells += f"{statistics.mean(row.psnr):>7.1f}" if row.psnr else f"{'-':>7}"
        cells += f"{statistics.mean(row.sharp):>7.2f}" if row.sharp else f"{'-':>7}"
        print(f"{row.name:<52}{cells}")


def remembered(decoder: decode.Ours, world: World) -> None:
    """Print what a stream's decoder holds, and what it takes to make that anew."""
    vae = decoder.vae
    kept = torch.randn(1, vae.channels, vae.memory_latent_frames, *world.size)
    start_s = time.perf_counter()
    vae.prime(kept, vae.new_state(), first_latent=1)
    ms = 1e3 * (time.perf_counter() - start_s)
    print(
        f"a decoder's state: {decoder.state.nbytes / 1e6:.1f} MB, {ms:.0f} ms anew from {kept.shape[2]} latent frames"
    )


def find(rows: list[Row], name: str) -> Row:
    """The row of that name."""
    return next(row for row in rows if row.name == name)


def total(name: str, rows: list[Row]) -> None:
    """Print what a picture costs in all."""
    if all(row.goes for row in rows):
        median, least = (sum(function(row.ms) for row in rows) for function in (statistics.median, min))
        print(f"{f'in all, {name}':<52}{f'{median:.1f} ({least:.1f})':>16}")


def short(error: Exception) -> str:
    """The first line of what went wrong, not too long."""
    return str(error).splitlines()[0][:90]


def relative(x: Tensor, true: Tensor) -> float:
    """Root mean square of the difference over that of the true numbers."""
    return float((x - true).square().mean().sqrt() / true.square().mean().sqrt())


def psnr(pictures: Tensor, true: Tensor) -> float:
    """dB, of pictures in [-1, 1]; 99 at most."""
    return min(99.0, 10 * math.log10(4 / max(1e-12, float((pictures - true).square().mean()))))


if __name__ == "__main__":
    main()
