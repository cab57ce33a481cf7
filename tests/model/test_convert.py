"""NVlabs' `.pth`: same numbers as the authors' arithmetic, and as diffusers' class after conversion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from authors import authors_pass, authors_stream
from diffusers import SanaVideoPipeline
from diffusers import SanaVideoTransformer3DModel as DiffusersTransformer
from pth import pth_shapes, random_pth
from reference import make_noise, make_text
from safetensors.torch import load_file
from torch import Tensor

from model.checkpoint import CheckpointError, convert, load_checkpoint, load_transformer, weights_hash
from model.pth import AUTHORS_EPS, IGNORED, config_of
from model.source import resolve
from model.stream import LatentStream
from model.stream_config import StreamConfig
from model.weights import Kind, kind_of

HEADS = 2
FORMS: dict[str, dict[str, Any]] = {
    "480p": {"channels": 16},
    "720p": {"channels": 128, "patch": (1, 1, 1)},
    "DC-AE": {"channels": 32, "patch": (1, 1, 1), "hidden": 144},
}


def save_pth(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, file)
    return file


def random_block(weights: dict[str, Tensor], frames: int = 3) -> Tensor:
    channels = weights["x_embedder.proj.weight"].shape[1]
    return torch.randn(1, channels, frames, 4, 6, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_computes_what_its_authors_do(form: str, tmp_path: Path) -> None:
    weights = random_pth(**FORMS[form])
    file = save_pth(tmp_path / "net.pth", {"state_dict": weights})
    latents, text = random_block(weights), make_text(1)
    theirs, _ = authors_pass(weights, HEADS, latents, 700, text)
    convert(file, tmp_path / "folder", num_attention_heads=HEADS)
    for net in (
        load_transformer(file, dtype=torch.float32, num_attention_heads=HEADS),
        load_transformer(tmp_path / "folder", dtype=torch.float32),
    ):
        assert (net.config.cross_attention_norm_eps, net.config.linear_attention_eps) == (1e-6, 1e-8)
        (ours,) = net(latents, text[0], torch.tensor([700]), encoder_attention_mask=text[1], return_dict=False)
        assert theirs.std() > 0.1
        assert torch.allclose(ours, theirs, atol=2e-5, rtol=0)


def test_a_converted_longsana_streams_as_its_authors_loop_does(tmp_path: Path) -> None:
    weights = random_pth(channels=4)
    file = save_pth(tmp_path / "SANA_Video_2B_480p_LongLive.pth", {"state_dict": weights})
    convert(file, tmp_path / "folder", num_attention_heads=HEADS)
    text, noise, lengths = make_text(5), make_noise(2, 4, 4, 6), (3, 2, 2, 2)
    theirs = torch.cat(authors_stream(weights, HEADS, lengths, text, noise), 2)
    net = load_transformer(tmp_path / "folder", dtype=torch.float32)
    stream = LatentStream(
        net, text=text[0], text_mask=text[1], height=4, width=6, block=2, first_block=3, noise=noise
    )
    ours = torch.cat([next(stream) for _ in lengths], 2)
    assert theirs.abs().max() > 2
    assert torch.allclose(ours, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_diffusers_opens_what_was_converted(form: str, tmp_path: Path) -> None:
    weights = random_pth(**FORMS[form])
    file = save_pth(tmp_path / "net.pth", {"state_dict": weights})
    convert(file, tmp_path / "folder", num_attention_heads=HEADS)
    net, found = DiffusersTransformer.from_pretrained(tmp_path / "folder/transformer", output_loading_info=True)
    assert not any(found[f"{what}_keys"] for what in ("missing", "unexpected", "mismatched"))
    latents, text = random_block(weights), make_text(1)
    theirs, _ = authors_pass(weights, HEADS, latents, 700, text)
    with torch.no_grad():
        (opened,) = net(latents, text[0], torch.tensor([700]), encoder_attention_mask=text[1], return_dict=False)
    # diffusers' own eps differ from the authors'.
    assert torch.allclose(opened, theirs, atol=2e-4, rtol=0)


def test_the_config_comes_from_the_shapes(tmp_path: Path) -> None:
    weights = random_pth(width=224, layers=3, channels=128, patch=(1, 1, 1), captions=40, hidden=672)
    config = load_transformer(save_pth(tmp_path / "net.pth", weights)).config
    assert (config.num_attention_heads, config.attention_head_dim, config.num_layers) == (2, 112, 3)
    assert (config.in_channels, config.out_channels, tuple(config.patch_size)) == (128, 128, (1, 1, 1))
    assert (config.caption_channels, config.cross_attention_dim, config.mlp_ratio) == (40, 224, 3)
    assert (config.qk_norm, config.attention_bias, config.sample_size) == ("rms_norm_across_heads", False, 22)


def test_the_released_480p_sizes_give_the_released_config() -> None:
    form = {"width": 2240, "layers": 20, "channels": 16, "captions": 2304, "hidden": 6720}
    weights = {name: torch.empty(shape, device="meta") for name, shape in pth_shapes(**form).items()}
    config = config_of({name: value for name, value in weights.items() if name not in IGNORED})
    with torch.device("meta"):
        theirs = DiffusersTransformer(**{key: value for key, value in config.items() if key not in AUTHORS_EPS})
    # What the authors' own converter writes down for it.
    released = {
        "num_attention_heads": 20,
        "attention_head_dim": 112,
        "num_layers": 20,
        "cross_attention_dim": 2240,
        "caption_channels": 2304,
        "mlp_ratio": 3.0,
        "attention_bias": False,
        "sample_size": 30,
        "patch_size": (1, 2, 2),
        "qk_norm": "rms_norm_across_heads",
    }
    assert {key: theirs.config[key] for key in released} == released
    assert sum(value.numel() for value in theirs.parameters()) == 2_056_862_144


@pytest.mark.parametrize("hidden", [1, 47, 49, 113, 119, 121, 127])
def test_any_feed_forward_width_survives(hidden: int, tmp_path: Path) -> None:
    net = load_transformer(
        save_pth(tmp_path / "net.pth", random_pth(hidden=hidden, layers=1)), num_attention_heads=HEADS
    )
    assert net.transformer_blocks[0].ff.conv_depth.weight.shape[0] == 2 * hidden


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {"state_dict": w},
        lambda w: w,
        lambda w: {"generator": {f"model.{k}": v for k, v in w.items()}, "step": 3},
        lambda w: {"generator": {"state_dict": w}, "critic": {}},
    ],
)
def test_every_layout_gives_the_same_tensors(wrap: Any, tmp_path: Path) -> None:
    weights = random_pth()
    first = load_transformer(save_pth(tmp_path / "a.pth", {"state_dict": weights}), num_attention_heads=HEADS)
    other = load_transformer(save_pth(tmp_path / "b.pth", wrap(weights)), num_attention_heads=HEADS)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def edited(weights: dict[str, Tensor], **changes: Any) -> dict[str, Tensor]:
    result = dict(weights)
    for name, value in changes.items():
        result.pop(name, None)
        if value is not None:
            result[name] = value
    return result


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_embedder.proj.weight": None}, r"x_embedder\.proj\.weight is missing"),
        ({"x_embedder.proj.weight": torch.zeros(48, 4, 2, 2)}, r"x_embedder\.proj\.weight has shape \(48, 4, 2, 2\)"),
        ({"t_block.1.bias": None}, r"t_block\.1\.bias is missing"),
        (
            {"blocks.1.attn.qkv.weight": torch.zeros(96, 48)},
            r"blocks\.1\.attn\.qkv\.weight has shape \(96, 48\), not",
        ),
        ({"blocks.1.mlp.t_conv.weight": None}, r"blocks\.1\.mlp\.t_conv\.weight is missing"),
        ({"blocks.0.attn.beta.weight": torch.zeros(2)}, r"unexpected parameter blocks\.0\.attn\.beta\.weight"),
        ({"blocks.0.scale_shift_table": torch.zeros(())}, r"blocks\.0\.scale_shift_table has shape \(\)"),
    ],
)
def test_a_wrong_parameter_is_named_by_its_own_name(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = save_pth(tmp_path / "net.pth", {"state_dict": edited(random_pth(), **changes)})
    with pytest.raises(CheckpointError, match=message) as caught:
        load_transformer(file, num_attention_heads=HEADS)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_damaged_and_foreign_files_are_refused_in_a_line(tmp_path: Path) -> None:
    whole = save_pth(tmp_path / "net.pth", {"state_dict": random_pth()})
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole.read_bytes()[:-2000])
    text = tmp_path / "text.pth"
    text.write_text("version https://git-lfs.github.com/spec/v1")
    foreign = save_pth(tmp_path / "foreign.pth", {"state_dict": {"a.b": torch.zeros(2)}})
    number = save_pth(tmp_path / "number.pth", {"state_dict": {"x": 3}})
    bare = save_pth(tmp_path / "bare.pth", torch.zeros(3))
    empty = tmp_path / "empty.pth"
    empty.touch()
    # Opcodes of a pickle that pop what isn't there, or end inside a number.
    opcodes = [tmp_path / "pops.pth", tmp_path / "ends.pth"]
    for file, content in zip(opcodes, (b"0.", b"\x80\x02J\x01"), strict=True):
        file.write_bytes(content)
    for file in (cut, text, foreign, number, bare, empty, *opcodes):
        with pytest.raises(CheckpointError) as caught:
            load_transformer(file)
        assert str(caught.value).startswith(f"{file}: "), file
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)
        assert len(str(caught.value)) < len(str(file)) + 120
        assert not str(caught.value).endswith(": ")
    with pytest.raises(CheckpointError, match="neither"):
        resolve(save_pth(tmp_path / "net.zip", {}))


class Payload:
    """Unpickling it would write a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


