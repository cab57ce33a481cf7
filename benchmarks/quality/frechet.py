"""Fréchet distance between generated and rendered pictures: to compare our own versions with each other."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.quality.generate import Context
from benchmarks.quality.report import Table


def distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of the normal distributions with the statistics of features (n, d) and (m, d)."""
    a, b = a.double(), b.double()
    first, second = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + first.trace() + second.trace() - 2 * cross)


def measure(context: Context) -> list[Table]:
    """Two pictures of each prompt against as many renders of the same attributes, and renders against renders."""
    asked = [w for opening in context.openings for w in opening.wishes]
    views = torch.cat([opening.views for opening in context.openings])
    ours = context.judge.features(views[:, :, -1].flatten(0, 1))
    first, second = (context.judge.features(context.rendered(asked, 2, i).flatten(0, 1)) for i in (1, 2))
    table = Table(f"Fréchet distance of features to renders of the same attributes, {len(ours)} pictures",
                  ("distance",), digits=2, name="frechet")  # fmt: skip
    table.add("streams", distance(ours, first))
    table.add("other renders (floor)", distance(second, first))
    return [table]
