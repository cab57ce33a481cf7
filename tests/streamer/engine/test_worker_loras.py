"""Adapters in the worker, a real process: at its start, in steers, loaded while streams run."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from player import NIGHT, SEA, Player, run
from tiny_lora import save_tiny_lora

from model.snapshot import unpack
from streamer.engine.info import Lora, by_default
from streamer.engine.loras import LoraError, Loras
from streamer.engine.process import Engine
from streamer.engine.protocol import DropLora, Failed, LoadLora, LoraFailed, LoraLoaded, Message, Steer

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT_0 = Steer(at_latent=0, prompt=SEA)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate(("ink", "glow", "late"), 1):
        save_tiny_lora(folder / name, seed)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tiny_model: Path, folder: Path) -> AsyncIterator[Engine]:
    loading = ("--lora", f"ink={folder / 'ink'}:0", "--lora", f"glow={folder / 'glow'}:0.5")
    engine = await Engine.start(tiny_model, dtype="fp32", threads=1, rate_hz=16.0, batch=2, loading=loading)
    await engine.wait_ready()
    yield engine
    await engine.close()


def of(engine: Engine, name: str, weight: float) -> Lora:
    return Lora(name=name, weight=weight, sha256=engine.loras.infos[name].sha256)


async def test_ready_tells_of_the_adapters(engine: Engine, folder: Path) -> None:
    ready = await engine.wait_ready()
    assert ready.model.loras is engine.loras.infos
    assert list(ready.model.loras) == ["ink", "glow"]
    ink = ready.model.loras["ink"]
    file = folder / "ink" / "pytorch_lora_weights.safetensors"
    assert ink.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (ink.weight, ink.rank, ink.layers) == (0.0, 2, 8)
    assert by_default(ready.model.loras) == (of(engine, "glow", 0.5),)


async def test_a_steer_swaps_adapters_at_its_boundary_and_touches_no_other_stream(engine: Engine) -> None:
    swap = Steer(at_latent=6, prompt=SEA, loras=(of(engine, "ink", 1.0), of(engine, "glow", -0.5)))
    off = Steer(at_latent=9, prompt=SEA)
    first, second = Player(engine), Player(engine)
    first.open(AT_0)
    second.open(Steer(at_latent=0, prompt=NIGHT), seed=2)
    for player in (first, second):
        player.credit(denoise_until=9, decode_until=6)
    await first.denoised(6)
    first.reschedule(6, swap, off)
    for player in (first, second):
        player.credit(denoise_until=12, decode_until=12)
    swapped, beside = await first.decoded(11), await second.decoded(11)
    first.close()
    second.close()

    plain = await run(engine, range(12), AT_0)
    assert [latent for latent in range(12) if swapped[latent] != plain[latent]] == list(range(6, 12))
    assert swapped == await run(engine, range(12), AT_0, swap, off)
    assert beside == await run(engine, range(12), Steer(at_latent=0, prompt=NIGHT), seed=2)


async def test_a_snapshot_holds_the_adapters(engine: Engine) -> None:
    steer = Steer(at_latent=0, prompt=SEA, loras=(of(engine, "ink", 0.7),))
    player = Player(engine)
    player.open(steer)
    player.credit(denoise_until=9, decode_until=7)
    await player.decoded(6)
    snapshot = await player.snapshot(6)
    player.credit(denoise_until=9, decode_until=9)
    whole = await player.decoded(8)
    player.close()
    assert unpack(snapshot.data)["loras"] == [["ink", engine.loras.infos["ink"].sha256, 0.7]]
    assert snapshot.latent == 6
    again = await run(engine, range(6, 9), steer, snapshot=snapshot.data)
    assert again == {latent: whole[latent] for latent in range(6, 9)}


async def test_an_adapter_is_loaded_beside_a_running_stream(engine: Engine, folder: Path) -> None:
    player = Player(engine)
    player.open(AT_0)
    player.credit(denoise_until=6, decode_until=3)
    await player.denoised(0)
    info = await engine.loras.load("late", str(folder / "late"), 0.0)
    assert engine.ready is not None
    assert engine.ready.model.loras["late"] == info
    for name, path, message in [
        ("late", "late", "there is an adapter late already"),
        ("gone", str(folder / "gone"), "gone: no such file or folder"),
    ]:
        with pytest.raises(LoraError, match=message):
            await engine.loras.load(name, path, 0.0)
    assert "gone" not in engine.loras.infos
    steer = Steer(at_latent=6, prompt=SEA, loras=(of(engine, "late", 1.0),))
    player.reschedule(6, steer)
    player.credit(denoise_until=9, decode_until=9)
    steered = await player.decoded(8)
    player.close()
    assert steered == await run(engine, range(9), AT_0, steer)

    engine.loras.drop("late")
    player = Player(engine)
    player.open(AT_0, steer)
    player.credit(denoise_until=9, decode_until=9)
    failed = await player.next(Failed)
    assert failed.reason == f"adapter late (SHA-256 {info.sha256[:12]}...) is not loaded"


async def test_a_restarted_worker_is_told_what_was_loaded_later(engine: Engine) -> None:
    sent: list[Message] = []
    loras = Loras(lambda message: sent.append(message) is None)
    ready = await engine.wait_ready()
    assert loras.worker_up(ready).model.loras is loras.infos
    assert sent == []
    info = ready.model.loras["ink"]
    later = type(info)(name="later", sha256="ab", weight=0.2, rank=1, layers=1, nbytes=1)

    loading = asyncio.create_task(loras.load("later", "/some/later", 0.2))
    await asyncio.sleep(0)  # it has asked
    assert sent.pop() == LoadLora(name="later", path="/some/later", weight=0.2)
    loras.receive(LoraLoaded(info=later))
    assert await loading == later
    loras.drop("glow")
    assert sent.pop() == DropLora(sha256=ready.model.loras["glow"].sha256)

    loras.worker_down("gone")
    again = loras.worker_up(ready)
    assert set(again.model.loras) == {"ink", "later"}
    assert sent == [LoadLora(name="later", path="/some/later", weight=0.2, sha256="ab")]
    loras.receive(LoraFailed(name="later", reason="the file has changed"))
    assert set(loras.infos) == {"ink"}
    sent.clear()
    loras.worker_up(ready)
    assert sent == []

    loading = asyncio.create_task(loras.load("later", "/some/later", 0.2))
    await asyncio.sleep(0)
    loading.cancel()  # who asked has gone
    await asyncio.gather(loading, return_exceptions=True)
    with pytest.raises(LoraError, match="there is an adapter later already"):
        await loras.load("later", "/other", 0.2)
    loras.receive(LoraLoaded(info=later))
    sent.clear()
    loras.worker_up(ready)
    assert sent == [LoadLora(name="later", path="/some/later", weight=0.2, sha256="ab")]
