"""Train the starter's VAE on rendered clips: `python -m model.training.vae --run RUN --out OUT --seconds 330`.

Loss on pictures in -1..1: absolute error, that of gradients over width, height and time, that of 4x-pooled
pictures, and a small KL. The decoder sees latents with a little noise, since it will be fed by a sampler of few
steps. RUN keeps the resumable state, OUT gets the averaged weights in half precision and a picture to look at.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.training.clips import ClipKind, Pool, picture_pool, render_clips, to_unit
from model.training.optim import Average, Optimisers, warm_flat_linear
from model.training.runs import Clock, load_state, pick_device, save_state, say, write_shards
from model.training.vae_parallel import VaeParallel

CONFIG: dict[str, Any] = {
    "base_dim": 32, "decoder_base_dim": 24, "z_dim": 16, "dim_mult": [1, 2, 2], "num_res_blocks": 1,
    "temperal_downsample": [True, True], "is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2,
}  # fmt: skip
KL_WEIGHT = 3e-4
LATENT_NOISE = 0.05
MUON_LR, ADAM_LR = 4e-3, 2e-3
STATE = "vae.pt"
STRANGE_SHARE = 0.2  # of the clips, shown in other colours and upside down, so that a photograph is not all news


def build_vae(start: Path | None) -> Any:
    """Return a `diffusers.AutoencoderKLWan` of the starter's size: that of the diffusers folder `start`, or fresh."""
    from diffusers import AutoencoderKLWan

    if start is None:
        return AutoencoderKLWan(**CONFIG)
    return AutoencoderKLWan.from_pretrained(start, subfolder="vae", torch_dtype=torch.float32)


def estranged(pictures: Tensor) -> Tensor:
    """Return clips `(clips, 3, t, h, w)` of which some have their colours exchanged and stand on their heads."""
    strange = torch.rand(len(pictures), 1, 1, 1, 1, device=pictures.device) < STRANGE_SHARE
    return torch.where(strange, pictures[:, torch.randperm(3)].flip(-2), pictures)


def picture_loss(decoded: Tensor, target: Tensor) -> Tensor:
    """Mean error of pictures, their gradients and their 4x-pooled form; `(b, 3, t, h, w)` in -1..1."""
    error = decoded.float() - target.float()
    gradients = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean() + error.diff(dim=-3).abs().mean()
    coarse = F.avg_pool2d(error.flatten(0, 2)[:, None], 4).abs().mean()
    return error.abs().mean() + 0.5 * gradients + 0.5 * coarse