def test_a_file_that_would_run_code_is_refused_unrun(tmp_path: Path) -> None:
    for legacy in (False, True):
        file = tmp_path / f"evil{legacy}.pth"
        torch.save(
            {"state_dict": random_pth(), "x": Payload(tmp_path / "ran")},
            file,
            _use_new_zipfile_serialization=not legacy,
        )
        with pytest.raises(CheckpointError, match="only tensors are loaded"):
            load_transformer(file)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("heads", "message"), [(None, "give num_attention_heads"), (5, "num_attention_heads 5"), (0, "heads 0")]
)
def test_heads_that_do_not_fit_are_refused(heads: int | None, message: str, tmp_path: Path) -> None:
    file = save_pth(tmp_path / "net.pth", random_pth())
    with pytest.raises(CheckpointError, match=message):
        convert(file, tmp_path / "folder", num_attention_heads=heads)
    assert not (tmp_path / "folder").exists()


@pytest.fixture
def repository(tiny_model: Path, tmp_path: Path) -> Path:
    """NVlabs' layout: `checkpoints/X.pth`, and the other parts of the tiny checkpoint."""
    folder = tmp_path / "Sana-Video_LongLive"
    for part in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(tiny_model / part, folder / part)
    # Two heads of 112, so that the config needs no help.
    weights = random_pth(width=224, channels=16, captions=32, hidden=224)
    save_pth(folder / "checkpoints/net.pth", {"generator": {f"model.{k}": v for k, v in weights.items()}})
    return folder


