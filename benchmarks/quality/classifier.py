"""A small net that names a picture's attributes, trained on rendered clips only.

A *view* is a pair of pictures 6 apart (0.375 s). Scene, hour, weather, subject and colour are read from each picture
alone, the camera's way from how well the second picture, shifted, matches the first in six bands of rows.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.training.optim import Average, Optimisers, warm_flat_linear
from model.training.world import KEYS, NAMES, Attributes, Script, make_script, render

HEIGHT, WIDTH = 72, 128
GAP = 6
RATE_HZ = 16.0
FEATURES, POOLED = 64, 256
CLIPS, HELD_OUT_CLIPS, STEPS, BATCH = 3000, 400, 900, 64
UNKNOWN = -100
BANDS, REACH = 6, 7
STILL_KEYS = tuple(key for key in KEYS if key != "camera")
BLUR = (1.3, 2.6)


def shrink(pictures: Tensor) -> Tensor:
    """Pictures (..., 3, h, w) uint8 of any size -> (..., 3, 72, 128) uint8, by area.

    Other shapes than 16:9 keep theirs: the world's scale follows from the height.
    """
    flat = pictures.flatten(0, -4).float()
    width = 2 * round(HEIGHT * pictures.shape[-1] / pictures.shape[-2] / 2)
    small = F.interpolate(flat, (HEIGHT, width), mode="area")
    return small.round().to(torch.uint8).view(*pictures.shape[:-2], HEIGHT, width)


def way(views: Tensor) -> Tensor:
    """How well picture 1 of each view (n, 2, 3, 72, 128), float, matches picture 0 when shifted by -7..7 pixels.

    Returns (n, 6 bands * 15 shifts): the mean difference, 0 at the best shift and about 1 at bad ones.
    """
    luma = views.mean(2)
    inner = luma[:, 0, :, REACH:-REACH]
    costs = []
    for shift in range(2 * REACH + 1):
        moved = luma[:, 1, :, shift : shift + inner.shape[-1]]
        costs.append((moved - inner).abs().unflatten(1, (BANDS, -1)).mean((2, 3)))
    cost = torch.stack(costs, -1)
    low = cost.amin(-1, keepdim=True)
    return ((cost - low) / (cost.mean(-1, keepdim=True) - low + 1e-3)).flatten(1)


def _stage(into: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(into, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
        nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
    )  # fmt: skip


class Classifier(nn.Module):
    """A small convolutional net with a head for each attribute of a picture, and one for the camera's way."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(12, 40, 3, 1, 1, bias=False), nn.BatchNorm2d(40), nn.ReLU()
        )
        self.body = nn.Sequential(stem, _stage(40, 56), _stage(56, 96), _stage(96, POOLED // 2))
        self.neck = nn.Sequential(nn.Linear(POOLED, FEATURES), nn.ReLU())
        self.heads = nn.ModuleDict({key: nn.Linear(POOLED + FEATURES, len(NAMES[key])) for key in STILL_KEYS})
        width = BANDS * (2 * REACH + 1)
        self.camera = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, len(NAMES["camera"])))

    def pooled(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and greatest activation of each channel (n, 256), and features (n, 64), of pictures in -1..1."""
        maps = self.body(pictures)
        pooled = torch.cat((maps.mean((2, 3)), maps.amax((2, 3))), 1)
        return pooled, self.neck(pooled)

    def forward(self, views: Tensor, pictures: Tensor) -> dict[str, Tensor]:
        """Logits of each attribute: camera from views (n, 2, 3, 72, 128), the rest from pictures (m, 3, 72, 128)."""
        both = torch.cat(self.pooled(pictures), 1)
        logits = {key: head(both) for key, head in self.heads.items()}
        return logits | {"camera": self.camera(way(views))}


def unit(pictures: Tensor) -> Tensor:
    """uint8 pictures to floats in -1..1."""
    return pictures.float() / 127.5 - 1


def label(attributes: Attributes, key: str) -> int:
    """Index of the value; UNKNOWN for the colour of nothing."""
    if key == "colour" and attributes["subject"] == "none":
        return UNKNOWN
    return NAMES[key].index(attributes[key])


def random_attributes(rng: random.Random) -> Attributes:
    """Every attribute at random, all values equally often but `none`, which is half as frequent."""
    found = {key: rng.choice(NAMES[key]) for key in KEYS}
    if found["subject"] == "none" and rng.random() < 0.5:
        found["subject"] = rng.choice(NAMES["subject"][1:])
    return found


def render_pairs(
    scripts: Sequence[Script],
    first_s: float = 0.0,
    height: int = 144,
    width: int = 256,
    device: torch.device | str = "cpu",
) -> Tensor:
    """One view of each script without changes, (clips, 2, 3, height, width), beginning about `first_s` seconds in."""
    step = round(first_s * RATE_HZ / GAP)
    return render(scripts, 2, height=height, width=width, rate_hz=RATE_HZ / GAP, device=device, first_picture=step)


def _render_batch(seed: int, count: int, width: int) -> tuple[Tensor, Tensor]:
    """Views (count, 2, 3, 72, width / 2) uint8 and labels (count, attributes), in a process of its own."""
    torch.set_num_threads(1)
    rng = random.Random(seed)
    starts = [random_attributes(rng) for _ in range(count)]
    scripts = [make_script(start, [], 1, 12, rng) for start in starts]
    views = shrink(render_pairs(scripts, rng.uniform(0.0, 20.0), 2 * HEIGHT, width))
    return views, torch.tensor([[label(start, key) for key in KEYS] for start in starts])


def _renders(clips: int, seed: int, workers: int, width: int) -> tuple[Tensor, Tensor]:
    chunk = 40
    seeds = [seed * 1_000_003 + i for i in range(-(-clips // chunk))]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(_render_batch, seeds, [chunk] * len(seeds), [width] * len(seeds)))
    return torch.cat([views for views, _ in parts])[:clips], torch.cat([labels for _, labels in parts])[:clips]


def _augment(views: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror, move, blur and tint a batch: what is judged later is softer than renders."""
    views = unit(views)
    if random.random() < 0.5:
        views, labels = views.flip(-1), labels.clone()
        camera = labels[:, KEYS.index("camera")]
        camera[:] = torch.tensor([0, 2, 1], device=camera.device)[camera]
    flat = views.flatten(0, 1)
    width = flat.shape[-1]
    if random.random() < 0.7:
        factor = random.uniform(*BLUR)
        small = F.interpolate(flat, scale_factor=1 / factor, mode="area")
        flat = F.interpolate(small, (HEIGHT, width), mode="bilinear")
    aside = width // 16
    x, y = random.randrange(2 * aside + 1), random.randrange(7)
    flat = F.pad(flat, (aside, aside, 3, 3), mode="replicate")[:, :, y : y + HEIGHT, x : x + width]
    views = flat.view_as(views)
    gain, tint = torch.randn(2, len(views), 1, 3, 1, 1, device=views.device)
    return views * (1 + 0.06 * gain) + 0.03 * tint + 0.02 * torch.randn_like(views), labels


def train(
    clips: int,
    steps: int,
    seed: int = 0,
    workers: int = 2,
    device: torch.device | str = "cpu",
    width: int = 2 * WIDTH,
) -> tuple[Classifier, Tensor, Tensor]:
    """Render clips of 144 x width on the host and train on them; gives views and labels of held-out clips too."""
    begin = time.monotonic()
    held_views, held_labels = _renders(min(HELD_OUT_CLIPS, clips), seed + 1, workers, width)
    views, labels = _renders(clips, seed + 2, workers, width)
    took = time.monotonic() - begin
    print(f"classifier: {len(views) + len(held_views)} clips rendered in {took:.0f} s", flush=True)
    torch.manual_seed(seed)
    random.seed(seed)
    net = Classifier().to(device)
    views, labels = views.to(device), labels.to(device)
    matrices = [p for name, p in net.named_parameters() if p.ndim > 1 and name.startswith(("body", "neck"))]
    rest = [p for name, p in net.named_parameters() if p.ndim == 1 or not name.startswith(("body", "neck"))]
    optimisers = Optimisers(matrices, rest, muon_lr=4e-3, adam_lr=2e-3)
    average = Average(dict(net.named_parameters()), 0.99)
    for step in range(steps):
        pick = torch.randint(len(views), (BATCH,)).to(device)
        some, truth = _augment(views[pick], labels[pick])
        pictures = some[:, step % 2].contiguous(memory_format=torch.channels_last)
        found = net(some, pictures)
        loss = torch.stack(
            [
                F.cross_entropy(found[key], truth[:, i], ignore_index=UNKNOWN, label_smoothing=0.03)
                for i, key in enumerate(KEYS)
            ]
        ).sum()
        loss.backward()
        optimisers.step(warm_flat_linear(step, step / steps, warm_steps=40, flat_until=0.4, end=0.02))
        average.update(dict(net.named_parameters()))
        if step % 100 == 99:
            now, shown = time.monotonic() - begin, float(loss.detach())
            print(f"classifier: step {step + 1}, {now:.0f} s, loss {shown:.3f}", flush=True)
    net.load_state_dict(average.tensors, strict=False)
    return net.eval().requires_grad_(False), held_views, held_labels
