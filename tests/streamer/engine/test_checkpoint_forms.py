"""The worker starts from every form of checkpoint, or says in a line why not."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
import torch
from pth import random_pth

from streamer.engine.process import Engine, EngineError

PATIENCE_S = 120


@pytest.fixture
def pth(tiny_model: Path, tmp_path: Path) -> Path:
    """A small `.pth` laid out as in NVlabs' repositories: in `checkpoints`, the parts and `stream.json` above it."""
    folder = tmp_path / "Tiny_LongLive"
    for part in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(tiny_model / part, folder / part)
    shutil.copy(tiny_model / "stream.json", folder)
    file = folder / "checkpoints" / "net.pth"
    file.parent.mkdir()
    torch.save({"state_dict": random_pth(width=224, layers=1, channels=16, captions=32)}, file)
    return file


async def test_a_pth_is_served(pth: Path) -> None:
    engine = await Engine.start(pth, dtype="fp32", rate_hz=8, threads=1)
    try:
        ready = await asyncio.wait_for(engine.wait_ready(), PATIENCE_S)
    finally:
        await engine.close()
    assert ready.model.streaming == "blocks"
    assert (ready.model.name, ready.model.height, ready.model.width) == ("net", 64, 64)
    assert len(ready.model.weights_hash) == 64


async def test_heads_that_no_width_tells_are_told(pth: Path) -> None:
    torch.save({"state_dict": random_pth(width=96, layers=1, channels=16, captions=32)}, pth)
    engine = await Engine.start(pth, dtype="fp32", rate_hz=8, threads=1)
    with pytest.raises(EngineError, match=r"width of 96 is not made of heads of 112: give .*--heads"):
        await asyncio.wait_for(engine.wait_ready(), PATIENCE_S)
    await engine.close()
    engine = await Engine.start(pth, dtype="fp32", rate_hz=8, threads=1, loading=("--heads", "4"))
    try:
        assert (await asyncio.wait_for(engine.wait_ready(), PATIENCE_S)).model.streaming == "blocks"
    finally:
        await engine.close()


async def test_a_lone_pth_says_what_it_lacks(pth: Path) -> None:
    shutil.rmtree(pth.parent.parent / "vae")
    shutil.rmtree(pth.parent.parent / "text_encoder")
    engine = await Engine.start(pth, threads=1)
    with pytest.raises(EngineError) as raised:
        await asyncio.wait_for(engine.wait_ready(), PATIENCE_S)
    await engine.close()
    folder = pth.parent.parent
    assert str(raised.value) == f"{pth}: the folders vae, text_encoder are missing beside it, in {folder}"


async def test_a_bidirectional_checkpoint_says_that_it_makes_clips(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "SANA-Video"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("stream.json"))
    engine = await Engine.start(folder, dtype="fp32", rate_hz=8, threads=1)
    try:
        ready = await asyncio.wait_for(engine.wait_ready(), PATIENCE_S)
    finally:
        await engine.close()
    assert ready.model.streaming == "chained clips"
    assert (ready.model.first_block_latent_frames, ready.model.block_latent_frames) == (21, [20])
    assert ready.timings.passes == 50
    assert ready.model.clips is not None
    assert ready.model.clips.steps == 50
