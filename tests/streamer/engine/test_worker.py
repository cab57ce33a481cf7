"""The worker, a real process, driven as the server drives it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from player import NIGHT, SEA, Player, run

from model.snapshot import pack, unpack
from streamer.engine.process import Engine
from streamer.engine.protocol import Denoised, Failed, Opened, Pictures, Snapshot, Steer

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT_0 = Steer(at_latent=0, prompt=SEA)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tiny_model: Path) -> AsyncIterator[Engine]:
    engine = await Engine.start(tiny_model, dtype="fp32", threads=1, rate_hz=16.0, batch=2)
    await engine.wait_ready()
    yield engine
    await engine.close()


async def test_ready_tells_what_the_server_needs(engine: Engine) -> None:
    ready = await engine.wait_ready()
    assert (ready.model.height, ready.model.width, ready.model.dtype) == (64, 64, "float32")
    assert ready.model.block_latent_frames == [3]
    assert ready.model.vocabulary["scene"][0]["name"] == "sea"
    assert ready.timings.passes == 2
    assert ready.timings.first_block_s > 0
    assert ready.timings.pass_s > 0
    assert ready.timings.decode_s > 0
    assert ready.capacity >= 1
    assert ready.slots >= ready.capacity
    assert ready.rate_hz == 16.0
    assert "16 Hz" in ready.rate_reason


async def test_pictures_come_in_order_and_no_further_than_credit(engine: Engine) -> None:
    player = Player(engine)
    player.open()
    player.credit(denoise_until=7, decode_until=5)
    await player.next(Opened)
    await player.denoised(6)
    await player.decoded(4)
    # Each answer leaves the worker time for a step; were it to go on, twelve would show it.
    for _ in range(12):
        await player.snapshot(100)
    pictures = [message for message in player.received if isinstance(message, Pictures)]
    assert [message.latent for message in pictures] == [0, 1, 2, 3, 4]
    assert [message.first_picture for message in pictures] == [0, 1, 5, 9, 13]
    assert [len(message.i420) for message in pictures] == [1, 4, 4, 4, 4]
    assert {len(picture) for message in pictures for picture in message.i420} == {64 * 64 * 3 // 2}
    blocks = [message for message in player.received if isinstance(message, Denoised)]
    assert [(block.block, block.first_latent, block.latents) for block in blocks] == [
        (0, 0, 3),
        (1, 3, 3),
        (2, 6, 3),
    ]
    player.credit(denoise_until=3, decode_until=1)  # lower: changes nothing
    player.credit(denoise_until=7, decode_until=9)
    await player.decoded(8)
    player.close()


async def test_a_reschedule_drops_the_lead_and_equals_a_fresh_run(engine: Engine) -> None:
    player = Player(engine)
    player.open(AT_0)
    player.credit(denoise_until=12, decode_until=6)
    await player.denoised(9)
    player.reschedule(6, Steer(at_latent=6, prompt=NIGHT))
    assert (await player.denoised(6)).epoch == 2
    assert (await player.denoised(9)).epoch == 2
    player.credit(denoise_until=15, decode_until=15)
    steered = await player.decoded(14)
    player.close()

    assert steered == await run(engine, range(15), AT_0, Steer(at_latent=6, prompt=NIGHT))
    plain = await run(engine, range(15), AT_0)
    assert [latent for latent in range(15) if steered[latent] != plain[latent]] == list(range(6, 15))


async def test_reschedules_in_quick_succession(engine: Engine) -> None:
    """The last one counts, wherever the block under way stands when it comes; also before the first block."""
    player = Player(engine)
    player.open(AT_0)
    player.credit(denoise_until=9, decode_until=0)
    player.reschedule(0, Steer(at_latent=0, prompt=NIGHT))
    await player.denoised(3)
    for prompt in ("fog rolls in", "rain", "a forest at dawn"):
        player.reschedule(3, Steer(at_latent=3, prompt=prompt))
    player.credit(denoise_until=9, decode_until=9)
    steered = await player.decoded(8)
    player.close()
    steers = (Steer(at_latent=0, prompt=NIGHT), Steer(at_latent=3, prompt="a forest at dawn"))
    assert steered == await run(engine, range(9), *steers)


async def test_a_steer_for_later_drops_nothing(engine: Engine) -> None:
    player = Player(engine)
    player.open(AT_0)
    player.credit(denoise_until=6, decode_until=6)
    player.reschedule(9, Steer(at_latent=9, prompt=NIGHT))
    await player.decoded(5)
    player.credit(denoise_until=12, decode_until=12)
    steered = await player.decoded(11)
    player.close()
    assert [m.first_latent for m in player.received if isinstance(m, Denoised)] == [0, 3, 6, 9]
    assert steered == await run(engine, range(12), AT_0, Steer(at_latent=9, prompt=NIGHT))


@pytest.mark.parametrize(("latent", "reason"), [(3, "locked"), (7, "no block begins")])
async def test_a_reschedule_that_cannot_be(engine: Engine, latent: int, reason: str) -> None:
    player = Player(engine)
    player.open(AT_0)
    player.credit(denoise_until=9, decode_until=6)
    await player.denoised(6)
    player.reschedule(latent, Steer(at_latent=latent, prompt=NIGHT))
    assert reason in (await player.next(Failed)).reason


async def test_two_streams_at_a_time_are_each_as_if_alone(engine: Engine) -> None:
    first, second = Player(engine), Player(engine)
    first.open(AT_0, Steer(at_latent=6, prompt=NIGHT), seed=1)
    second.open(Steer(at_latent=0, prompt=NIGHT), seed=2)
    for player in (first, second):
        player.credit(denoise_until=12, decode_until=12)
    together = [await player.decoded(11) for player in (first, second)]
    assert together[0] == await run(engine, range(12), AT_0, Steer(at_latent=6, prompt=NIGHT), seed=1)
    assert together[1] == await run(engine, range(12), Steer(at_latent=0, prompt=NIGHT), seed=2)
    assert together[0] != together[1]
    first.close()
    second.close()


async def test_guided_streams_run_beside_others(engine: Engine) -> None:
    guided = Steer(at_latent=0, prompt=SEA, guidance_scale=3.0, negative_prompt="rain")
    first, second = Player(engine), Player(engine)
    first.open(guided)
    second.open(AT_0)
    for player in (first, second):
        player.credit(denoise_until=6, decode_until=6)
    together = [await player.decoded(5) for player in (first, second)]
    assert together[0] == await run(engine, range(6), guided)
    assert together[1] == await run(engine, range(6), AT_0)
    assert together[0] != together[1]
    first.close()
    second.close()


async def test_a_snapshot_goes_on_elsewhere(engine: Engine) -> None:
    """From a boundary, from past it (unseen up to there, a steer on the way) and from below it; or from the log."""
    steers = (AT_0, Steer(at_latent=39, prompt=NIGHT))
    player = Player(engine)
    player.open(*steers)
    player.credit(denoise_until=48, decode_until=36)
    await player.decoded(35)
    snapshot = await player.snapshot(at_most=37)
    assert snapshot.latent == 36
    player.credit(denoise_until=48, decode_until=48)
    whole = await player.decoded(47)
    player.close()
    for start in (36, 41, 30):
        pictures = await run(engine, range(start, 48), *steers, snapshot=snapshot.data)
        assert pictures == {latent: whole[latent] for latent in range(start, 48)}
    from_log = await run(engine, range(41, 48), *steers)
    assert from_log == {latent: whole[latent] for latent in range(41, 48)}


async def test_which_snapshots_there_are(engine: Engine) -> None:
    player = Player(engine)
    player.open(AT_0)
    assert (await player.snapshot(at_most=50)).latent == 0  # before anything ran
    player.credit(denoise_until=12, decode_until=4)
    await player.denoised(9)
    await player.decoded(3)
    assert (await player.snapshot(at_most=8)).latent == 6
    assert (await player.snapshot(at_most=100)).latent == 12
    assert (await player.snapshot(at_most=0)).latent == 3  # the oldest that is left
    player.close()


async def test_unusable_snapshots_and_sizes_are_refused(engine: Engine) -> None:
    player = Player(engine)
    player.open(AT_0)
    content = unpack((await player.snapshot(0)).data)
    player.close()
    foreign = pack(content | {"engine.weights_hash": "0" * 64})
    for fields, reason in (
        ({"snapshot": foreign}, "other weights"),
        ({"snapshot": b"nonsense"}, "cannot be read"),
        ({"snapshot": pack({"format": 1})}, "cannot be read"),
        ({"height": 60}, "no size for this checkpoint"),
        ({"height": 72}, "no size for this checkpoint"),
        ({"width": 8}, "no size for this checkpoint"),
        ({"snapshot": pack(content), "decode_from": -1}, "decode_from"),
    ):
        player = Player(engine)
        player.open(AT_0, **fields)
        assert reason in (await player.next(Failed)).reason, fields


async def test_a_poisoned_stream_fails_alone(engine: Engine) -> None:
    healthy = Player(engine)
    healthy.open(AT_0)
    healthy.credit(denoise_until=6, decode_until=3)
    await healthy.denoised(3)
    content = unpack((await healthy.snapshot(3)).data)
    content["clean"] = torch.full_like(content["clean"], float("nan"))
    poisoned = Player(engine)
    poisoned.open(AT_0, snapshot=pack(content), decode_from=3)
    poisoned.credit(denoise_until=9, decode_until=9)
    healthy.credit(denoise_until=12, decode_until=12)
    assert "not finite" in (await poisoned.next(Failed)).reason
    assert await healthy.decoded(11) == await run(engine, range(12), AT_0)
    assert not poisoned.pictures
    healthy.close()


async def test_messages_about_a_stream_that_is_gone_are_harmless(engine: Engine) -> None:
    player = Player(engine)
    player.open(AT_0)
    player.close()
    player.credit(9, 9)
    player.reschedule(3, Steer(at_latent=3, prompt=NIGHT))
    player.open(AT_0)  # the same name again
    player.credit(3, 3)
    await player.decoded(2)
    assert not [message for message in player.received if isinstance(message, Snapshot | Failed)]
    player.close()
