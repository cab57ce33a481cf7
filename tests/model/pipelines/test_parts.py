"""Pipelines of other forms: 720p, offloaded, with adapters, loaded and saved."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

import accelerate
import diffusers
import pytest
import torch
from calls import KINDS, SCHEDULERS, both, call
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from pth import random_pth

from model import SanaVideoPipeline
from model.checkpoint import CheckpointError, load_checkpoint, load_config
from model.source import resolve
from model.transformer import SanaVideoTransformer3DModel


@pytest.mark.parametrize("name", KINDS)
def test_the_720p_form(tiny_model: Path, pipelines: Any, name: str) -> None:
    ours, theirs = KINDS[name]
    config = pipelines[name][1].transformer.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = diffusers.AutoencoderKLLTX2Video(
            latent_channels=8,
            block_out_channels=(8, 16, 32, 64),
            decoder_block_out_channels=(8, 16, 32),
            layers_per_block=(1,) * 5,
            decoder_layers_per_block=(1,) * 4,
            decoder_causal=False,
            spatial_compression_ratio=32,
            temporal_compression_ratio=8,
        )
        net = diffusers.SanaVideoTransformer3DModel.from_config(
            config | {"in_channels": 8, "out_channels": 8, "patch_size": (1, 1, 1), "sample_size": 22}
        )
    own = SanaVideoTransformer3DModel.from_config(net.config)
    own.load_state_dict(net.state_dict())
    results = []
    for kind, transformer in ((ours, own.eval()), (theirs, net.eval())):
        parts = pipelines[name][1].components | {"vae": vae, "transformer": transformer}
        pipeline = kind(**parts)
        pipeline.set_progress_bar_config(disable=True)
        results.append(call(pipeline, frames=17, num_inference_steps=2))
    assert (results[0] - results[1]).norm() < 1e-4 * results[1].norm()
    assert results[0].shape == (1, 8, 3, 2, 3)
    own_pipeline = ours(**(parts | {"transformer": own}))
    own_pipeline.set_progress_bar_config(disable=True)
    assert call(own_pipeline, frames=9, num_inference_steps=1, output_type="np").shape == (1, 9, 64, 96, 3)


def test_memory_savers_of_diffusers(tiny_model: Path, pipelines: Any) -> None:
    expected = both(pipelines)
    offloaded = SanaVideoPipeline.from_pretrained(tiny_model)
    offloaded.set_progress_bar_config(disable=True)
    config, offloaded.stream_config = offloaded.stream_config, None
    offloaded.scheduler = SCHEDULERS["euler"]
    accelerate.cpu_offload(offloaded.transformer, execution_device=torch.device("cpu"))
    assert (call(offloaded) - expected).norm() < 1e-4 * expected.norm()
    offloaded.stream_config = config
    with pytest.raises(ValueError, match=r"^enable_sequential_cpu_offload: "):
        call(offloaded)
    results = []
    for kind in KINDS["t2v"]:
        cast = kind.from_pretrained(tiny_model, scheduler=SCHEDULERS["euler"])
        cast.set_progress_bar_config(disable=True)
        cast.stream_config = None
        cast.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
        results.append(call(cast))
    assert (results[0] - results[1]).norm() < 1e-4 * results[1].norm()
    assert not torch.equal(results[0], expected)


def test_adapters_by_the_pipelines_own_calls(tiny_model: Path, pipelines: Any, tmp_path: Path) -> None:
    theirs = diffusers.SanaVideoPipeline.from_pretrained(tiny_model, scheduler=SCHEDULERS["euler"])
    targets = ["to_q", "to_v", "conv_inverted"]  # a convolution there, a linear layer here
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs.transformer.add_adapter(
            LoraConfig(r=2, lora_alpha=2, target_modules=targets, init_lora_weights=False), "look"
        )
    layers = get_peft_model_state_dict(theirs.transformer, adapter_name="look")
    theirs.save_lora_weights(tmp_path, transformer_lora_layers=layers)
    ours = SanaVideoPipeline.from_pretrained(tiny_model, scheduler=SCHEDULERS["euler"])
    ours.load_lora_weights(tmp_path, adapter_name="look")
    for pipeline in (ours, theirs):
        pipeline.set_progress_bar_config(disable=True)
    ours.stream_config = None
    plain = both(pipelines)
    for scale in (1.0, 0.3):
        for pipeline in (ours, theirs):
            pipeline.set_adapters("look", scale)
        expected = call(theirs)
        assert (call(ours) - expected).norm() < 1e-4 * expected.norm()
        assert not torch.equal(expected, plain)
    scaled = call(theirs, attention_kwargs={"scale": 0.5})
    assert (call(ours, attention_kwargs={"scale": 0.5}) - scaled).norm() < 1e-4 * scaled.norm()
    ours.unload_lora_weights()
    assert (call(ours) - plain).norm() < 1e-4 * plain.norm()


# -- loading ---------------------------------------------------------------------------------------------------


def test_a_saved_pipeline_opens_here_and_in_diffusers(tmp_path: Path, streaming: SanaVideoPipeline) -> None:
    streaming.save_pretrained(tmp_path)
    again = SanaVideoPipeline.from_pretrained(tmp_path, dtype={"transformer": torch.bfloat16})
    assert again.stream_config == streaming.stream_config
    assert (again.transformer.dtype, again.vae.dtype) == (torch.bfloat16, torch.float32)
    theirs = diffusers.SanaVideoPipeline.from_pretrained(tmp_path)
    assert type(theirs.transformer) is diffusers.SanaVideoTransformer3DModel


def test_a_loaded_checkpoint_becomes_a_pipeline(tiny_model: Path) -> None:
    checkpoint = load_checkpoint(tiny_model)
    pipeline = SanaVideoPipeline.from_checkpoint(checkpoint)
    assert pipeline.transformer is checkpoint.transformer
    assert pipeline.stream_config == checkpoint.config


def test_forms_that_diffusers_cannot_open(tmp_path: Path, tiny_model: Path) -> None:
    for part in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(tiny_model / part, tmp_path / part)
    file = tmp_path / "SANA_Video.pth"
    torch.save({"state_dict": random_pth(width=112, channels=16, captions=32)}, file)
    pipeline = SanaVideoPipeline.from_pretrained(file)
    assert pipeline.stream_config is None
    assert type(pipeline.scheduler) is diffusers.DPMSolverMultistepScheduler
    assert call(pipeline, num_inference_steps=1).shape == (1, 16, 3, 8, 12)
    longsana = SanaVideoPipeline.from_pretrained(file.rename(tmp_path / "LongLive.pth"))
    assert longsana.longsana
    assert longsana.stream_config == load_config(resolve(tmp_path))
    prepared = longsana._prepare(inspect.signature(SanaVideoPipeline.__call__), ("the Sea",), {})
    assert "descriptions suitable for image generation" in prepared["complex_human_instruction"][0]
    assert longsana._text_preprocessing("the Sea ") == ["the Sea"]
    shutil.rmtree(tmp_path / "vae")
    assert SanaVideoPipeline.from_pretrained(tmp_path / "LongLive.pth").vae is None


def test_options_of_from_pretrained(tiny_model: Path, tmp_path: Path) -> None:
    placed = SanaVideoPipeline.from_pretrained(tiny_model, device_map="cpu", text_encoder=None, tokenizer=None)
    assert placed.transformer.device.type == "cpu"
    with pytest.raises(ValueError, match=r"^prompt: without a text encoder give prompt_embeds"):
        placed("the sea")
    with pytest.raises(CheckpointError, match="nobody/nothing: "):
        SanaVideoPipeline.from_pretrained("nobody/nothing", local_files_only=True, cache_dir=tmp_path)


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        SanaVideoPipeline.from_pretrained(tmp_path / "nothing")
