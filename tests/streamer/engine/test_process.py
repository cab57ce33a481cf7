"""The server's handle on the worker: a worker that dies, can't start, or outlives its server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace
from player import SEA, Player, run
from test_worker_loop import READY

from streamer.engine.child import Child
from streamer.engine.process import Backoff, Engine, EngineError, patience_s
from streamer.engine.protocol import Progress, Ready, Steer

PATIENCE_S = 60.0


async def gone(pid: int) -> bool:
    """Wait for a process to be gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        await asyncio.to_thread(psutil.Process(pid).wait, PATIENCE_S)
    return not psutil.pid_exists(pid)


@pytest.fixture
async def engine(tiny_model: Path) -> AsyncIterator[Engine]:
    engine = await Engine.start(tiny_model, dtype="fp32", threads=1)
    yield engine
    await engine.close()


async def test_killed_worker_comes_back_and_streams_go_on_from_their_snapshots(engine: Engine) -> None:
    ups: asyncio.Queue[Ready] = asyncio.Queue()
    downs: asyncio.Queue[str] = asyncio.Queue()
    engine.on_up(ups.put_nowait)
    engine.on_down(downs.put_nowait)
    assert not engine.send(Progress(fraction=0, what="nobody is there to hear this"))
    first = await asyncio.wait_for(ups.get(), PATIENCE_S)
    assert first == engine.ready

    player = Player(engine)
    player.open(Steer(at_latent=0, prompt=SEA))
    player.credit(denoise_until=9, decode_until=6)
    await player.decoded(5)
    snapshot = await player.snapshot(at_most=6)
    player.credit(denoise_until=10**6, decode_until=10**6)  # it dies at work
    os.kill(first.pid, signal.SIGKILL)
    assert "SIGKILL" in await asyncio.wait_for(downs.get(), PATIENCE_S)
    assert engine.ready is None
    assert not engine.send(Progress(fraction=0, what="nor this"))

    second = await asyncio.wait_for(ups.get(), PATIENCE_S)
    assert second.pid != first.pid
    assert second.rate_hz == first.rate_hz
    assert engine.restarts == 1
    goes_on = await run(engine, range(6, 12), snapshot=snapshot.data)
    assert goes_on == {k: v for k, v in (await run(engine, range(12))).items() if k >= 6}
    await engine.close()
    assert await gone(second.pid)
    assert downs.empty()
    with pytest.raises(EngineError, match="closed"):
        await engine.wait_ready()


def test_back_off_doubles_and_begins_anew_after_a_healthy_worker() -> None:
    backoff = Backoff()
    assert [backoff.after(0.0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.after(61.0) == 0.5
    assert backoff.after(5.0) == 1


def test_a_worker_that_decodes_whole_clips_may_be_silent_for_long() -> None:
    assert (patience_s(None), patience_s(READY)) == (300, 120)
    assert patience_s(replace(READY, model=replace(READY.model, no_streams="whole clips only"))) == 3600


async def start_fails(model: Path, **options: str) -> str:
    """What it says when the first worker can't start."""
    engine = await Engine.start(model, threads=1, **options)  # type: ignore[arg-type]
    with pytest.raises(EngineError) as raised:
        await asyncio.wait_for(engine.wait_ready(), PATIENCE_S)
    assert engine.restarts == 0
    assert engine.progress.what == str(raised.value)
    await engine.close()
    return str(raised.value)


async def test_a_missing_folder_is_one_line_and_no_restart(tmp_path: Path) -> None:
    assert await start_fails(tmp_path / "nowhere") == f"{tmp_path / 'nowhere'}: no such folder"


async def test_a_damaged_folder_is_one_line_and_no_restart(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_model, folder)
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    text = await start_fails(folder)
    assert text.startswith(str(file))
    assert "\n" not in text


async def test_an_unknown_device_is_one_line(tiny_model: Path) -> None:
    text = await start_fails(tiny_model, device="no-such-device")
    assert text.startswith("--device no-such-device: ")
    assert "\n" not in text


SERVER = """
import asyncio, sys
from streamer.engine.child import Child
from streamer.engine.process import Backoff, Engine

async def main():
    engine = await Engine.start(sys.argv[1], dtype="fp32", threads=1)
    print((await engine.wait_ready()).pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_worker_dies_with_the_server(tiny_model: Path) -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, str(tiny_model), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    pid = int(await asyncio.wait_for(server.stdout.readline(), PATIENCE_S))
    assert psutil.pid_exists(pid)
    server.kill()
    await server.wait()
    assert await gone(pid)


async def test_a_worker_that_still_loads_ends_at_once(tiny_model: Path) -> None:
    child = await Child.spawn(["--model", str(tiny_model)])
    assert await child.read(PATIENCE_S)  # its first word
    await child.end()
    assert await gone(child.process.pid)
