"""What does a clip show? The trained classifier with its accuracy, kept on disk.

A clip is judged by some of its views: logits are averaged over the pictures of a view and over the views.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.quality import classifier
from benchmarks.quality.classifier import CLIPS, GAP, STEPS, UNKNOWN, Classifier, shrink, train, unit
from model.training import world
from model.training.world import KEYS, NAMES, Attributes

FOLDER = Path("runs/quality")


@dataclass(frozen=True)
class Judge:
    """A trained classifier with its accuracy on held-out renders: `accuracy[key]`, over clips judged by two views."""

    net: Classifier
    accuracy: dict[str, float]

    @torch.no_grad()
    def logits(self, views: Tensor) -> dict[str, Tensor]:
        """Logits (clips, values) of each attribute. views: (clips, n, 2, 3, h, w) uint8, of any picture size."""
        out: dict[str, list[Tensor]] = {key: [] for key in KEYS}
        for some in shrink(views).split(64):
            pairs = unit(some.flatten(0, 1))
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
        """Frozen features (n, 64) of pictures (n, 3, h, w) uint8."""
        parts = [self.net.pooled(unit(some))[1] for some in shrink(pictures).split(64)]
        return torch.cat(parts)


def views_of(pictures: Tensor, ends: Sequence[int]) -> Tensor:
    """Views of clips (n, t, 3, h, w) that end at the given pictures: (n, len(ends), 2, 3, h, w)."""
    return torch.stack([pictures[:, [end - GAP, end]] for end in ends], 1)


def measured(net: Classifier, views: Tensor, labels: Tensor) -> Judge:
    judge = Judge(net, {})
    logits = judge.logits(views[:, None])
    for i, key in enumerate(KEYS):
        known = labels[:, i] != UNKNOWN
        right = (logits[key].argmax(-1) == labels[:, i])[known]
        judge.accuracy[key] = float(right.float().mean())
    return judge


def cache_path(folder: Path = FOLDER) -> Path:
    """Where the weights lie: named by a hash of the world's sources and of the classifier."""
    digest = hashlib.sha256()
    for source in [*sorted(Path(world.__file__).parent.glob("*.py")), Path(classifier.__file__)]:
        digest.update(source.read_bytes())
    return folder / f"classifier-{digest.hexdigest()[:12]}.pt"


def load_judge(folder: Path = FOLDER, clips: int = CLIPS, steps: int = STEPS) -> Judge:
    """The judge of this world; trained (some minutes on two cores) and kept when there is none yet."""
    path = cache_path(folder)
    if path.is_file():
        kept = torch.load(path, weights_only=True)
        net = Classifier()
        net.load_state_dict(kept["net"])
        return Judge(net.eval().requires_grad_(False), kept["accuracy"])
    judge = measured(*train(clips, steps))
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"net": judge.net.state_dict(), "accuracy": judge.accuracy}, path)
    return judge
