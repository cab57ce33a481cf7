"""A whole checkpoint: prompts in, pictures out, and loading what is damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model import VideoStream
from model.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from model.snapshot import pack, unpack


@pytest.fixture(scope="module")
def checkpoint(tiny_model: Path) -> Checkpoint:
    return load_checkpoint(tiny_model, dtype=torch.float32)


def take(stream: VideoStream, count: int) -> list[Tensor]:
    return [next(stream) for _ in range(count)]


def test_pictures_leave_latent_frame_by_latent_frame(tiny_model: Path) -> None:
    stream = VideoStream.from_pretrained(tiny_model, prompt="the sea", seed=3)
    pictures = take(stream, 8)
    assert [tuple(p.shape) for p in pictures] == [(1, 64, 64, 3)] + [(4, 64, 64, 3)] * 7
    assert all(p.dtype == torch.uint8 for p in pictures)
    assert stream.next_latent == 8
    assert stream.latents.next_frame == 9


def test_prompt_seed_and_size_count(checkpoint: Checkpoint) -> None:
    def first(**options: object) -> Tensor:
        return torch.cat(take(VideoStream(checkpoint, **{"prompt": "the sea", "seed": 1, **options}), 5))

    base = first()
    assert torch.equal(base, first())
    assert not torch.equal(base, first(seed=2))
    assert not torch.equal(base, first(prompt="snowy mountains at night"))
    assert first(height=32, width=96).shape == (17, 32, 96, 3)
    with pytest.raises(ValueError, match="multiples of"):
        first(height=36)


def test_a_steer_shows_from_the_next_block(checkpoint: Checkpoint) -> None:
    plain = VideoStream(checkpoint, prompt="the sea", seed=1)
    steered = VideoStream(checkpoint, prompt="the sea", seed=1)
    assert torch.equal(next(plain), next(steered))
    steered.steer("snowy mountains")
    same = [torch.equal(a, b) for a, b in zip(take(plain, 6), take(steered, 6), strict=True)]
    assert same[:2] == [True, True]
    assert not any(same[2:])


@pytest.mark.parametrize("taken_at", [0, 1, 3, 5, 40])
def test_a_snapshot_restores_the_pictures(checkpoint: Checkpoint, taken_at: int) -> None:
    stream = VideoStream(checkpoint, prompt="the sea", seed=1)
    take(stream, taken_at)
    data = pack(stream.snapshot())
    stream.steer("night")
    expected = take(stream, 6)
    other = VideoStream(checkpoint, prompt="a forest", seed=2)
    take(other, 2)
    other.restore(unpack(data))
    other.steer("night")
    for a, b in zip(take(other, 6), expected, strict=True):
        assert int((a.int() - b.int()).abs().max()) <= 1


def test_a_snapshot_of_latents_alone_is_refused(checkpoint: Checkpoint) -> None:
    stream = VideoStream(checkpoint, prompt="the sea")
    with pytest.raises(ValueError, match="VideoStream"):
        stream.restore(stream.latents.snapshot())


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "tokenizer"])
def test_a_missing_part_is_named(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    with pytest.raises(CheckpointError, match=part):
        load_checkpoint(folder)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
@pytest.mark.parametrize("damage", ["cut", "missing", "misshapen"])
def test_damage_is_named_in_one_line(folder: Path, part: str, damage: str) -> None:
    (file,) = (folder / part).glob("*.safetensors")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        tensors = load_file(file)
        name = sorted(tensors)[0]
        if damage == "missing":
            del tensors[name]
        else:
            tensors[name] = torch.zeros(1, 2, 3)
        save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=part) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_parts_that_do_not_fit_are_named(folder: Path) -> None:
    config = folder / "stream.json"
    config.write_text(json.dumps({"shift": -1}))
    with pytest.raises(CheckpointError, match="shift"):
        load_checkpoint(folder)
    with pytest.raises(CheckpointError, match="no such folder"):
        load_checkpoint(folder / "nowhere")
