"""LatentStream against the authors' loop, and what a stream promises."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from reference import AuthorsLoop, Own, block_pass, make_nets, make_noise, make_text
from torch import Tensor

from model.sampler import sigma_of
from model.snapshot import pack, unpack
from model.state import StatePool
from model.stream import LatentStream, advance, new_pool
from model.stream_config import StreamConfig

H, W = 8, 8
LENGTHS = [3, 2, 2, 2, 2, 2]


def make_stream(net: Any, text: tuple[Tensor, Tensor], **options: Any) -> LatentStream:
    given = {"noise": make_noise(5, 4, H, W), "block": 2, "first_block": 3, **options}
    return LatentStream(net, text=text[0], text_mask=text[1], height=H, width=W, **given)


def close(ours: list[Tensor], theirs: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("window", [None, 2])
def test_six_blocks_equal_the_authors_loop(window: int | None) -> None:
    theirs, ours = make_nets(authors=True)
    text = make_text(1)
    expected = AuthorsLoop(theirs, make_noise(5, 4, H, W), eps=1e-8, window=window).blocks(LENGTHS, [text] * 6)
    stream = make_stream(ours, text, window=window)
    blocks = [next(stream) for _ in LENGTHS]
    assert close(blocks, expected) < 2e-5


def prompts(*seeds: int) -> list[tuple[Tensor, Tensor]]:
    made = {seed: make_text(seed) for seed in seeds}
    return [made[seed] for seed in seeds]


def run_with_steers(stream: LatentStream, texts: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """One block a text; steers where the text is another one than before."""
    blocks = []
    for index, text in enumerate(texts):
        if index and text is not texts[index - 1]:
            stream.steer(*text)
        blocks.append(next(stream))
    return blocks


def test_a_prompt_change_is_longsanas_recache() -> None:
    theirs, ours = make_nets(authors=True)
    texts = prompts(1, 1, 1, 2, 2, 3)
    loop = AuthorsLoop(theirs, make_noise(5, 4, H, W), eps=1e-8)
    expected = loop.blocks(LENGTHS, texts)
    assert close(run_with_steers(make_stream(ours, texts[0]), texts), expected) < 2e-5
    loop.recache = False
    without = loop.blocks(LENGTHS, texts)
    assert close(run_with_steers(make_stream(ours, texts[0], recache=False), texts), without) < 2e-5
    assert close(expected, without) > 1e-3


@pytest.mark.parametrize("window", [None, 2])
def test_steer_at_block_1_recaches_from_empty(window: int | None) -> None:
    """The authors' code recaches block 0 on top of itself; `reference` does, `precise` differs by that alone."""
    theirs, ours = make_nets(authors=True)
    texts = prompts(1, 2, 2, 3, 3)
    loop = AuthorsLoop(theirs, make_noise(5, 4, H, W), eps=1e-8, window=window)
    precise, reference = (
        run_with_steers(make_stream(ours, texts[0], window=window, precision=precision), texts)
        for precision in ("precise", "reference")
    )
    assert close(precise, loop.blocks(LENGTHS[:5], texts)) < 2e-5
    loop.quirk = True
    expected = loop.blocks(LENGTHS[:5], texts)
    assert close(reference, expected) < 2e-5
    assert close(precise, expected) > 1e-4


def test_steer_at_block_0_replaces_the_first_prompt() -> None:
    _, net = make_nets()
    first, other = make_text(1), make_text(2)
    steered = make_stream(net, first)
    steered.steer(*other)
    plain = make_stream(net, other)
    assert all(torch.equal(next(steered), next(plain)) for _ in range(3))


def test_the_later_of_two_steers_before_a_boundary_counts() -> None:
    _, net = make_nets()
    twice, once = make_stream(net, make_text(1)), make_stream(net, make_text(1))
    next(twice), next(once)
    twice.steer(*make_text(2))
    twice.steer(*make_text(3))
    once.steer(*make_text(3))
    assert all(torch.equal(next(twice), next(once)) for _ in range(2))


