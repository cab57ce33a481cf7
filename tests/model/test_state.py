"""The state: N blocks that carry it equal one masked pass over all frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference import make_nets, make_text, masked_pass
from torch import Tensor

from model.state import NULL_SLOT, StateLayout, StatePool, StateView
from model.stream import new_pool
from model.stream_config import StreamConfig

H, W = 8, 12


def causal(i: int, j: int) -> float:
    return float(j <= i)


def window_of(size: int, sink: int = 0) -> Callable[[int, int], float]:
    return lambda i, j: float(j <= i and (i - j <= size or j < sink))


def decaying(rate: float, sink: int = 0, window: int = 10**9) -> Callable[[int, int], float]:
    def weight(i: int, j: int) -> float:
        if j == i or (j < i and j < sink):
            return 1.0
        return rate ** (i - j - 1) if j < i and i - j <= window else 0.0

    return weight


def carried(net: Any, latents: Tensor, lengths: list[int], times: list[float], **config: Any) -> Tensor:
    """Block after block with a state; every pass commits."""
    pool = new_pool(net, H, W, StreamConfig(**config))
    slot = pool.acquire()
    text, mask = make_text(1)
    flows, start = [], 0
    for index, (block, time) in enumerate(zip(latents.split(lengths, dim=2), times, strict=True)):
        view = StateView(pool, [slot], [start], [index], [True])
        step = torch.tensor([time])
        flows.append(net(block, text, step, encoder_attention_mask=mask, state=view).sample)
        start += block.shape[2]
    return torch.cat(flows, dim=2)


CASES: list[tuple[str, list[int], dict[str, Any], Callable[[int, int], float]]] = [
    ("one block", [4], {}, causal),
    ("two blocks", [3, 3], {}, causal),
    ("twelve mixed blocks", [4, 1, 3, 2, 1, 5, 2, 3, 1, 2, 4, 2], {}, causal),
    ("window 1", [2, 1, 3, 2], {"window_blocks": 1}, window_of(1)),
    ("window 3, twelve blocks", [1, 2, 1, 3, 1, 2, 1, 2, 1, 1, 2, 1], {"window_blocks": 3}, window_of(3)),
    ("window 2, sink 1", [2, 1, 2, 3, 1, 2, 1], {"window_blocks": 2, "sink_blocks": 1}, window_of(2, 1)),
    ("window 2, sink 3", [2, 1, 2, 1, 1, 2, 1], {"window_blocks": 2, "sink_blocks": 3}, window_of(2, 3)),
    ("decay", [2, 1, 2, 2, 1], {"decay": 0.7}, decaying(0.7)),
    ("decay, sink 2", [1, 1, 2, 1, 2, 1], {"decay": 0.6, "sink_blocks": 2}, decaying(0.6, 2)),
    (
        "decay, window 3, sink 1",
        [1, 2, 1, 1, 2, 1],
        {"decay": 0.8, "window_blocks": 3, "sink_blocks": 1},
        decaying(0.8, 1, 3),
    ),
]


@pytest.mark.parametrize(("lengths", "config", "weight"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_blocks_with_state_equal_one_masked_pass(
    lengths: list[int], config: dict[str, Any], weight: Callable[[int, int], float]
) -> None:
    theirs, ours = make_nets(std=0.2)
    generator = torch.Generator().manual_seed(len(lengths))
    latents = torch.randn(1, 4, sum(lengths), H, W, generator=generator)
    times = [float(t) for t in torch.randint(0, 1000, (len(lengths),), generator=generator)]
    expected = masked_pass(theirs, latents, lengths, times, make_text(1), weight)
    flows = carried(ours, latents, lengths, times, **config)
    assert float((flows - expected).abs().max() / expected.std()) < 1e-4


def test_the_masks_of_the_proof_differ() -> None:
    """Else the proofs above would prove nothing: each rule moves the flow by far more than their tolerance."""
    theirs, _ = make_nets(std=0.2)
    lengths = [1, 2, 1, 1, 2, 1]
    latents = torch.randn(1, 4, sum(lengths), H, W, generator=torch.Generator().manual_seed(3))
    weights = [causal, window_of(2), window_of(2, 1), window_of(3), decaying(0.7), decaying(0.7, 1)]
    flows = [masked_pass(theirs, latents, lengths, [9.0] * 6, make_text(1), w) for w in weights]
    for i, a in enumerate(flows):
        for b in flows[:i]:
            assert float((a - b).abs().max() / a.std()) > 2e-3


def test_a_pass_that_does_not_commit_changes_nothing() -> None:
    _, net = make_nets()
    pool = new_pool(net, H, W)
    slot = pool.acquire()
    text, mask = make_text(1)
    x = torch.randn(1, 4, 2, H, W, generator=torch.Generator().manual_seed(1))
    for commit in (True, False):
        before = pool.read(slot)
        view = StateView(pool, [slot], [0], [0], [commit])
        net(x, text, torch.tensor([0.0]), encoder_attention_mask=mask, state=view)
        same = all(torch.equal(before[k], v) for k, v in pool.read(slot).items())
        assert same is not commit


def test_a_pass_that_fails_commits_nothing() -> None:
    _, net = make_nets()
    pool = new_pool(net, H, W)
    slot = pool.acquire()

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    net.norm_out.register_forward_pre_hook(fail)
    text, mask = make_text(1)
    view = StateView(pool, [slot], [0], [0], [True])
    with pytest.raises(RuntimeError, match="memory"):
        net(torch.ones(1, 4, 2, H, W), text, torch.tensor([0.0]), encoder_attention_mask=mask, state=view)
    assert not any(tensor.any() for tensor in pool.read(slot).values())


LAYOUT = StateLayout(layers=2, heads=2, head_dim=4, channels=8, tokens=6, window=3, sink=1)


def test_a_pool_grows_by_slabs_and_keeps_its_slots() -> None:
    pool = StatePool(LAYOUT, torch.float32, slab=2)
    empty = pool.nbytes
    assert empty == pool.slot_nbytes
    first = pool.acquire()
    own = torch.randn(2, 2, 5, 4)
    pool.commit(first, 0, own, torch.randn(2, 6, 8))
    held = pool.read(first)
    slots = {first, *(pool.acquire() for _ in range(4))}
    assert NULL_SLOT not in slots
    assert len(slots) == 5
    assert (pool.capacity, pool.in_use) == (6, 5)
    assert pool.nbytes == 7 * pool.slot_nbytes
    assert all(torch.equal(held[k], v) for k, v in pool.read(first).items())
    pool.release(first)
    assert (pool.capacity, pool.in_use, pool.acquire()) == (6, 4, first)


def test_a_slot_given_back_twice_is_an_error() -> None:
    pool = StatePool(LAYOUT, torch.float32)
    slot = pool.acquire()
    pool.release(slot)
    for wrong in (slot, NULL_SLOT, 77):
        with pytest.raises(ValueError, match="not in use"):
            pool.release(wrong)


def test_sums_keep_their_digits_over_ten_thousand_blocks() -> None:
    layout = StateLayout(layers=1, heads=1, head_dim=4, channels=4, tokens=1, window=2)
    folded = StatePool(StateLayout(layers=1, heads=1, head_dim=4, channels=4, tokens=1), torch.float32, slab=1)
    pool = StatePool(layout, torch.float32, slab=1)
    slot, other = pool.acquire(), folded.acquire()
    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(1, 1, 5, 4, dtype=torch.float64)
    last: list[Tensor] = []
    for block in range(10_000):
        own = torch.rand(1, 1, 5, 4, generator=generator)
        truth += own
        last = [*last[-1:], own]
        pool.commit(slot, block, own, torch.zeros(1, 1, 4))
        folded.commit(other, block, own, torch.zeros(1, 1, 4))
    assert torch.equal(pool.read(slot)["sums"], last[1] + last[0])
    assert float(((folded.read(other)["sums"] - truth) / truth).abs().max()) < 1e-4
