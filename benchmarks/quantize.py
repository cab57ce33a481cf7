"""Memory, speed and error of every way to quantise, on one transformer with random weights: a table in one run.

    python -m benchmarks.quantize [--device cuda] [--schemes bnb8 bnb4 int8 int8-dynamic fp8 fp8-dynamic nvfp4]
        [--compile] [--budget-s 150]
    python -m benchmarks.quantize --tiny --device cpu

The transformer is LongSANA's (2.06 B parameters) at 480x832 and 10 latent frames a block, 15,600 tokens; `--tiny` is
one of 3 M with 24 tokens a frame. Random weights are scaled so that activations stay near 1, as trained ones do.

`weights` is what the transformer's tensors take; `peak` the most that the device held during the passes; `ms` a pass,
median. `flow` is the relative error of one pass (root mean square against bfloat16), `block` that of a block's clean
latents. `compiled` is a pass with `--compile`: torch.compile block by block, without which dynamic schemes are slow.
It takes a minute and more, so the rest of its row comes first. Schemes run in the order given, after bfloat16;
what cannot run on the device says why, and so does what `--budget-s` leaves out.
"""

from __future__ import annotations

import argparse
import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch._inductor.config as inductor
from diffusers.utils import logging as diffusers_logging
from torch import Tensor

from model.quantize import SCHEMES, QuantizeError, Share, quantize
from model.stream import LatentStream
from model.transformer import SanaVideoTransformer3DModel

BASELINE = "bf16"
MIB = 1 << 20
TEXT_TOKENS = 300
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Size:
    """A transformer and the latents it runs on."""

    layers: int
    heads: int
    head_dim: int
    caption: int
    latent: tuple[int, int]
    frames: int


FULL = Size(20, 20, 112, 2304, (60, 104), 10)
TINY = Size(2, 4, 64, 64, (8, 12), 2)


@dataclass(frozen=True)
class Result:
    """What one scheme did; latents and flow on the host."""

    share: Share | None
    weights: int
    peak: int
    pass_ms: float
    flow: Tensor
    block: Tensor


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--schemes", nargs="+", choices=[BASELINE, *SCHEMES], default=[BASELINE, *SCHEMES])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--budget-s", type=float, default=math.inf, help="start nothing new after so many seconds")
    options = parser.parse_args()
    deadline = time.monotonic() + options.budget_s
    torch.set_grad_enabled(False)
    quieten()
    device, size = torch.device(options.device), TINY if options.tiny else FULL
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    parameters = sum(each.numel() for each in new_net(size, torch.device("meta")).parameters())
    tokens = size.frames * size.latent[0] * size.latent[1] // 4
    print(f"{name}, torch {torch.__version__}, {parameters:,} parameters, {tokens:,} tokens a pass")
    columns = f"{'weights MiB':>13}{'peak MiB':>10}{'ms':>9}{'flow':>10}{'block':>10}{'compiled':>10}"
    print(f"{'':<14}{'quantised':>10}{columns}", flush=True)
    results: dict[str, Result] = {}
    for scheme in dict.fromkeys([BASELINE, *options.schemes]):
        print(f"{scheme:<14}", end="", flush=True)
        try:
            for cells in row(scheme, size, device, options, deadline, results):
                print(cells, end="", flush=True)
        except (QuantizeError, RuntimeError) as error:  # a scheme's own library may fail: the others go on
            print(f" {str(error).splitlines()[0][:100]}", end="")
        print(flush=True)


def quieten() -> None:
    """Leave the table alone on the screen: libraries tell of casts, kernels tried and kernels that don't fit."""
    diffusers_logging.set_verbosity_error()
    warnings.filterwarnings("ignore", module="bitsandbytes")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    inductor.autotune_num_choices_displayed = 0
    logging.getLogger("torch._inductor.select_algorithm").setLevel(logging.CRITICAL)


def row(
    scheme: str,
    size: Size,
    device: torch.device,
    options: argparse.Namespace,
    deadline: float,
    results: dict[str, Result],
) -> Iterator[str]:
    """A row's cells as they come to be known.

    Args:
        deadline: of the monotonic clock; nothing new is started after it.
        results: of the schemes so far; this one's is added. Errors are relative to the first.

    Raises:
        QuantizeError: the scheme can't run on the device.
    """
    if time.monotonic() >= deadline:
        yield f" left out: {options.budget_s:.0f} s are over"
        return
    case = Case(scheme, size, device)
    results[scheme] = case.measure(options.rounds)
    yield line(results[scheme], next(iter(results.values())))
    if options.compile and time.monotonic() < deadline:
        yield f"{case.compiled_ms(options.rounds):>10.1f}"
    else:
        yield f"{'-':>10}"


