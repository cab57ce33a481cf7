"""Whether the fused FFN kernels are right on this GPU, and what a starter's training step costs: a minute a form.

    python -m benchmarks.train_step [--rows 800] [--forms fused,plain] [--scan] [--start model/starter] [--table 15]

First the fused SiLU, depthwise 3x3 and GLU against plain torch in float32: relative errors (root mean square) of
values and gradients, beside those of plain torch in bfloat16; then times of both. Then whole steps of the *long*
stage on random latents: wall and host milliseconds, kernel time, a profile. `--scan` times other tiles. Exit status
1: an error above twice that of plain bfloat16, or above 1%.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.training import depthwise
from model.training.clips import ClipKind, draw_lengths
from model.training.dit import ROWS, STAGES, build_transformer
from model.training.flow import Batch, BlockFlow, Net
from model.training.optim import Average, Optimisers
from model.training.runs import pick_device

HALF = 720
NAMES = ("value", "hidden", "hidden bias", "weight", "bias")


def arguments(rows: int, height: int, width: int, device: torch.device) -> tuple[list[Tensor], Tensor]:
    """Return random arguments of `depthwise.gated` and a gradient of its result, in bfloat16."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    hidden = normal(rows, height, width, 2 * HALF).bfloat16()
    rest = [normal(2 * HALF) * 0.3, normal(2 * HALF, 1, 3, 3) * 0.3, normal(2 * HALF) * 0.3]
    return [hidden, *rest], normal(rows, height, width, HALF).bfloat16()


def results(form: Callable[..., Tensor], args: list[Tensor], gradient: Tensor) -> list[Tensor]:
    """Return the value and the gradients of all arguments."""
    leaves = [t.detach().requires_grad_() for t in args]
    out = form(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, gradient.to(out.dtype))]


def check(device: torch.device, rows: int) -> bool:
    """Print errors; return whether all are small."""
    good = True
    for height, width in ((9, 16), (16, 9)):
        args, gradient = arguments(rows, height, width, device)
        exact = results(depthwise.plain, [t.float() for t in args], gradient.float())
        forms: dict[str, Callable[..., Tensor]] = {"fused": depthwise.silu_depthwise_glu, "plain": depthwise.plain}
        errors = {
            name: [
                float((a.float() - b).norm() / b.norm())
                for a, b in zip(results(f, args, gradient), exact, strict=True)
            ]
            for name, f in forms.items()
        }
        for name, fused, plain in zip(NAMES, errors["fused"], errors["plain"], strict=True):
            bad = not fused <= max(2 * plain, 1e-3) or fused > 1e-2
            good &= not bad
            print(
                f"{height}x{width} {name:12} fused {fused:.1e}  plain {plain:.1e}{'  BAD' if bad else ''}", flush=True
            )
    return good


def milliseconds(work: Callable[[], Any], times: int = 20) -> float:
    """Return the GPU time of one call."""
    for _ in range(3):
        work()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(times):
        work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / times


def time_forms(device: torch.device, rows: int, forms: list[str], scan: bool) -> None:
    """Print times of the operator alone, and of other tiles."""
    args, gradient = arguments(rows, 9, 16, device)
    compiled = torch.compile(depthwise.plain, dynamic=False)
    for name, form in (("fused", depthwise.silu_depthwise_glu), ("plain", compiled)):
        if name in forms:
            leaves = [t.detach().requires_grad_() for t in args]
            both = milliseconds(lambda form=form, leaves=leaves: results(form, leaves, gradient))  # type: ignore[misc]
            with torch.no_grad():
                forward = milliseconds(lambda form=form: form(*args))  # type: ignore[misc]
            print(f"operator {name}: forward {forward:.3f} ms, with backward {both:.3f} ms", flush=True)
    if not scan:
        return
    from model.training import depthwise_kernels as kernels

    usual = kernels.CONVOLVE, kernels.TRANSPOSE
    for channels, warps, per in ((32, 4, 4), (16, 4, 4), (32, 8, 4), (64, 8, 4), (64, 16, 4), (32, 4, 2), (32, 4, 8)):
        kernels.CONVOLVE = kernels.Tile(channels, warps)
        kernels.TRANSPOSE = kernels.Tile(channels, warps, per)
        forward = milliseconds(lambda: kernels.forward(*args))
        back = milliseconds(lambda: kernels.backward(gradient, *args))
        print(f"tile {channels} channels, {warps} warps, {per} rows: {forward:.3f} + {back:.3f} ms", flush=True)
    kernels.CONVOLVE, kernels.TRANSPOSE = usual


