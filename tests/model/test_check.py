"""`streamer check` and `streamer convert`, as the command line calls them."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest
import torch
from pth import random_pth
from tiny_lora import save_tiny_lora

from model.checkpoint import CheckpointError, load_checkpoint
from model.cli import check, convert


def run(command: object, *words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)  # type: ignore[attr-defined]
    return command.run(parser.parse_args(words))  # type: ignore[attr-defined]


def save(file: Path, **form: object) -> Path:
    weights = random_pth(width=224, **form)  # type: ignore[arg-type]
    torch.save({"generator": {f"model.{name}": value for name, value in weights.items()}}, file)
    return file


def lines_of(text: str) -> dict[str, str]:
    pairs = [(line[:13].strip(), line[14:]) for line in text.splitlines()]
    return {key: value for key, value in pairs if key}


def test_a_whole_checkpoint_is_run_and_described(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(check, "--model", str(tiny_model), "--dtype", "fp32") == 0
    out, err = capsys.readouterr()
    said = lines_of(out)
    assert err == ""
    assert said["found"] == f"{tiny_model}: diffusers form"
    assert said["kind"] == "streams as its stream.json says"
    count = sum(value.numel() for value in torch.nn.ParameterList(_parameters(tiny_model)))
    assert said["transformer"] == f"{count:,} parameters, float32, on cpu"
    assert said["size"] == "64x64, latents 8x8, 3 frames = 48 tokens"
    assert said["block"].startswith("2 passes in ")
    assert said["latents"].startswith("(1, 16, 3, 8, 8), from ")
    assert said["pictures"].startswith("9, decoded in ")
    assert float(said["speed"].split()[0]) > 0
    assert said["memory"].endswith("GiB of this process")


def test_a_block_is_run_under_adapters(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_tiny_lora(tmp_path / "ink")
    words = ("--model", str(tiny_model), "--dtype", "fp32")
    assert run(check, *words, "--lora", f"ink={folder}:0.5") == 0
    said = lines_of(capsys.readouterr().out)
    assert said["lora"].startswith("ink at 0.5: rank 2, 8 layers, 0.0 MiB, SHA-256 ")
    assert run(check, *words) == 0
    assert said["latents"] != lines_of(capsys.readouterr().out)["latents"]
    for option, message in [
        (f"ink={folder}:9", f"--lora ink={folder}:9: the weight must be -4 to 4"),
        (f"ink={tmp_path}", f"--lora ink: {tmp_path}: no .safetensors in it, and nothing else is read"),
    ]:
        assert run(check, *words, "--lora", option) == 2
        assert capsys.readouterr().err == f"streamer check: {message}\n"


def _parameters(folder: Path) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return list(load_file(folder / "transformer/diffusion_pytorch_model.safetensors").values())


def test_a_lone_longsana_pth_runs_on_random_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path / "net.pth", channels=16)
    size = ("--height", "32", "--width", "48", "--latent-frames", "2")
    assert run(check, "--model", str(file), *size) == 0
    said = lines_of(capsys.readouterr().out)
    assert said["kind"].startswith("LongSANA")
    assert said["form"] == "480p, Wan 2.1 VAE"
    assert said["vae"] == "missing: no pictures"
    assert said["text encoder"].startswith("missing (text_encoder, tokenizer)")
    assert said["block"].startswith("4 passes in ")
    assert said["latents"].startswith("(1, 16, 2, 4, 6), from ")
    assert "decoding not" in said["speed"]


@pytest.mark.parametrize(("channels", "form"), [(128, "720p, LTX-2 VAE"), (32, "DC-AE")])
def test_clip_forms_run_one_pass(
    channels: int, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.pth"
    torch.save({"state_dict": random_pth(width=224, channels=channels, patch=(1, 1, 1))}, file)
    assert run(check, "--model", str(file), "--height", "64", "--width", "96", "--latent-frames", "2") == 0
    said = lines_of(capsys.readouterr().out)
    assert said["kind"].startswith("bidirectional")
    assert said["form"].startswith(form)
    assert said["pass"].endswith("takes 100")
    assert said["latents"].startswith(f"(1, {channels}, 2, 2, 3), from ")
    assert "speed" not in said


def test_a_bidirectional_checkpoint_says_how_it_streams(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "SANA-Video"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("stream.json"))
    size = ("--height", "32", "--width", "32", "--latent-frames", "2")
    assert run(check, "--model", str(folder), *size) == 0
    said = lines_of(capsys.readouterr().out)
    assert said["streaming"] == "chained clips: each begins with the last picture of the one before"
    assert " s a clip, " in said["speed"]


def test_a_720p_checkpoint_makes_a_step_of_a_tiny_clip(tiny_720p: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(check, "--model", str(tiny_720p), "--dtype", "fp32") == 0
    out, err = capsys.readouterr()
    said = lines_of(out)
    assert err == ""
    assert said["form"].startswith("720p, LTX-2 VAE; 8 pictures a latent frame, not causal")
    assert said["vae"].endswith("float32, 32x32 pixels, 8 pictures a latent, decodes whole clips")
    assert said["size"] == "128x224, latents 4x7, 2 frames = 56 tokens"
    assert said["pictures"].startswith("9, decoded in ")
    assert said["streaming"].startswith("none: its VAE (AutoencoderKLLTX2Video) is not causal")
    assert said["whole clip"].startswith("704x1280, 81 pictures: decoding takes ")
    assert "--height 704 --width 1280 --latent-frames 11" in out


@pytest.mark.parametrize("vae", ["none", "AutoencoderDC"])
def test_a_dc_ae_checkpoint_is_a_transformer_only(
    vae: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(tiny_model / part, tmp_path / part)
    if vae != "none":
        (tmp_path / "vae").mkdir()
        (tmp_path / "vae/config.json").write_text(f'{{"_class_name": "{vae}"}}')
    file = tmp_path / "net.pth"
    torch.save({"state_dict": random_pth(width=224, channels=32, captions=32, patch=(1, 1, 1))}, file)
    assert run(check, "--model", str(file), "--height", "64", "--width", "96", "--latent-frames", "2") == 0
    said = lines_of(capsys.readouterr().out)
    assert said["form"] == "DC-AE, an image VAE; transformer only"
    assert said["vae"].startswith(
        "missing" if vae == "none" else f"{tmp_path / 'vae'}: an AutoencoderDC makes single"
    )
    assert run(convert, str(file), str(tmp_path / "folder")) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'folder'}\n"
    assert err.startswith("streamer convert: DC-AE form (32 latent channels), transformer only: ")
    for source in (file, tmp_path / "folder"):
        with pytest.raises(
            CheckpointError, match=r"VAE is missing: DC-AE form \(32 latent channels\), transformer only"
        ):
            load_checkpoint(source)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--height", "100"), "height 100: must be a multiple of 16"),
        (("--height", "0"), "height: 0 is not allowed, must be 16 to 8192"),
        (("--latent-frames", "0"), "first_block_latent_frames: 0 is not allowed"),
        (("--device", "nowhere"), "--device nowhere: "),
        (("--heads", "7000"), "num_attention_heads 7000"),
    ],
)
def test_bad_options_are_one_line_and_status_2(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(tmp_path / "net.pth", channels=16)
    assert run(check, "--model", str(file), *words) == 2
    err = capsys.readouterr().err
    assert err.startswith("streamer check: ")
    assert message in err
    assert err.count("\n") == 1


def test_numbers_that_are_not_finite_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = random_pth(width=224, channels=16)
    weights["final_layer.linear.bias"][0] = torch.nan
    torch.save({"state_dict": weights}, tmp_path / "longlive.pth")
    size = ("--height", "32", "--width", "48", "--latent-frames", "2")
    assert run(check, "--model", str(tmp_path / "longlive.pth"), *size) == 2
    assert "not finite" in capsys.readouterr().err


def test_a_text_encoder_that_does_not_fit_is_said(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(tiny_model / part, tmp_path / part)
    file = save(tmp_path / "net.pth", channels=16)
    assert run(check, "--model", str(file)) == 2
    assert "the text encoder is 32 wide, the transformer 24" in capsys.readouterr().err


def test_convert_prints_where_and_refuses_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path / "net.pth", channels=16)
    assert run(convert, str(file), str(tmp_path / "folder"), "--heads", "4") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'folder'}\n"
    assert run(convert, str(file), str(tmp_path / "folder")) == 2
    assert capsys.readouterr().err == f"streamer convert: {tmp_path / 'folder'}: is there already\n"
    assert run(convert, str(tmp_path / "nowhere"), str(tmp_path / "other")) == 2
    assert capsys.readouterr().err == f"streamer convert: {tmp_path / 'nowhere'}: no such folder\n"
