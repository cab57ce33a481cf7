"""The pipelines against diffusers' own, with diffusers' own transformer: same call, same noise, same latents."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image
from pth import random_pth
from torch import Tensor

from model import SanaImageToVideoPipeline, SanaVideoPipeline
from model.checkpoint import CheckpointError, load_checkpoint, load_config
from model.source import resolve
from model.stream import LatentStream
from model.transformer import SanaVideoTransformer3DModel

SCHEDULERS = {
    "dpm": diffusers.DPMSolverMultistepScheduler(
        flow_shift=8.0, use_flow_sigmas=True, prediction_type="flow_prediction"
    ),
    "euler": diffusers.FlowMatchEulerDiscreteScheduler(shift=8.0),
}
KINDS = {
    "t2v": (SanaVideoPipeline, diffusers.SanaVideoPipeline),
    "i2v": (SanaImageToVideoPipeline, diffusers.SanaImageToVideoPipeline),
}
CHEAP: dict[str, Any] = {
    "num_inference_steps": 3,
    "guidance_scale": 4.0,
    "height": 64,
    "width": 96,
    "frames": 9,
    "output_type": "latent",
    "complex_human_instruction": None,
    "max_sequence_length": 24,
    "use_resolution_binning": False,
}
PICTURE = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
TWO = ["the sea", "a red sailboat on the sea at sunset"]


@pytest.fixture(scope="module")
def pipelines(tiny_model: Path) -> dict[str, tuple[Any, Any]]:
    """Ours and diffusers' of each kind, over the same weights; ours makes whole clips."""
    made = {}
    for name, (ours, theirs) in KINDS.items():
        reference = theirs.from_pretrained(tiny_model)
        assert type(reference.transformer) is diffusers.SanaVideoTransformer3DModel
        own = ours.from_pretrained(tiny_model)
        assert type(own.transformer) is SanaVideoTransformer3DModel
        own.stream_config = None
        for pipeline in (own, reference):
            pipeline.set_progress_bar_config(disable=True)
        made[name] = (own, reference)
    return made


@pytest.fixture
def streaming(tiny_model: Path, pipelines: dict[str, tuple[Any, Any]]) -> SanaVideoPipeline:
    pipeline = SanaVideoPipeline(**pipelines["t2v"][0].components)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.stream_config = load_checkpoint(tiny_model).config
    return pipeline


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def call(pipeline: Any, prompt: Any = "the sea", **changed: Any) -> Any:
    if "Image" in type(pipeline).__name__:
        changed.setdefault("image", PICTURE)
    return pipeline(prompt=prompt, **({"generator": seeded()} | CHEAP | changed)).frames


def both(
    pipelines: dict[str, tuple[Any, Any]], name: str = "t2v", scheduler: str = "euler", **changed: Any
) -> Tensor:
    """The latents of ours, checked against diffusers'."""
    results = []
    for pipeline in pipelines[name]:
        pipeline.scheduler = SCHEDULERS[scheduler]
        fresh = {k: v() if inspect.isfunction(v) and k != "callback_on_step_end" else v for k, v in changed.items()}
        results.append(call(pipeline, **fresh))
    ours, theirs = results
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    return ours


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", KINDS)
def test_latents_equal_diffusers(pipelines: Any, name: str, scheduler: str) -> None:
    latents = both(pipelines, name, scheduler, prompt="the sea", negative_prompt="snow")
    assert latents.shape == (1, 16, 3, 8, 12)