class Steps:
    """Training steps of the *long* stage's long clips on random latents and captions."""

    def __init__(self, start: Path, rows: int, device: torch.device) -> None:
        from transformers import Gemma2Model

        text = Gemma2Model.from_pretrained(start / "text_encoder")
        self.net = Net(build_transformer(start), text, device.type == "cuda").to(device, torch.float32)
        self.optimisers = Optimisers(*self.net.split_parameters(), muon_lr=2e-3, adam_lr=1e-3)
        self.named: dict[str, Tensor] = dict(self.net.named_parameters())
        self.average = Average(self.named, 0.997)
        stage = STAGES["long"]
        part = stage.parts[0]
        self.flow = BlockFlow(self.net, stage.copies, rows, device)
        self._clips, self._kind, self._rng = max(1, part.clips * rows // ROWS), part.kind, random.Random(0)
        self._device, self._rows = device, rows
        weights = sum(p.numel() for p in self.net.transformer.transformer_blocks.parameters())
        self.tflop = 6e-12 * weights * rows * 9 * 16

    def batch(self) -> Batch:
        """Return clips that cost no rendering."""
        kind: ClipKind = self._kind
        count, device = self._clips, self._device
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        latents = torch.randn(count, 16, kind.frames, 18, 32, device=device, dtype=dtype)
        text = torch.randn(count, kind.blocks, 40, 256, device=device, dtype=dtype)
        mask = torch.ones(count, kind.blocks, 40, dtype=torch.long, device=device)
        return Batch(latents, text, mask, torch.tensor([draw_lengths(kind, self._rng) for _ in range(count)]))

    def __call__(self) -> None:
        loss = self.flow.loss(self.batch())
        loss.backward()
        self.optimisers.step(1e-6)
        self.average.update(self.named)


def host_and_wall(work: Callable[[], Any], times: int = 10) -> tuple[float, float]:
    """Return milliseconds until the host was done with one call, and until the GPU was."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(times):
        work()
    host = time.perf_counter() - begin
    torch.cuda.synchronize()
    return host / times * 1e3, (time.perf_counter() - begin) / times * 1e3


def time_steps(start: Path, rows: int, form: str, device: torch.device, table: int) -> None:
    """Print what whole steps cost in one form."""
    from torch.profiler import ProfilerActivity, profile

    depthwise.enable(form == "fused")
    steps = Steps(start, rows, device)
    begin = time.perf_counter()
    for _ in range(4):
        steps()
    torch.cuda.synchronize()
    print(f"step {form}: warm after {time.perf_counter() - begin:.0f} s", flush=True)
    _, wall = host_and_wall(steps)
    lone = [host_and_wall(steps, 1)[0] for _ in range(5)]
    memory = torch.cuda.max_memory_allocated() / 2**30
    batch = steps.batch()
    laid, _ = host_and_wall(lambda: steps.flow.place(batch))
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        for _ in range(3):
            steps()
        torch.cuda.synchronize()
    events = seen.key_averages()
    kernels = sum(e.self_device_time_total for e in events if e.device_type.name != "CPU") / 3e3
    print(f"step {form}: {wall:.1f} ms, {steps.tflop / wall * 1e3:.0f} TFLOP/s, kernels {kernels:.1f} ms, "
          f"host alone {min(lone):.1f} ms, layout {laid:.1f} ms of it, {memory:.1f} GiB")  # fmt: skip
    print(events.table(sort_by="self_cuda_time_total", row_limit=table, max_name_column_width=90), flush=True)


def main() -> int:
    """Check, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--forms", default="fused", help="which forms to time, comma-separated")
    parser.add_argument("--scan", action="store_true", help="time other tiles of the kernels")
    parser.add_argument("--start", type=Path, default=Path("model/starter"))
    parser.add_argument("--table", type=int, default=15, help="lines of the profile")
    args = parser.parse_args()
    device = pick_device()
    if device.type != "cuda":
        print("error: no CUDA device", file=sys.stderr)
        return 2
    torch._dynamo.config.cache_size_limit = 64
    forms = [form for form in args.forms.split(",") if form]
    good = check(device, min(args.rows, 101)) if "fused" in forms else True
    time_forms(device, args.rows, forms, args.scan)
    for form in forms:
        time_steps(args.start, args.rows, form, device, args.table)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
