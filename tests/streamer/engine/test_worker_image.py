"""Streams that start from a picture, in a real worker."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from PIL import Image
from player import NIGHT, SEA, Player, run

from model.checkpoint import load_checkpoint
from model.image_start import first_latent
from streamer.engine.process import Engine
from streamer.engine.protocol import Denoised, Failed, Steer

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT_0 = Steer(at_latent=0, prompt=SEA)


def png(width: int = 64, height: int = 64) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(file, "PNG")
    return file.getvalue()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tiny_model: Path) -> AsyncIterator[Engine]:
    engine = await Engine.start(tiny_model, dtype="fp32", threads=1, rate_hz=16.0, batch=2)
    await engine.wait_ready()
    yield engine
    await engine.close()


async def test_the_picture_comes_first_and_blocks_follow_it(engine: Engine, tiny_model: Path) -> None:
    player = Player(engine)
    player.open(image=png())
    player.credit(denoise_until=6, decode_until=6)
    pictures = await player.decoded(5)
    player.close()
    blocks = [message for message in player.received if isinstance(message, Denoised)]
    assert [(block.block, block.first_latent, block.latents) for block in blocks[:2]] == [(0, 0, 1), (1, 1, 3)]
    vae = load_checkpoint(tiny_model, dtype=torch.float32).vae
    latent = first_latent(vae, Image.open(io.BytesIO(png())), 64, 64)
    assert pictures[0] == vae.decode_yuv(latent, vae.new_state())


async def test_log_and_snapshot_give_the_same_video(engine: Engine) -> None:
    steers = [AT_0, Steer(at_latent=4, prompt=NIGHT)]
    whole = await run(engine, range(10), *steers, image=png())
    assert await run(engine, range(6, 10), *steers, image=png()) == {f: whole[f] for f in range(6, 10)}
    player = Player(engine)
    player.open(*steers, image=png())
    player.credit(denoise_until=6, decode_until=5)
    await player.denoised(4)
    snapshot = await player.snapshot(4)
    player.close()
    assert snapshot.latent == 4
    rest = await run(engine, range(3, 10), *steers, image=png(), snapshot=snapshot.data)
    assert rest == {f: whole[f] for f in range(3, 10)}
    assert (await run(engine, range(3), AT_0))[2] != whole[2]


@pytest.mark.parametrize(
    ("image", "reason"),
    [(png(32, 64), "is not 64x64"), (png()[:70], "cannot be read"), (b"GIF89a", "cannot be read")],
)
async def test_a_picture_that_does_not_fit_fails_its_stream_alone(engine: Engine, image: bytes, reason: str) -> None:
    player = Player(engine)
    player.open(image=image)
    assert reason in (await player.next(Failed)).reason
    assert len(await run(engine, range(1), AT_0)) == 1