def line(result: Result, baseline: Result) -> str:
    """All cells but that of the compiled pass."""
    share = "" if result.share is None else f"{result.share.quantised / result.share.total:.1%}"
    flow, block = (relative(x, y) for x, y in ((result.flow, baseline.flow), (result.block, baseline.block)))
    peak = f"{result.peak / MIB:.0f}" if result.peak else "-"
    return f"{share:>10}{result.weights / MIB:>13.1f}{peak:>10}{result.pass_ms:>9.1f}{flow:>10.2e}{block:>10.2e}"


class Case:
    """A quantised transformer and what its passes are given.

    Raises:
        QuantizeError: the scheme can't run on the device.
    """

    def __init__(self, scheme: str, size: Size, device: torch.device) -> None:
        self._net, self._size, self._device = random_net(size, device), size, device
        self._share = None if scheme == BASELINE else quantize(self._net, scheme)
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        generator = torch.Generator().manual_seed(1)
        shape = (1, 16, size.frames, *size.latent)
        self._latents = torch.randn(shape, generator=generator).to(device, torch.bfloat16)
        self._embeds = torch.randn(1, TEXT_TOKENS, size.caption, generator=generator).to(device)
        self._text = self._net.encode_text(self._embeds)
        self._timestep = torch.tensor([889.0], device=device)

    def _pass(self) -> Tensor:
        (flow,) = self._net(self._latents, self._text, self._timestep, return_dict=False)
        return flow

    def measure(self, rounds: int) -> Result:
        """Run passes and a block of a stream, not compiled."""
        size, device = self._size, self._device
        flow = self._pass().float().cpu()
        pass_ms = timed(self._pass, device, rounds)
        height, width = size.latent
        stream = LatentStream(
            self._net, text=self._embeds, text_mask=None, height=height, width=width, block=size.frames, seed=1
        )
        block = next(stream).cpu()
        stream.release()
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        return Result(self._share, weight_bytes(self._net), peak, pass_ms, flow, block)

    def compiled_ms(self, rounds: int) -> float:
        """Compile the transformer's blocks; median milliseconds of a pass from then on."""
        for block in self._net.transformer_blocks:
            block.compile()
        return timed(self._pass, self._device, rounds)


def random_net(size: Size, device: torch.device) -> SanaVideoTransformer3DModel:
    """Random weights of variance 1 / inputs, the same for every scheme."""
    net = new_net(size, torch.device("meta")).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in net.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0 if "norm" in name else 0.0)
        elif "scale_shift_table" in name:
            parameter.normal_(0, 0.3, generator=generator)
        else:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
    return net


def new_net(size: Size, device: torch.device) -> SanaVideoTransformer3DModel:
    """LongSANA's transformer of a size, bfloat16, without numbers."""
    with torch.device(device):
        net = SanaVideoTransformer3DModel(
            num_attention_heads=size.heads,
            attention_head_dim=size.head_dim,
            num_layers=size.layers,
            num_cross_attention_heads=size.heads,
            cross_attention_head_dim=size.head_dim,
            cross_attention_dim=size.heads * size.head_dim,
            caption_channels=size.caption,
            mlp_ratio=3.0,
            cross_attention_norm_eps=1e-6,
            linear_attention_eps=1e-8,
        )
    return net.to(torch.bfloat16).eval().requires_grad_(False)


def weight_bytes(net: SanaVideoTransformer3DModel) -> int:
    """Bytes of all parameters, quantised ones as they are stored."""
    return sum(tensor_bytes(each) for each in (*net.parameters(), *net.buffers()))


def tensor_bytes(tensor: Any) -> int:
    """Bytes of a tensor, or of the tensors that one of torchao's is made of."""
    if hasattr(tensor, "__tensor_flatten__") and type(tensor) is not torch.nn.Parameter:
        names, _ = tensor.__tensor_flatten__()
        return sum(tensor_bytes(getattr(tensor, name)) for name in names)
    state = getattr(tensor, "quant_state", None)  # bitsandbytes' scales
    extra = 0 if state is None else state.absmax.nbytes
    return int(tensor.nbytes) + extra


def timed(work: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """Median milliseconds, after two calls that warm up; of fewer rounds when they take longer than `PATIENCE_S`."""
    times: list[float] = []
    while len(times) < 2 + rounds and (len(times) < 3 or sum(times[2:]) < 1e3 * PATIENCE_S):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[2:])


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def relative(x: Tensor, true: Tensor) -> float:
    """Root mean square of the difference over that of the true numbers."""
    return float((x - true).square().mean().sqrt() / true.square().mean().sqrt())


if __name__ == "__main__":
    main()