def test_a_steer_during_a_block_waits_for_the_next() -> None:
    _, net = make_nets()
    early, late = make_stream(net, make_text(1)), make_stream(net, make_text(1))
    next(early), next(late)
    advance([early])
    early.steer(*make_text(2))
    assert torch.equal(next(early), next(late))
    late.steer(*make_text(2))
    assert torch.equal(next(early), next(late))


def test_positions_shifted_by_a_million_change_nothing() -> None:
    _, net = make_nets()
    text, shift = make_text(1), 1_000_000
    here = make_stream(net, text)
    there = make_stream(net, text, noise=make_noise(5, 4, H, W, origin=shift), first_frame=shift)
    for _ in range(5):
        a, b = next(here), next(there)
        assert float((a - b).abs().max()) < 2e-5
    assert there.next_frame == here.next_frame + shift


def test_mixed_block_lengths() -> None:
    theirs, net = make_nets(authors=True)
    text, lengths = make_text(1), [1, 4, 2, 1, 3]
    stream = make_stream(net, text, first_block=1)
    blocks = []
    for length in lengths:
        stream.block = length
        blocks.append(next(stream))
    assert [b.shape[2] for b in blocks] == lengths
    expected = AuthorsLoop(theirs, make_noise(5, 4, H, W), eps=1e-8).blocks(lengths, [text] * 5)
    assert close(blocks, expected) < 2e-5


def test_a_block_that_is_cut_is_committed_as_the_shorter_one() -> None:
    """The next block is what the authors' loop makes after a block of that length with those latents."""
    _, net = make_nets()
    text = make_text(1)
    cut, whole = make_stream(net, text, block=3), make_stream(net, text, block=3)
    with pytest.raises(RuntimeError, match="cut before the next"):
        cut.cut(1)
    first, second = next(cut), next(cut)
    cut.cut(2)
    assert (cut.next_frame, cut.block_index) == (5, 2)
    # The same past, given as blocks of three and two latent frames.
    state = whole.snapshot()
    assert torch.equal(next(whole), first)
    advance([whole])  # commits it
    committed = whole.pool.read(whole.slots[0])
    state |= {f"slot0.{name}": value for name, value in committed.items()}
    state |= {"clean": second[:, :, :2].contiguous(), "next_frame": 5, "block_index": 2}
    whole.restore(state)
    assert torch.equal(next(cut), next(whole))
    for frames in (0, 4):
        with pytest.raises(ValueError, match="1 to 3"):
            cut.cut(frames)
    advance([cut])
    with pytest.raises(RuntimeError, match="cut before the next"):
        cut.cut(1)


def test_euler_integrates_the_flow() -> None:
    theirs, net = make_nets()
    text, noise = make_text(1), make_noise(5, 4, H, W)
    times = (1000, 900, 750, 500)
    stream = make_stream(net, text, sampler="euler", timesteps=times, shift=3.0)
    x = torch.stack([noise(f, 0) for f in range(3)], 1)[None]
    loop = AuthorsLoop(theirs, noise, eps=1e-15, shift=3.0)
    sigmas = [float(loop.sigma(t)) for t in times] + [0.0]
    for t, now, then in zip(times, sigmas, sigmas[1:], strict=False):
        mask = text[1]
        flow = theirs(x, text[0], torch.tensor([float(t)]), encoder_attention_mask=mask).sample
        x = x + (then - now) * flow
    assert float((next(stream) - x).abs().max()) < 2e-5


