"""Two processes train as one with the double batch would, and stop together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.training.optim import Optimisers
from model.training.ranks import Ranks, spawn

ROWS, STEPS = 6, 4


def _net() -> nn.ModuleDict:
    return nn.ModuleDict({"matrix": nn.Linear(5, 3, bias=False), "idle": nn.Linear(2, 2), "scale": nn.Linear(3, 1)})


def _train(ranks: Ranks, net: nn.ModuleDict, data: Tensor, limit: int) -> int:
    """Train until rank 0 has had enough; return the steps."""
    ranks.share(net.parameters())
    rest = [*net["idle"].parameters(), *net["scale"].parameters()]
    optimisers = Optimisers([net["matrix"].weight], rest, muon_lr=0.1, adam_lr=0.1)
    done = 0
    while ranks.agree([done < limit])[0]:
        (net["scale"](net["matrix"](data)) - 1).square().mean().backward()
        ranks.mean_gradients(optimisers.parameters)
        optimisers.step(1.0)
        done += 1
    return done


def _one_of_two(folder: Path) -> None:
    torch.set_num_threads(1)
    ranks = Ranks()
    torch.manual_seed(ranks.rank)
    net = _net()
    data = torch.load(folder / "data.pt")[ranks.rank :: 2]
    steps = _train(ranks, net, data, STEPS if ranks.first else 99)
    ranks.close()
    torch.save((net.state_dict(), steps), folder / f"{ranks.rank}.pt")


def test_two_ranks_equal_one_with_the_double_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = torch.randn(2 * ROWS, 5, generator=torch.Generator().manual_seed(3))
    torch.save(data, tmp_path / "data.pt")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    spawn(2, _one_of_two, tmp_path)
    (first, steps), (second, others) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert (steps, others) == (STEPS, STEPS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        alone = _net()
    before = alone["matrix"].weight.detach().clone()
    assert _train(Ranks(), alone, data, STEPS) == STEPS
    assert not torch.equal(before, alone["matrix"].weight)
    for name, tensor in alone.state_dict().items():
        assert torch.equal(first[name], second[name])
        # A rank's `idle` has zero gradients and Adam's momentum none, so it stays as rank 0 made it.
        assert torch.allclose(first[name], tensor, atol=1e-5), name