def test_a_pth_with_its_parts_loads_whole_and_converts_whole(repository: Path, tmp_path: Path) -> None:
    loaded = [load_checkpoint(path) for path in (repository, repository / "checkpoints/net.pth")]
    assert loaded[0].weights_hash == loaded[1].weights_hash == weights_hash(repository)
    assert loaded[0].kind is Kind.LONGSANA
    assert loaded[0].config == StreamConfig().endless()
    target = tmp_path / "converted"
    target.mkdir()
    convert(repository, target)
    again = load_checkpoint(target)
    assert again.config == StreamConfig().endless()
    assert again.transformer.config.linear_attention_eps == 1e-8
    pipeline = SanaVideoPipeline.from_pretrained(target)
    assert type(pipeline.transformer) is DiffusersTransformer
    assert pipeline.scheduler.config.shift == 7
    with pytest.raises(CheckpointError, match="is there already"):
        convert(repository, target)


def test_missing_parts_of_a_pth_are_named(repository: Path) -> None:
    shutil.rmtree(repository / "vae")
    shutil.rmtree(repository / "tokenizer")
    with pytest.raises(CheckpointError, match=r"net\.pth: the folders vae, tokenizer are missing beside it"):
        load_checkpoint(repository)


def test_a_clip_checkpoint_is_known_and_converts_with_its_scheduler(tmp_path: Path) -> None:
    file = save_pth(tmp_path / "SANA_Video_2B_480p.pth", {"state_dict": random_pth(width=224)})
    assert kind_of(resolve(file)) is Kind.CLIP
    folder = convert(file, tmp_path / "folder")
    assert kind_of(resolve(folder)) is Kind.CLIP
    scheduler = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    assert (scheduler["_class_name"], scheduler["flow_shift"]) == ("DPMSolverMultistepScheduler", 8.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SANA_Video_2B_480p.pth", "folder"]


def test_the_weights_keep_their_numbers_and_dtype(tmp_path: Path) -> None:
    weights = {name: value.bfloat16() for name, value in random_pth(width=224).items()}
    folder = convert(save_pth(tmp_path / "net.pth", weights), tmp_path / "folder")
    saved = load_file(folder / "transformer/diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.bfloat16}
    joined = torch.cat([saved[f"transformer_blocks.1.attn1.to_{name}.weight"] for name in "qkv"])
    assert torch.equal(joined, weights["blocks.1.attn.qkv.weight"])
    point = saved["transformer_blocks.0.ff.conv_point.weight"]
    assert torch.equal(point, weights["blocks.0.mlp.point_conv.conv.weight"])