def test_adams_bashforth_begins_each_block_with_an_euler_step() -> None:
    _, net = make_nets()
    text, times = make_text(1), (1000, 750)
    stream = make_stream(net, text, sampler="adams-bashforth", timesteps=times, shift=3.0)
    next(stream)
    flows: list[Tensor] = []
    start = stream.snapshot()
    finish = stream._finish

    def finish_and_keep(given: list[Tensor]) -> Tensor | None:
        flows.append(given[0])
        return finish(given)

    stream._finish = finish_and_keep  # type: ignore[method-assign]
    block = next(stream)
    x = torch.stack([make_noise(5, 4, H, W)(f, 0) for f in range(start["next_frame"], stream.next_frame)], 1)[None]
    _, first, second = flows  # the commit's comes first
    sigma = sigma_of(750, 3.0)
    middle = second + (second - first) * (sigma / 2) / (1 - sigma)
    assert torch.allclose(block, x - (1 - sigma) * first - sigma * middle, atol=1e-5)


def test_guidance_mixes_two_rows_with_states_of_their_own() -> None:
    theirs, net = make_nets(authors=True)
    text, negative, scale = make_text(1), make_text(2), 1.7
    stream = make_stream(net, text, guidance_scale=scale, negative_text=negative[0], negative_mask=negative[1])
    loop = AuthorsLoop(theirs, make_noise(5, 4, H, W), eps=1e-8)
    own: tuple[list[Own], list[Own]] = ([], [])
    start = 0
    for index, length in enumerate(LENGTHS[:4]):
        pasts = [loop.past(kept, index) for kept in own]
        x = torch.stack([loop.noise(f, 0) for f in range(start, start + length)], 1)[None]
        for i, t in enumerate(loop.timesteps):
            toward, away = (
                block_pass(theirs, x, t, words, start, *past, 1e-8)[0]
                for words, past in zip((text, negative), pasts, strict=True)
            )
            x0 = x - loop.sigma(t) * (away + scale * (toward - away))
            if i + 1 < len(loop.timesteps):
                fresh = torch.stack([loop.noise(f, i + 1) for f in range(start, start + length)], 1)[None]
                sigma = loop.sigma(loop.timesteps[i + 1])
                x = (1 - sigma) * x0 + sigma * fresh
        for kept, words, past in zip(own, (text, negative), pasts, strict=True):
            kept.append(block_pass(theirs, x0, 0, words, start, *past, 1e-8)[1])
        assert float((next(stream) - x0).abs().max()) < 2e-5
        start += length
    assert len(stream.slots) == 2


def test_guidance_of_one_is_no_guidance() -> None:
    _, net = make_nets()
    with pytest.raises(ValueError, match="negative_text"):
        make_stream(net, make_text(1), guidance_scale=2.0)
    assert len(make_stream(net, make_text(1), guidance_scale=1.0).slots) == 1


def test_guidance_may_begin_and_end_at_a_steer() -> None:
    _, net = make_nets()
    text, negative = make_text(1), make_text(2)
    stream = make_stream(net, text)
    next(stream)
    before = stream.snapshot()
    stream.steer(*text, guidance_scale=2.0, negative_text=negative[0], negative_mask=negative[1])
    with_guidance = next(stream)
    assert len(stream.slots) == 2
    stream.steer(*text, guidance_scale=1.0)
    next(stream)
    assert len(stream.slots) == 1
    stream.restore(before)
    assert not torch.allclose(next(stream), with_guidance, atol=1e-3)


