"""What does a clip show? The trained classifier with its accuracy, kept on disk.

A clip is judged by some of its views: logits are averaged over the pictures of a view and over the views.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.quality.classifier import (
    CLIPS,
    GAP,
    HEIGHT,
    STEPS,
    UNKNOWN,
    WIDTH,
    Classifier,
    label,
    random_attributes,
    render_pairs,
    shrink,
    train,
    unit,
)  # fmt: skip
from model.training import world
from model.training.world import KEYS, NAMES, Attributes, make_script

FOLDER = Path("runs/quality")
# What has no say in how a picture of given attributes looks; of attributes the names alone have.
SPEAKERS = {"__init__", "__main__", "attributes", "captions", "heldout", "lexicon", "script", "wording"}
BATCH = 256


@dataclass(frozen=True)
class Judge:
    """A trained classifier with its accuracy on held-out renders: `accuracy[key]`, over clips judged by two views.

    `stale` names what has changed in the world since it was trained.
    """

    net: Classifier
    accuracy: dict[str, float]
    device: torch.device
    stale: list[str] = field(default_factory=list)

    @torch.no_grad()
    def logits(self, views: Tensor) -> dict[str, Tensor]:
        """Logits (clips, values) of each attribute. views: (clips, n, 2, 3, h, w) uint8, of any picture size."""
        out: dict[str, list[Tensor]] = {key: [] for key in KEYS}
        for some in views.split(max(1, BATCH // views.shape[1])):
            pairs = unit(shrink(some.to(self.device)).flatten(0, 1))
            found = self.net(pairs, pairs.flatten(0, 1))
            for key in KEYS:
                per_clip = found[key].log_softmax(-1).unflatten(0, (some.shape[0], -1))
                out[key].append(per_clip.mean(1))
        return {key: torch.cat(parts) for key, parts in out.items()}

    def names(self, views: Tensor) -> list[Attributes]:
        """What each clip shows most likely; arguments as `logits`."""
        best = {key: logits.argmax(-1).tolist() for key, logits in self.logits(views).items()}
        return [{key: NAMES[key][best[key][i]] for key in KEYS} for i in range(len(views))]

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """Frozen features (n, 64), on the host, of pictures (n, 3, h, w) uint8."""
        parts = [self.net.pooled(unit(shrink(some.to(self.device))))[1] for some in pictures.split(BATCH)]
        return torch.cat(parts).cpu()

    def measure(self, views: Tensor, labels: Tensor) -> None:
        """Set the accuracy from views (clips, 2, 3, h, w) and their labels (clips, attributes)."""
        logits = self.logits(views[:, None])
        for i, key in enumerate(KEYS):
            known = labels[:, i] != UNKNOWN
            right = (logits[key].argmax(-1).cpu() == labels[:, i])[known]
            self.accuracy[key] = float(right.float().mean())

    def measure_anew(self, clips: int, height: int, width: int, seed: int = 31) -> None:
        """Set the accuracy from fresh renders of this size, by the world as it is now."""
        rng = random.Random(seed)
        starts = [random_attributes(rng) for _ in range(clips)]
        scripts = [make_script(start, [], 1, 12, rng) for start in starts]
        views = render_pairs(scripts, rng.uniform(0.0, 20.0), height, width, self.device)
        self.measure(views, torch.tensor([[label(start, key) for key in KEYS] for start in starts]))


def views_of(pictures: Tensor, ends: Sequence[int]) -> Tensor:
    """Views of clips (n, t, 3, h, w) that end at the given pictures: (n, len(ends), 2, 3, h, w)."""
    return torch.stack([pictures[:, [end - GAP, end]] for end in ends], 1)


def painters() -> dict[str, str]:
    """SHA-256 of each source that decides how the world looks, and of the attributes' names."""
    sources = {path.stem: path.read_bytes() for path in Path(world.__file__).parent.glob("*.py")}
    sources = {name: text for name, text in sources.items() if name not in SPEAKERS} | {"NAMES": repr(NAMES).encode()}
    return {name: hashlib.sha256(text).hexdigest() for name, text in sorted(sources.items())}


def file_name(width: int) -> str:
    """Of the classifier of pictures of 144 x width, or of that shape."""
    return "classifier.pt" if width == 2 * WIDTH else f"classifier-{width}x{2 * HEIGHT}.pt"


def load_judge(
    folder: Path = FOLDER,
    device: torch.device | str = "cpu",
    size: tuple[int, int] = (144, 256),
    *,
    anew: bool = False,
    clips: int = CLIPS,
    steps: int = STEPS,
) -> Judge:
    """The judge kept in the folder; where there is none it is trained (some minutes on two cores) and kept.

    One that was trained for another state of the world's painters is used all the same, and says so in `stale`.

    Args:
        folder: of its file, see `file_name`.
        device: where it judges.
        size: height and width of the pictures; each shape has a judge of its own.
        anew: train even so.
        clips, steps: of a training.
    """
    device = torch.device(device)
    width = round(2 * HEIGHT * size[1] / size[0])
    path = folder / file_name(width)
    if path.is_file() and not anew:
        kept = torch.load(path, weights_only=True, map_location=device)
        net = Classifier().to(device)
        net.load_state_dict(kept["net"])
        stale = [name for name, digest in painters().items() if kept["painters"].get(name) != digest]
        return Judge(net.eval().requires_grad_(False), kept["accuracy"], device, stale)
    print(f"training the classifier of {path}", flush=True)
    with torch.enable_grad():
        net, views, labels = train(clips, steps, workers=os.cpu_count() or 1, device=device, width=width)
    judge = Judge(net, {}, device)
    judge.measure(views, labels)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"net": net.state_dict(), "accuracy": judge.accuracy, "painters": painters()}, path)
    return judge
