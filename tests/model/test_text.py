"""Prompt forms against diffusers' own pipeline, with a random Gemma-2."""

from __future__ import annotations

import inspect
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SanaPipeline, SanaVideoPipeline

from model.stream_config import StreamConfig
from model.text import CACHED_PROMPTS, TextEncoder

PROMPTS = ["A red sailboat on the sea at sunset", "", "falling snow, " * 40]
DIFFUSERS_DEFAULTS = inspect.signature(SanaVideoPipeline.__call__).parameters


def load(folder: Path, **fields: Any) -> TextEncoder:
    defaults: dict[str, Any] = {"motion_score": None, "complex_human_instruction": False}
    return TextEncoder.from_pretrained(folder, StreamConfig(**(defaults | fields)))


def pipeline_of(text: TextEncoder) -> SanaVideoPipeline:
    return SanaVideoPipeline(text.tokenizer, text.encoder, vae=None, transformer=None, scheduler=None)


@pytest.mark.parametrize("prompt", PROMPTS, ids=["plain", "empty", "too long"])
@pytest.mark.parametrize("instruction", [True, False], ids=["instruction", "bare"])
def test_equals_diffusers(tiny_model: Path, prompt: str, instruction: bool) -> None:
    """The form of diffusers' pipelines: instruction, lower case, motion score, [0] + last 299."""
    text = load(tiny_model, lowercase=True, motion_score=30, complex_human_instruction=instruction)
    embeds, mask = text.encode(prompt)
    negative_embeds, negative_mask = text.encode_negative("a train")
    lines = DIFFUSERS_DEFAULTS["complex_human_instruction"].default if instruction else None
    theirs = pipeline_of(text).encode_prompt(
        f"{prompt} motion score: 30.",
        negative_prompt="a train",
        device=torch.device("cpu"),
        max_sequence_length=300,
        complex_human_instruction=lines,
    )
    assert embeds.shape == (1, 300, text.width)
    for ours, their in zip((embeds, mask, negative_embeds, negative_mask), theirs, strict=True):
        torch.testing.assert_close(ours, their)