@pytest.mark.parametrize("name", KINDS)
def test_the_signature_is_diffusers(name: str) -> None:
    ours, theirs = KINDS[name]
    assert inspect.signature(ours.__call__) == inspect.signature(theirs.__call__)
    assert inspect.signature(ours.encode_prompt) == inspect.signature(theirs.encode_prompt)


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": TWO, "generator": lambda: [seeded(1), seeded(2)]},
        {"prompt": "the sea", "num_videos_per_prompt": 2},
        {"prompt": "The SEA <person> http://a.example", "clean_caption": True},
        {"prompt": TWO[1], "guidance_scale": 1.0},
        {"prompt": TWO[1], "complex_human_instruction": ["Say more:", "User Prompt: "], "max_sequence_length": 12},
        {"timesteps": [900, 500, 100], "num_inference_steps": 3},
        {"sigmas": [0.9, 0.5, 0.1]},
        {"latents": lambda: torch.randn(1, 16, 3, 8, 12, generator=seeded()), "eta": 0.5},
        {"attention_kwargs": {"scale": 0.5}},
    ],
    ids=lambda changed: next(reversed(changed)),
)
def test_arguments_do_what_they_do_in_diffusers(pipelines: Any, changed: dict[str, Any]) -> None:
    both(pipelines, **({"prompt": "the sea"} | changed))


def test_embeddings_in_place_of_prompts(pipelines: Any) -> None:
    ours = pipelines["t2v"][0]
    text, mask, negative, negative_mask = ours.encode_prompt(
        "the sea", negative_prompt="snow", max_sequence_length=24, lora_scale=0.5
    )
    embeds = {"prompt_embeds": text, "prompt_attention_mask": mask}
    aside = {"negative_prompt_embeds": negative, "negative_prompt_attention_mask": negative_mask}
    expected = both(pipelines, prompt="the sea", negative_prompt="snow")
    assert torch.equal(call(ours, None, **embeds, **aside), expected)  # diffusers wants negative_prompt=None said
    assert torch.equal(call(ours, None, negative_prompt="snow", **embeds), expected)
    twice = call(ours, None, **embeds, **aside, num_videos_per_prompt=2)
    assert twice.shape[0] == 2


