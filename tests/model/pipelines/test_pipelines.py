"""The pipelines against diffusers' own, with diffusers' own transformer: same call, same noise, same latents."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import pytest
import torch
from calls import CHEAP, KINDS, SCHEDULERS, TWO, both, call, seeded
from PIL import Image
from torch import Tensor

from model import SanaVideoPipeline


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


def test_num_frames_of_the_documentations_example(pipelines: Any) -> None:
    ours = pipelines["t2v"][0]
    options = {name: value for name, value in CHEAP.items() if name != "frames"} | {"num_inference_steps": 1}
    assert ours("the sea", num_frames=5, **options).frames.shape == (1, 16, 2, 8, 12)


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