def test_longsana_reads_prompts_as_in_its_training(tiny_model: Path) -> None:
    """Without a `stream.json`: SANA's instruction for images, case kept, motion score 10."""
    text = TextEncoder.from_pretrained(tiny_model, StreamConfig())
    instruction = "\n".join(inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default)
    assert "for image generation" in instruction
    assert instruction.count("'") == 2
    instruction = instruction.replace("'", '"')
    embeds, mask = text.encode(" A red Sailboat ")
    ids = text.tokenizer.encode(f"{instruction}A red Sailboat motion score: 10.")
    alone = text.encoder(torch.tensor([ids])).last_hidden_state  # causal: what is padded behind changes nothing
    first = len(text.tokenizer.encode(instruction)) - 1
    count = len(ids) - first
    assert mask[0].tolist() == [1] * (1 + count) + [0] * (299 - count)
    torch.testing.assert_close(embeds[:, :1], alone[:, :1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(embeds[:, 1 : 1 + count], alone[:, first:], atol=1e-5, rtol=1e-5)


def test_the_instruction_is_seen(tiny_model: Path) -> None:
    with_it, without = load(tiny_model, complex_human_instruction=True), load(tiny_model)
    assert not torch.allclose(with_it.encode("the sea")[0][:, 1], without.encode("the sea")[0][:, 1])


def test_plain_form(tiny_model: Path) -> None:
    """The starter's: lower-case, padded on the right, masked."""
    text = TextEncoder.from_pretrained(tiny_model)  # with its own stream.json
    embeds, mask = text.encode("  The SEA at night ")
    ids = [text.tokenizer.bos_token_id, *text.tokenizer.encode("the sea at night", add_special_tokens=False)]
    assert embeds.shape == (1, text.config.max_tokens, text.width)
    assert mask[0].tolist() == [1] * len(ids) + [0] * (text.config.max_tokens - len(ids))
    alone = text.encoder(torch.tensor([ids])).last_hidden_state
    torch.testing.assert_close(embeds[:, : len(ids)], alone, atol=1e-5, rtol=1e-5)


def test_case_is_kept_where_the_checkpoint_wants_it(tiny_model: Path) -> None:
    text = load(tiny_model, lowercase=False)
    assert not torch.equal(text.encode("the Sea")[0], text.encode("the sea")[0])


def test_motion_score_of_a_call_overrides_the_checkpoint(tiny_model: Path) -> None:
    scored, plain = load(tiny_model, motion_score=30), load(tiny_model)
    assert torch.equal(scored.encode("the sea")[0], plain.encode("the sea motion score: 30.")[0])
    assert torch.equal(scored.encode("the sea", motion_score=0)[0], plain.encode("the sea motion score: 0.")[0])


def test_token_count_says_what_is_cut(tiny_model: Path) -> None:
    text = TextEncoder.from_pretrained(tiny_model)
    assert text.token_count("the sea") == text.encode("the sea")[1].sum()
    assert text.token_count("the sea " * 40) > text.config.max_tokens


def test_recent_prompts_are_remembered_and_old_ones_forgotten(tiny_model: Path) -> None:
    text = TextEncoder.from_pretrained(tiny_model)
    first = text.encode("the sea")
    assert text.encode("The sea")[0] is first[0]
    for i in range(CACHED_PROMPTS):
        text.encode(f"the sea {'at night ' * (i + 1)}")
    assert len(text._cache) == CACHED_PROMPTS
    again = text.encode("the sea")
    assert again[0] is not first[0]
    assert torch.equal(again[0], first[0])


def test_unknown_words_come_with_the_nearest_known(tiny_model: Path) -> None:
    text = TextEncoder.from_pretrained(tiny_model)
    assert text.unknown_words("The snowey mountans, by a zyxq ocean") == {
        "snowey": "snowy",
        "mountans": "mountains",
        "zyxq": None,
    }
    assert text.unknown_words("snowy mountains at night") == {}
    assert "forest" in text.tokenizer.get_vocab(), "a caption's word that no pad names"
    assert text.unknown_words("forest") == {}


def test_known_words_are_known_in_place_of_the_tokenizer(tiny_model: Path) -> None:
    text = TextEncoder.from_pretrained(tiny_model)
    config = replace(text.config, known_words=("a", "zeppelin", "schooner"))
    wide = TextEncoder(text.tokenizer, text.encoder, config)
    assert text.unknown_words("zeppelin").keys() == {"zeppelin"}
    assert wide.unknown_words("a zeppelin, a forest, a schoner") == {"forest": None, "schoner": "schooner"}


def test_a_checkpoint_without_vocabulary_knows_all_words(tiny_model: Path) -> None:
    assert load(tiny_model).unknown_words("a zyxq zeppelin") == {}


def test_weights_that_do_not_fit_are_named(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)  # to caplog
    for part in ("tokenizer", "text_encoder"):
        shutil.copytree(tiny_model / part, tmp_path / part)
    file = tmp_path / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    name = next(key for key in weights if key.endswith("mlp.up_proj.weight"))
    save_file({k: v for k, v in weights.items() if k != name}, file)
    short = name.removeprefix("model.")
    with pytest.raises(ValueError, match=f"^parameter {short} is missing$"):
        TextEncoder.from_pretrained(tmp_path, StreamConfig())
    save_file(weights | {name: torch.zeros(2, 3)}, file)
    with pytest.raises(ValueError, match=rf"^{short} has shape \(2, 3\), not "):
        TextEncoder.from_pretrained(tmp_path, StreamConfig())
    assert caplog.messages == []
    file.unlink()
    torch.save(weights, file.with_name("pytorch_model.bin"))  # a pickle, which the weights' hash doesn't cover
    with pytest.raises(OSError, match="safetensors"):
        TextEncoder.from_pretrained(tmp_path, StreamConfig())