def test_a_mixed_batch_gives_each_stream_what_it_gets_alone() -> None:
    """Commit, denoising at other steps, null rows and guidance in one pass."""
    _, net = make_nets()
    config = StreamConfig(window_blocks=3)
    pool = new_pool(net, H, W, config)

    def streams(pool: StatePool | None) -> list[LatentStream]:
        negative = make_text(9)
        common: dict[str, Any] = {"config": config, "block": 2, "first_block": 2, "pool": pool}
        return [
            make_stream(net, make_text(1), noise=make_noise(1, 4, H, W), **common),
            make_stream(net, make_text(2), noise=make_noise(2, 4, H, W), timesteps=(1000, 500), **common),
            make_stream(
                net,
                make_text(3),
                noise=make_noise(3, 4, H, W),
                guidance_scale=1.5,
                negative_text=negative[0],
                negative_mask=negative[1],
                first_frame=700,
                **common,
            ),
        ]

    together, alone = streams(pool), streams(None)
    made: list[list[Tensor]] = [[], [], []]
    kinds = set()
    for _ in range(17):
        for stream, block in zip(together, advance(together, bucket=5), strict=True):
            if block is not None:
                made[together.index(stream)].append(block)
        kinds.add(tuple(stream.steps_left for stream in together))
    assert len(kinds) > 5
    assert min(len(blocks) for blocks in made) >= 3
    for stream, blocks in zip(alone, made, strict=True):
        assert close([next(stream) for _ in blocks], blocks) < 2e-5
    assert all(not tensor.any() for tensor in pool.read(0).values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_do_not_depend_on_who_shares_the_bucket(dtype: torch.dtype) -> None:
    net = make_nets()[1].to(dtype)

    def run(neighbours: int) -> list[Tensor]:
        pool = new_pool(net, H, W)
        common: dict[str, Any] = {"pool": pool, "block": 2, "first_block": 2}
        me = make_stream(net, make_text(1), seed=11, noise=None, **common)
        others = [make_stream(net, make_text(2 + i), seed=i, noise=None, **common) for i in range(neighbours)]
        blocks = []
        while len(blocks) < 3:
            done = advance([me, *others], bucket=4)[0]
            if done is not None:
                blocks.append(done)
        return blocks

    alone = run(0)
    for neighbours in (1, 3):
        assert all(torch.equal(a, b) for a, b in zip(alone, run(neighbours), strict=True))


def test_a_bucket_splits_what_does_not_fit() -> None:
    _, net = make_nets()
    streams = [make_stream(net, make_text(i), pool=None) for i in range(3)]
    pool = new_pool(net, H, W)
    shared = [make_stream(net, make_text(i), pool=pool) for i in range(3)]
    for stream in streams:
        next(stream)
    blocks: list[Tensor | None] = [None]
    while blocks[0] is None:
        blocks = advance(shared, bucket=2)
    for stream, block in zip(streams, blocks, strict=True):
        assert block is not None
        assert torch.allclose(stream._clean, block, atol=2e-5)


def test_a_stream_may_stand_only_once_in_a_batch() -> None:
    _, net = make_nets()
    stream = make_stream(net, make_text(1))
    with pytest.raises(ValueError, match="twice"):
        advance([stream, stream])


def test_a_dirty_slot_is_as_good_as_a_new_one() -> None:
    _, net = make_nets()
    pool = new_pool(net, H, W, StreamConfig(window_blocks=2), slab=1)
    options: dict[str, Any] = {"pool": pool, "window": 2}
    first = make_stream(net, make_text(2), **options)
    for _ in range(4):
        next(first)
    first.release()
    second = make_stream(net, make_text(1), **options)
    assert second.slots == (1,)
    fresh = make_stream(net, make_text(1), window=2)
    assert all(torch.equal(next(second), next(fresh)) for _ in range(4))


def test_a_released_stream_says_so() -> None:
    _, net = make_nets()
    pool = new_pool(net, H, W)
    stream = make_stream(net, make_text(1), pool=pool)
    stream.release()
    stream.release()
    assert pool.in_use == 0
    with pytest.raises(RuntimeError, match="released"):
        next(stream)


def test_state_bytes_are_flat() -> None:
    _, net = make_nets(layers=1, head_dim=12)
    stream = make_stream(net, make_text(1), block=1, first_block=1, timesteps=(1000,), window=3, seed=1, noise=None)

    def nbytes() -> int:
        held = sum(v.nbytes for v in stream.snapshot().values() if isinstance(v, Tensor))
        return stream.pool.nbytes + held

    next(stream), next(stream)
    early = nbytes()
    for _ in range(498):
        block = next(stream)
    assert stream.block_index == 500
    assert nbytes() == early
    assert block.isfinite().all()


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_a_snapshot_restores_to_the_bit(guidance: float) -> None:
    _, net = make_nets()
    negative = make_text(4)
    options: dict[str, Any] = {
        "guidance_scale": guidance,
        "negative_text": negative[0],
        "negative_mask": negative[1],
        "noise": None,
        "window": 2,
        "sink": 1,
    }
    stream = make_stream(net, make_text(1), seed=7, **options)
    next(stream), next(stream)
    data = pack(stream.snapshot())
    stream.steer(*make_text(2))
    expected = [next(stream) for _ in range(3)]
    advance([stream])
    stream.restore(unpack(data))
    stream.steer(*make_text(2))
    again = [next(stream) for _ in range(3)]
    other = make_stream(net, make_text(3), seed=8, **options)
    next(other)
    other.restore(unpack(data))
    other.steer(*make_text(2))
    branch = [next(other) for _ in range(3)]
    for a, b, c in zip(expected, again, branch, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_a_snapshot_is_taken_between_blocks_only() -> None:
    _, net = make_nets()
    stream = make_stream(net, make_text(1))
    advance([stream])
    with pytest.raises(RuntimeError, match="between blocks"):
        stream.snapshot()


def test_a_snapshot_of_another_kind_of_stream_is_refused() -> None:
    _, net = make_nets()
    stream, windowed = make_stream(net, make_text(1)), make_stream(net, make_text(1), window=2)
    next(stream), next(windowed)
    with pytest.raises(ValueError, match="state holds"):
        windowed.restore(stream.snapshot())
    for damaged in ({"format": 99}, {"format": 1, "next_frame": 3}):
        with pytest.raises(ValueError, match="format"):
            stream.restore(damaged)
    with pytest.raises(ValueError, match="not a snapshot"):
        unpack(b"\x00" * 20)


def replay(net: Any) -> str:
    """Hash of a log run from its start: seed, two steers, a change of block length."""
    stream = make_stream(net, make_text(1), noise=None, seed=2**63 + 5, window=2)
    digest = hashlib.sha256()
    for index in range(5):
        if index in (2, 4):
            stream.steer(*make_text(index))
        stream.block = 1 if index == 3 else 2
        digest.update(next(stream).numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_log_run_again_gives_the_same_bits(dtype: torch.dtype) -> None:
    net = make_nets()[1].to(dtype)
    first = replay(net)
    torch.manual_seed(123)
    torch.randn(3)
    assert replay(net) == first


def test_the_global_generator_is_left_alone() -> None:
    _, net = make_nets()
    before = torch.get_rng_state()
    next(make_stream(net, make_text(1), noise=None))
    assert torch.equal(torch.get_rng_state(), before)


def test_counts_of_passes() -> None:
    _, net = make_nets()
    stream = make_stream(net, make_text(1), first_timesteps=(1000, 900, 800, 700, 600))
    assert (stream.at_boundary, stream.steps_left, stream.passes_ahead, stream.next_block) == (True, 0, 5, 3)
    advance([stream])
    assert (stream.at_boundary, stream.steps_left, stream.passes_ahead, stream.next_block) == (False, 4, 4, 3)
    next(stream)
    assert (stream.block_index, stream.next_frame, stream.passes_ahead, stream.next_block) == (1, 3, 5, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": 0}, "block"),
        ({"sampler": "magic"}, "sampler"),
        ({"window": 0}, "window"),
        ({"decay": 0.0}, "decay"),
        ({"sink": -1}, "sink"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    _, net = make_nets(layers=1)
    with pytest.raises(ValueError, match=message):
        make_stream(net, make_text(1), **options)


def test_a_size_of_broken_patches_is_refused() -> None:
    _, net = make_nets(layers=1)
    text = make_text(1)
    with pytest.raises(ValueError, match="patches"):
        LatentStream(net, text=text[0], text_mask=text[1], height=7, width=8)
