"""Milliseconds a picture of the VAE's decode: plain diffusers against ours, in the same run.

    python -m benchmarks.decode [--model model/starter] [--decoder-base 32 24 16] [--dtype bfloat16] [--threads 2]

A row is one way to decode, measured in turns with the others so that a busy machine is unfair to none: the least wall
time and the least processor time (of all threads) over the rounds. Ours ends with I420 bytes on the host, diffusers'
with floats. `--decoder-base` measures other decoder widths too, with random weights.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan

from model.stream_config import StreamConfig
from model.vae import StreamingVAE
from model.vae_decoder import StreamDecoder

BATCH = 3  # latent frames a call where several are taken at once: a block of the starter


def main() -> None:
    """Print one table for each decoder width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("model/starter"), help="a diffusers folder with vae/")
    parser.add_argument("--decoder-base", type=int, nargs="*", default=[], metavar="N", help="other decoder widths")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    size = StreamConfig.load(options.model)
    dtype: torch.dtype = getattr(torch, options.dtype)
    vae = AutoencoderKLWan.from_pretrained(options.model / "vae", torch_dtype=dtype, local_files_only=True)
    print(f"{size.height}x{size.width}, {options.dtype}, {options.threads} threads, {options.model}")
    show(vae, size, options.rounds)
    for base in options.decoder_base:
        other = AutoencoderKLWan.from_config({**vae.config, "decoder_base_dim": base}).to(dtype).eval()
        show(other, size, options.rounds)


def show(vae: AutoencoderKLWan, size: StreamConfig, rounds: int) -> None:
    """Measure the ways to decode with this VAE and print them."""
    millions = sum(p.numel() for p in vae.decoder.parameters()) / 1e6
    base = vae.config.decoder_base_dim or vae.config.base_dim
    print(f"\ndecoder base {base}, dim_mult {list(vae.config.dim_mult)}, {millions:.2f} M parameters")
    print(f"{'ms a picture':<38}{'wall':>8}{'CPU':>8}")
    for name, (wall, cpu) in measure(ways(vae, size), rounds).items():
        print(f"{name:<38}{wall:>8.2f}{cpu:>8.2f}")
    ours = StreamingVAE(vae)
    height, width = size.height // ours.spatial_factor, size.width // ours.spatial_factor
    kept = torch.randn(1, ours.channels, ours.memory_latent_frames, height, width)
    state = ours.new_state()
    wall, cpu = measure({"": (1, lambda: ours.prime(kept, state, first_latent=1))}, max(1, rounds // 4))[""]
    print(f"{f're-priming from {ours.memory_latent_frames} latents, ms in all':<38}{wall:>8.0f}{cpu:>8.0f}")
    print(f"{'state of a stream, MB':<38}{state.nbytes / 1e6:>8.1f}")


def ways(vae: AutoencoderKLWan, size: StreamConfig) -> dict[str, tuple[int, Callable[[], object]]]:
    """Name -> (pictures a call, the call)."""
    ours, plain_time = StreamingVAE(vae), StreamingVAE(vae)
    plain_time.decoder = StreamDecoder(vae.decoder, pairs=False)
    height, width = size.height // ours.spatial_factor, size.width // ours.spatial_factor
    latents = torch.randn(1, ours.channels, BATCH, height, width, generator=torch.Generator().manual_seed(0))
    one = latents[:, :, :1]
    clip = latents.to(vae.dtype)
    channels_last = copy.deepcopy(vae)
    for parameter in channels_last.parameters():
        if parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    clip_last = clip.contiguous(memory_format=torch.channels_last_3d)
    states = [ours.new_state(), ours.new_state(), ours.new_state()]
    for state in states:
        ours.decode(one, state)
    factor = ours.temporal_factor
    whole = ours.pictures_in(BATCH, 0)
    return {
        "diffusers, whole clip": (whole, lambda: vae.decode(clip)),
        "diffusers, channels last": (whole, lambda: channels_last.decode(clip_last)),
        "ours, plain time convolution": (factor, lambda: plain_time.decode_yuv(one, states[0])),
        "ours, latent by latent": (factor, lambda: ours.decode_yuv(one, states[1])),
        f"ours, {BATCH} latents a call": (BATCH * factor, lambda: ours.decode_yuv(latents, states[2])),
    }


def measure(calls: dict[str, tuple[int, Callable[[], object]]], rounds: int) -> dict[str, tuple[float, float]]:
    """Name -> least (wall, processor) milliseconds a picture; the ways take turns."""
    best = {name: (float("inf"), float("inf")) for name in calls}
    for _ in range(rounds):
        for name, (pictures, call) in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            best[name] = (min(best[name][0], 1e3 * wall / pictures), min(best[name][1], 1e3 * cpu / pictures))
    return best


if __name__ == "__main__":
    main()