def test_a_callback_sees_and_changes_latents(pipelines: Any) -> None:
    steps: list[int] = []

    def halve(pipeline: Any, step: int, timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        steps.append(step)
        assert tensors.keys() == {"latents", "prompt_embeds"}
        return {"latents": tensors["latents"] / 2}

    names = ["latents", "prompt_embeds"]
    changed = both(pipelines, callback_on_step_end=halve, callback_on_step_end_tensor_inputs=names)
    assert steps == [0, 1, 2] * 2
    assert not torch.equal(changed, both(pipelines))


@pytest.mark.parametrize("name", KINDS)
def test_several_videos_of_several_prompts_keep_their_own_masks(pipelines: Any, name: str) -> None:
    ours = pipelines[name][0]
    noise = torch.randn(4, 16, 3, 8, 12, generator=seeded())
    together = call(ours, TWO, num_videos_per_prompt=2, latents=noise)
    alone = [
        call(ours, prompt, latents=noise[i : i + 1])
        for i, prompt in zip(range(4), [TWO[0], TWO[0], TWO[1], TWO[1]], strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-4)


def test_given_noise_stays_as_it_was(pipelines: Any) -> None:
    noise = torch.randn(1, 16, 3, 8, 12, generator=seeded())
    before = noise.clone()
    call(pipelines["i2v"][0], latents=noise)
    assert torch.equal(noise, before)


@pytest.mark.parametrize("name", KINDS)
def test_output_types(pipelines: Any, name: str) -> None:
    ours, theirs = pipelines[name]
    small = {"num_inference_steps": 1, "guidance_scale": 1.0, "frames": 5}
    array = call(ours, output_type="np", **small)
    assert array.shape == (1, 5, 64, 96, 3)
    assert abs(array - call(theirs, output_type="np", **small)).max() < 1e-3
    assert call(ours, output_type="pt", **small).shape == (1, 5, 3, 64, 96)
    (pictures,) = call(ours, output_type="pil", **small)
    assert [picture.size for picture in pictures] == [(96, 64)] * 5
    image = {"image": Image.new("RGB", (200, 100), "red")} if name == "i2v" else {}
    (video,) = ours(prompt="the sea", **image, **(CHEAP | small | {"output_type": "np", "return_dict": False}))
    assert video.shape == (1, 5, 64, 96, 3)


def test_binning_goes_by_way_of_a_published_size(pipelines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pipelines["t2v"]
    for pipeline in (ours, theirs):
        config = pipeline.transformer.config
        monkeypatch.setattr(pipeline.transformer, "_internal_dict", type(config)(config | {"sample_size": 22}))
    monkeypatch.setattr("diffusers.pipelines.sana_video.pipeline_sana_video.ASPECT_RATIO_720_BIN", {"1.0": [64, 96]})
    changed = {"use_resolution_binning": True, "height": 48, "width": 48, "num_inference_steps": 1, "frames": 1}
    assert both(pipelines, **changed).shape == (1, 16, 1, 8, 12)
    assert call(ours, output_type="np", **changed).shape == (1, 1, 48, 48, 3)


def test_sizes_of_whole_patches_will_do(pipelines: Any) -> None:
    ours = pipelines["t2v"][0]
    small = {"num_inference_steps": 1, "frames": 1}
    assert call(ours, height=16, width=48, use_resolution_binning=True, **small).shape == (1, 16, 1, 2, 6)
    with pytest.raises(ValueError, match=r"^height: 40 .*multiple of 16"):
        call(ours, height=40, **small)


@pytest.mark.parametrize(
    ("scheduler", "field", "value", "said"),
    [
        ("dpm", "sigmas", [0.9, 0.1], "DPMSolverMultistepScheduler here takes num_inference_steps only"),
        ("dpm", "timesteps", [900, 100], "DPMSolverMultistepScheduler here takes num_inference_steps only"),
        ("euler", "frames", 0, "at least 1"),
        ("euler", "num_inference_steps", 0, "at least 1"),
        ("euler", "num_videos_per_prompt", 0, "at least 1"),
        ("euler", "output_type", "mp4", "one of pil, np, pt, latent"),
        ("euler", "negative_prompt", ["a", "b"], "2 for 1 prompts"),
    ],
)
def test_what_cannot_be_done_is_named(pipelines: Any, scheduler: str, field: str, value: Any, said: str) -> None:
    ours = pipelines["t2v"][0]
    ours.scheduler = SCHEDULERS[scheduler]
    with pytest.raises(ValueError, match=f"^{field}: .*{said}"):
        call(ours, **{field: value})


@pytest.mark.parametrize("image", [None, torch.rand(2, 3, 64, 96)])
def test_one_image_a_call(pipelines: Any, image: Any) -> None:
    with pytest.raises(ValueError, match=r"^image: .*one picture"):
        call(pipelines["i2v"][0], image=image)


def test_an_image_vae_makes_no_video(pipelines: Any) -> None:
    parts = dict(pipelines["t2v"][0].components)
    blocks = {
        "encoder_block_types": "ResBlock",
        "decoder_block_types": "ResBlock",
        "encoder_block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8),
        "encoder_layers_per_block": (1, 1),
        "decoder_layers_per_block": (1, 1),
        "encoder_qkv_multiscales": ((), ()),
        "decoder_qkv_multiscales": ((), ()),
    }
    with pytest.raises(ValueError, match=r"^vae: .*AutoencoderDC makes single pictures"):
        SanaVideoPipeline(**(parts | {"vae": diffusers.AutoencoderDC(latent_channels=16, **blocks)}))
    without = SanaVideoPipeline(**(parts | {"vae": None}))
    with pytest.raises(ValueError, match=r"^output_type: .*must be latent"):
        call(without, output_type="pil")
    assert call(without).shape == (1, 16, 3, 8, 12)


# -- checkpoints that stream -----------------------------------------------------------------------------------


def stream_of(checkpoint: Any, count: int, **options: Any) -> Tensor:
    text, mask = checkpoint.text.encode("the sea")
    size = {"height": 8, "width": 8, "config": checkpoint.config}
    stream = LatentStream(checkpoint.transformer, text=text, text_mask=mask, **size, **options)
    return torch.cat([next(stream) for _ in range(count)], dim=2)


def test_a_streaming_checkpoint_makes_what_a_stream_shows(tiny_model: Path, streaming: SanaVideoPipeline) -> None:
    checkpoint = load_checkpoint(tiny_model, dtype=torch.float32)
    latents = streaming("the sea", frames=17, output_type="latent", generator=seeded(3)).frames
    torch.testing.assert_close(latents, stream_of(checkpoint, 2, seed=3)[:, :, :5], rtol=0, atol=1e-5)
    pictures = streaming("the sea", frames=17, output_type="np", generator=seeded(3)).frames
    assert pictures.shape == (1, 17, 64, 64, 3)


def test_seeds_of_a_streaming_call(streaming: SanaVideoPipeline) -> None:
    def latents(prompt: Any = "the sea", **options: Any) -> Tensor:
        return streaming(prompt, frames=1, output_type="latent", **options).frames

    generator = seeded(3)
    first, second = latents(generator=generator), latents(generator=generator)
    assert not torch.equal(first, second)
    assert torch.equal(latents(generator=seeded(3), num_videos_per_prompt=2)[:1], first)
    pair = latents(TWO, generator=[seeded(1), seeded(3)])
    assert torch.equal(latents(TWO[1], generator=seeded(3)), pair[1:])
    assert not torch.equal(latents(), latents())
    noise = torch.randn(1, 16, 1, 8, 8)
    assert not torch.equal(latents(latents=noise, generator=seeded(3)), first)
    with pytest.raises(ValueError, match=r"^generator: 1 given, must be one or 2"):
        latents(TWO, generator=[seeded()])
    with pytest.raises(ValueError, match=r"^latents: \(1, 16, 1, 8, 8\)"):
        latents(TWO, latents=noise)


def test_steps_guidance_and_callbacks_of_a_streaming_call(streaming: SanaVideoPipeline) -> None:
    seen: list[tuple[int, float]] = []

    def look(pipeline: Any, step: int, timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append((step, float(timestep)))
        return {"latents": tensors["latents"] * 0}

    options: dict[str, Any] = {"frames": 17, "output_type": "latent", "guidance_scale": 3.0}
    latents = streaming("the sea", timesteps=[1000, 600], callback_on_step_end=look, **options).frames
    assert seen == [(0, 1000), (1, 600), (2, 1000), (3, 600)]
    assert not latents.any()
    assert streaming("the sea", num_inference_steps=3, **options).frames.isfinite().all()
    with pytest.raises(ValueError, match=r"^sigmas: "):
        streaming("the sea", sigmas=[0.5])


def test_an_image_is_the_first_block_of_a_streaming_call(tiny_model: Path, pipelines: Any) -> None:
    pipeline = SanaImageToVideoPipeline(**pipelines["i2v"][0].components)
    pipeline.set_progress_bar_config(disable=True)
    checkpoint = load_checkpoint(tiny_model, dtype=torch.float32)
    pipeline.stream_config = checkpoint.config
    picture = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    image = checkpoint.vae.encode(picture)
    options: dict[str, Any] = {"prompt": "the sea", "frames": 9, "generator": seeded(3), "output_type": "latent"}
    latents = pipeline(image=picture.permute(0, 3, 1, 2) / 255, **options).frames
    expected = stream_of(checkpoint, 2, seed=3, image=image)[:, :, :3]
    torch.testing.assert_close(latents, expected, rtol=0, atol=1e-3)


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
    shutil.rmtree(tmp_path / "vae")
    assert SanaVideoPipeline.from_pretrained(tmp_path / "LongLive.pth").vae is None


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        SanaVideoPipeline.from_pretrained(tmp_path / "nothing")
