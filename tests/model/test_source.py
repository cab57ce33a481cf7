"""Where checkpoints are found: folders, files, and the hub's cache."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
from huggingface_hub import constants
from tiny_lora import save_tiny_lora

from model.checkpoint import CheckpointError, convert, load_checkpoint, load_transformer
from model.lora_source import AdapterError, located
from model.source import HUB_FILES, display_name, is_hub_id, resolve
from model.stream_config import StreamConfig
from model.weights import Kind, kind_of

COMMIT = "0" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no network."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def cached(hub: Path, model: Path, repository: str) -> Path:
    """Put a folder into the cache as `main` of a repository."""
    entry = hub / f"models--{repository.replace('/', '--')}"
    shutil.copytree(model, entry / "snapshots" / COMMIT)
    (entry / "refs").mkdir()
    (entry / "refs/main").write_text(COMMIT)
    return entry / "snapshots" / COMMIT


def test_a_hub_id_loads_from_the_cache_without_network(hub: Path, tiny_model: Path) -> None:
    folder = cached(hub, tiny_model, "someone/SANA-Video_2B_480p_LongLive_diffusers")
    (folder / "stream.json").unlink()
    source = resolve("someone/SANA-Video_2B_480p_LongLive_diffusers")
    assert source.folder == folder
    assert kind_of(source) is Kind.LONGSANA
    loaded = load_checkpoint("someone/SANA-Video_2B_480p_LongLive_diffusers@main")
    assert (loaded.kind, loaded.config) == (Kind.LONGSANA, StreamConfig().endless())


def test_an_adapter_may_be_a_hub_id(hub: Path, tmp_path: Path) -> None:
    folder = cached(hub, save_tiny_lora(tmp_path / "ink"), "someone/ink")
    (option,) = located(["ink=someone/ink:0.5"])
    assert (Path(option.path), option.weight) == (folder / "pytorch_lora_weights.safetensors", 0.5)
    with pytest.raises(
        AdapterError, match="--lora glow: someone/glow: no such folder, and not to be had from"
    ) as told:
        located(["glow=someone/glow"])
    assert "\n" not in str(told.value)
    with pytest.raises(AdapterError, match="--lora ink: there are two of that name"):
        located(["ink=someone/ink", "ink=someone/ink:0"])


def test_an_id_that_is_nowhere_is_one_line(hub: Path) -> None:
    for name in ("someone/nothing", "someone/nothing@v1"):
        with pytest.raises(CheckpointError, match=f"^{name}: no such folder") as caught:
            resolve(name)
        assert "\n" not in str(caught.value)


def test_paths_are_told_from_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    assert is_hub_id("Efficient-Large-Model/SANA-Video_2B_480p")
    for path in ("models/nothing", "/models/nothing", "./some/thing", "a/b/c", "name", "../a"):
        assert not is_hub_id(path), path
    with pytest.raises(CheckpointError, match="models/nothing: no such folder"):
        resolve("models/nothing")


def test_names_are_short() -> None:
    assert display_name("owner/name@v2") == "name"
    assert display_name("/somewhere/net.pth") == "net"
    assert display_name("/somewhere/starter") == "starter"


def test_several_pth_must_be_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"checkpoints/{name}.pth").touch()
    with pytest.raises(CheckpointError, match=r"several \.pth files, name one: a\.pth, b\.pth"):
        resolve(tmp_path)
    (tmp_path / "checkpoints/b.pth").unlink()
    assert resolve(tmp_path).weights == tmp_path / "checkpoints/a.pth"


def test_what_a_trainer_calls_pt_is_found_where_there_is_no_pth(hub: Path, tmp_path: Path) -> None:
    name = "checkpoints/LongSANA_2B_480p_self_forcing.pt"
    local = tmp_path / "local"
    (local / "checkpoints").mkdir(parents=True)
    (local / name).touch()
    folder = cached(hub, local, "someone/LongSANA_2B_480p_self_forcing")
    assert resolve(local).weights == local / name
    found = resolve("someone/LongSANA_2B_480p_self_forcing")
    assert (found.weights, kind_of(found)) == (folder / name, Kind.LONGSANA)
    assert any(fnmatch(name, pattern) for pattern in HUB_FILES), "it is downloaded, too"


@pytest.fixture
def causal(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny checkpoint under the class names of diffusers PR 12723."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "causal"))
    (folder / "stream.json").unlink()
    for file, name in (
        ("model_index.json", "LongSanaVideoPipeline"),
        ("transformer/config.json", "SanaVideoCausalTransformer3DModel"),
    ):
        content = json.loads((folder / file).read_text()) | {"_class_name": name}
        (folder / file).write_text(json.dumps(content))
    return folder


def test_classes_that_diffusers_lacks_load_as_longsana(causal: Path, tiny_model: Path) -> None:
    loaded = load_checkpoint(causal)
    assert (loaded.kind, loaded.config) == (Kind.LONGSANA, StreamConfig().endless())
    config = loaded.transformer.config
    assert (config.cross_attention_norm_eps, config.linear_attention_eps) == (1e-6, 1e-8)
    plain = load_transformer(tiny_model).config
    assert (plain.cross_attention_norm_eps, plain.linear_attention_eps) == (1e-5, 1e-15)


def test_either_class_name_is_enough_and_own_values_win(causal: Path) -> None:
    file = causal / "transformer/config.json"
    own = json.loads(file.read_text()) | {
        "_class_name": "SanaVideoTransformer3DModel",
        "cross_attention_norm_eps": 1e-4,
    }
    file.write_text(json.dumps(own))
    assert kind_of(resolve(causal)) is Kind.LONGSANA
    config = load_transformer(causal).config
    assert (config.cross_attention_norm_eps, config.linear_attention_eps) == (1e-4, 1e-8)


def test_converting_a_causal_folder_names_diffusers_own_classes(causal: Path, tmp_path: Path) -> None:
    folder = convert(causal, tmp_path / "plain")
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "SanaVideoPipeline"
    config = json.loads((folder / "transformer/config.json").read_text())
    assert (config["_class_name"], config["linear_attention_eps"]) == ("SanaVideoTransformer3DModel", 1e-8)
    loaded = load_checkpoint(folder)
    assert (loaded.kind, loaded.config) == (Kind.STREAM, StreamConfig().endless())
    with pytest.raises(CheckpointError, match="num_attention_heads is 2 there, not 4"):
        convert(causal, tmp_path / "other", num_attention_heads=4)


@pytest.mark.parametrize(
    ("name", "message"),
    [("AutoencoderKLLTX2Video", "whole clips only"), ("AutoencoderDC", "single pictures"), ("UNet", "is none of")],
)
def test_a_vae_that_cannot_stream_is_said(causal: Path, name: str, message: str) -> None:
    (causal / "vae/config.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(causal)


def test_parts_missing_of_a_folder_are_named_together(causal: Path) -> None:
    shutil.rmtree(causal / "text_encoder")
    shutil.rmtree(causal / "tokenizer")
    with pytest.raises(CheckpointError, match="the folders text_encoder, tokenizer are missing"):
        load_checkpoint(causal)
    with pytest.raises(CheckpointError, match="the folders transformer, vae"):
        load_checkpoint(causal / "transformer")
    assert load_transformer(causal / "transformer").config.num_layers == 2