def training_loss(parallel: VaeParallel, pictures: Tensor, compare: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss to minimise, its picture part and the KL (a mean over latent numbers)."""
    mean, log_var = parallel.encode(pictures).float().chunk(2, dim=1)
    log_var = log_var.clamp(-20.0, 10.0)
    kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).mean()
    spread = mean.detach().std(dim=(0, 2, 3, 4), keepdim=True)
    deviation = (log_var.exp() + (LATENT_NOISE * spread).square()).sqrt()
    latents = mean + deviation * torch.randn_like(mean)
    fidelity = compare(parallel.decode(latents.to(pictures.dtype)), pictures)
    return fidelity + KL_WEIGHT * kl, fidelity, kl


def split_parameters(vae: Any) -> tuple[list[Any], list[Any]]:
    """Convolution kernels for Muon, biases and norms for AdamW."""
    matrices: list[Any] = []
    rest: list[Any] = []
    for name, parameter in vae.named_parameters():
        (rest if parameter.dim() < 4 or "norm" in name else matrices).append(parameter)
    return matrices, rest


@torch.no_grad()
def held_out(parallel: VaeParallel, device: torch.device, dtype: torch.dtype, sheet: Path, blocks: int = 4) -> float:
    """Return the mean PSNR (dB) over 8 unseen clips and save render above reconstruction to `sheet`."""
    from PIL import Image

    kind = ClipKind(blocks, 3 * blocks, 0.3)
    pictures, *_ = render_clips(kind, 8, torch.Generator().manual_seed(987654), device)
    scores, rows = [], []
    for clip in pictures:
        target = to_unit(clip[None], dtype)
        mean = parallel.encode(target).chunk(2, dim=1)[0]
        made = parallel.decode(mean).float().clamp(-1, 1)
        error = ((made - target.float()) / 2).square().mean(dim=(0, 1, 3, 4))
        scores.append((-10 * error.log10()).mean().item())
        pair = torch.cat([target[0, :, [0, 7, -1]].float(), made[0, :, [0, 7, -1]]], dim=-2)
        rows.append(pair.permute(2, 1, 3, 0).reshape(pair.shape[2], -1, 3))
    grid = ((torch.cat(rows) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
    Image.fromarray(grid).save(sheet, quality=88)
    say("vae: held-out PSNR by clip " + " ".join(f"{s:.1f}" for s in scores))
    return sum(scores) / len(scores)


@torch.no_grad()
def latent_statistics(parallel: VaeParallel, pool: Pool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation `(z,)` of each latent channel over clips of the pool.

    The posterior's own variance counts too: a channel that the KL emptied stays small instead of being blown up.
    """
    means, variances = [], []
    for _ in range(16):
        pictures = to_unit(pool.draw(8)[0], dtype)
        mean, log_var = parallel.encode(pictures).float().transpose(0, 1).flatten(1).chunk(2)
        means.append(mean)
        variances.append(log_var.exp())
    values = torch.cat(means, dim=1)
    return values.mean(1), (values.var(1) + torch.cat(variances, dim=1).mean(1)).sqrt()


def finish(
    vae: Any, average: Average, parallel: VaeParallel, pool: Pool, out: Path, device: torch.device, dtype: torch.dtype
) -> None:
    """Score the averaged weights and write them with their latent statistics."""
    kept = {name: p.detach().clone() for name, p in vae.named_parameters()}
    vae.load_state_dict(average.tensors, strict=True)
    mean, std = latent_statistics(parallel, pool, dtype)
    write_shards(out, "vae", average.tensors)
    score = held_out(VaeParallel(vae), device, dtype, out / "vae.jpg")
    config = {**CONFIG, "latents_mean": mean.tolist(), "latents_std": std.tolist()}
    (out / "vae.json").write_text(json.dumps({"config": config, "psnr_db": score}))
    say(f"vae: held-out PSNR {score:.2f} dB; latent std {std.min():.2f} to {std.max():.2f}")
    vae.load_state_dict(kept)


def train(args: argparse.Namespace) -> None:
    """Train for a number of seconds, resuming what `args.run` holds; arguments as `main` has them."""
    run, out, pool_clips = args.run, args.out, args.pool
    device = pick_device()
    cuda = device.type == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.cache_size_limit = 64  # one entry a shape
    torch.manual_seed(0)
    vae = build_vae(args.start).to(device)
    state = load_state(run / STATE, device)
    optimisers = Optimisers(*split_parameters(vae), muon_lr=args.rate * MUON_LR, adam_lr=args.rate * ADAM_LR)
    average = Average(dict(vae.named_parameters()), 0.998)
    step, spent = 0, 0.0
    if state is not None:
        vae.load_state_dict(state["vae"])
        optimisers.load_state_dict(state["optimisers"])
        step, spent = state["step"], state["spent"]
        average.tensors, average.steps = state["average"], step
    begin = time.monotonic()
    frames = (args.pictures + 3) // 4
    kind = ClipKind(max(1, frames // 3), frames, 0.18)
    pool = picture_pool(
        kind,
        chunk=min(32, pool_clips),
        capacity=pool_clips,
        start=min(256, pool_clips),
        share=0.15,
        seed=step + 1,
        device=device,
    )
    say(f"vae: {pool.made} clips of {kind.pictures} pictures in {time.monotonic() - begin:.1f} s")
    compare = torch.compile(picture_loss, dynamic=False) if cuda else picture_loss
    parallel = VaeParallel(vae, compiled=cuda)

    def save() -> None:
        saved = {"vae": vae.state_dict(), "optimisers": optimisers.state_dict(), "average": average.tensors}
        save_state(run / STATE, {**saved, "step": step, "spent": clock.spent})

    clock = Clock(args.seconds, args.stage_seconds, spent)
    start_step, next_save = step, 90.0
    while not clock.over:
        batch = estranged(to_unit(pool.draw(args.clips)[0], dtype)).contiguous(memory_format=torch.channels_last_3d)
        loss, fidelity, kl = training_loss(parallel, batch, compare)
        loss.backward()
        norm = optimisers.step(warm_flat_linear(step, clock.progress, warm_steps=150, flat_until=0.35, end=0.02))
        average.update(dict(vae.named_parameters()))
        pool.refresh()
        step += 1
        if step % 100 == 0 or not cuda:
            rate = (step - start_step) / clock.elapsed
            say(f"vae: step {step} {clock.elapsed:.0f} s, {rate:.1f} steps/s, picture loss {fidelity.item():.4f}, "
                f"kl {kl.item():.2f}, grad {norm.item():.2f}, clips {pool.made}")  # fmt: skip
        if clock.elapsed > next_save:
            save()
            next_save += 90.0
    save()
    finish(vae, average, parallel, pool, out, device, dtype)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the resumable state")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and pictures")
    parser.add_argument("--start", type=Path, help="diffusers folder whose VAE to go on from")
    parser.add_argument(
        "--rate", type=float, default=1.0, help="factor of the learning rates; .4 to go on from --start"
    )
    parser.add_argument("--seconds", type=float, default=330.0, help="limit of this piece")
    parser.add_argument("--stage-seconds", type=float, help="planned length of all pieces; default: this one's end")
    parser.add_argument("--clips", type=int, default=4, help="clips a step")
    parser.add_argument("--pictures", type=int, default=49, help="pictures a clip, 1 + 4 n")
    parser.add_argument("--pool", type=int, default=1536, help="clips kept to draw from")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    train(args)


if __name__ == "__main__":
    main()
