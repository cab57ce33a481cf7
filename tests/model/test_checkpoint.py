"""Loading is strict: what is wrong with a folder is said in one line that names it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoint import CheckpointError, load_transformer, load_vae, weights_hash

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint to damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_every_parameter_arrives(tiny_model: Path) -> None:
    net = load_transformer(tiny_model, dtype=torch.float32)
    saved = load_file(tiny_model / WEIGHTS)
    assert net.diffusers_state_dict().keys() == saved.keys()
    assert all(torch.equal(net.diffusers_state_dict()[name], value) for name, value in saved.items())
    assert load_transformer(tiny_model / "transformer").dtype in (torch.bfloat16, torch.float32)


def edit(folder: Path, name: str, value: torch.Tensor | None) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors.pop(name, None)
    save_file(tensors if value is None else {**tensors, name: value}, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("proj_out.bias", None, "missing"),
        ("proj_out.stray", torch.zeros(3), "unexpected"),
        ("proj_out.bias", torch.zeros(3), "shape"),
        ("transformer_blocks.0.ff.conv_point.weight", torch.zeros(48, 7, 1, 1), "shape"),
    ],
)
def test_a_wrong_parameter_is_named(folder: Path, name: str, value: torch.Tensor | None, message: str) -> None:
    edit(folder, name, value)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_transformer(folder)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cut_file_is_named(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="diffusion_pytorch_model"):
        load_transformer(folder)


def test_what_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load_transformer(folder / "nowhere")
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="diffusion_pytorch_model"):
        load_transformer(folder)
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps({"_class_name": "UNet2DModel"}))
    with pytest.raises(CheckpointError, match="UNet2DModel"):
        load_transformer(folder)
    config.write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_transformer(folder)


def test_a_pickled_vae_is_not_read(folder: Path) -> None:
    """The weights' hash covers safetensors only."""
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(CheckpointError, match="safetensors"):
        load_vae(folder)


def test_the_hash_follows_the_weights(folder: Path, tiny_model: Path) -> None:
    first = weights_hash(folder)
    assert first == weights_hash(tiny_model)
    assert len(first) == 64
    (folder / "stream.json").unlink()
    assert weights_hash(folder) == first
    edit(folder, "proj_out.bias", load_file(folder / WEIGHTS)["proj_out.bias"] + 1)
    assert weights_hash(folder) != first
