"""Prompts to embeddings, in the form each checkpoint was trained with.

One form serves all: lower-case (if so configured), `motion score: N.` behind, the complex human instruction in front,
tokens padded on the right, and of the result the first and the last `max_tokens - 1`. Without the instruction that
selection is all of it. It equals `diffusers.SanaVideoPipeline.encode_prompt` where that pipeline's instruction and
lower case are asked for.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, Gemma2Model
from transformers.utils import logging

from model.stream_config import Instruction, StreamConfig

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
CACHED_PROMPTS = 32  # at most 32 x 300 tokens x 2304 x 4 B = 88 MB with Gemma-2-2b


class TextEncoder:
    """A Gemma-2 encoder of any size with its tokenizer; knows the prompt form, remembers recent prompts."""

    def __init__(
        self, tokenizer: Any, encoder: Any, config: StreamConfig, output_device: str | torch.device | None = None
    ) -> None:
        """`tokenizer` and `encoder` are transformers' (fast tokenizer, Gemma2Model); config: see `StreamConfig`.

        `output_device` is where embeddings go, None: they stay with the encoder.
        """
        self._output_device = output_device
        self.tokenizer, self.encoder, self.config = tokenizer, encoder.eval().requires_grad_(False), config
        self.instruction = "\n".join(instruction_lines(config.complex_human_instruction))
        self._instruction_tokens = len(tokenizer.encode(self.instruction)) if self.instruction else 0
        self._cache: OrderedDict[tuple[str, str], tuple[Tensor, Tensor]] = OrderedDict()
        self._known = {word for phrase in _phrases(config) for word in _words(phrase)}
        if self._known:
            self._known |= set(config.known_words)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        config: StreamConfig | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        output_device: str | torch.device | None = None,
    ) -> TextEncoder:
        """Load `tokenizer/` and `text_encoder/` of a diffusers folder, never from the network.

        Without a config, the folder's `stream.json` (or its defaults). `output_device`: as in the constructor.
        Raises OSError for a folder without them, ValueError that names the first missing or misshapen parameter.
        """
        folder = Path(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        with _quiet_transformers():  # its report of what doesn't fit is a table; here it is a line
            encoder, found = Gemma2Model.from_pretrained(
                folder / "text_encoder",
                local_files_only=True,
                use_safetensors=True,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        if missing := found["missing_keys"]:
            raise ValueError(f"parameter {min(missing)} is missing")
        if misshapen := found["mismatched_keys"]:
            name, shape, wanted = min(misshapen)
            raise ValueError(f"{name} has shape {tuple(shape)}, not {tuple(wanted)}")
        return cls(tokenizer, encoder.to(device), config or StreamConfig.load(folder), output_device)

    @property
    def width(self) -> int:
        """Numbers in one token's embedding."""
        return int(self.encoder.config.hidden_size)

    def encode(self, prompt: str, motion_score: int | None = None) -> tuple[Tensor, Tensor]:
        """Embeddings (1, max_tokens, width) and mask (1, max_tokens), int64, 1 where a token is.

        `motion_score` overrides the checkpoint's. What is too long is cut: ask `token_count` first. The tensors are
        shared between calls: don't write into them.
        """
        score = self.config.motion_score if motion_score is None else motion_score
        return self._encode(self._form(prompt, score), self.instruction)

    def encode_negative(self, prompt: str = "") -> tuple[Tensor, Tensor]:
        """As `encode`, in the form of negative prompts: without instruction and motion score."""
        return self._encode(self._form(prompt, None), "")

    def token_count(self, prompt: str, motion_score: int | None = None) -> int:
        """Tokens of the prompt in its form, start token included, instruction not; more than max_tokens are cut."""
        score = self.config.motion_score if motion_score is None else motion_score
        return len(self.tokenizer.encode(self._form(prompt, score)))

    def unknown_words(self, prompt: str) -> dict[str, str | None]:
        """Words of the prompt that the checkpoint was not trained with, each with the nearest one that it knows.

        A word is known if the vocabulary of `stream.json` uses it, or its `known_words` list it; without this list,
        if the tokenizer (made from the training captions) has it in one piece. Empty for a checkpoint without a
        vocabulary: those know language as such.
        """
        if not self._known:
            return {}
        unknown: dict[str, str | None] = {}
        for word in _words(prompt):
            if word not in self._known and not self._one_token(word):
                near = difflib.get_close_matches(word, sorted(self._known), n=1)
                unknown[word] = near[0] if near else None
        return unknown

    def _one_token(self, word: str) -> bool:
        if self.config.known_words:
            return False
        for spelling in (word, " " + word):
            ids = self.tokenizer.encode(spelling, add_special_tokens=False)
            if len(ids) == 1 and ids[0] != self.tokenizer.unk_token_id:
                return True
        return False

    def _form(self, prompt: str, motion_score: int | None) -> str:
        text = prompt.strip()
        if motion_score is not None:
            text = f"{text} motion score: {motion_score}.".strip()
        return text.lower() if self.config.lowercase else text

    def _encode(self, text: str, instruction: str) -> tuple[Tensor, Tensor]:
        key = (instruction, text)
        if key not in self._cache:
            self._cache[key] = self._run(text, instruction)
            if len(self._cache) > CACHED_PROMPTS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    @torch.no_grad()
    def _run(self, text: str, instruction: str) -> tuple[Tensor, Tensor]:
        kept = self.config.max_tokens
        # The instruction's own start token, and the one that the selection keeps, are counted in `kept` already.
        length = self._instruction_tokens + kept - 2 if instruction else kept
        tokens = self.tokenizer(
            instruction + text,
            padding="max_length",
            padding_side="right",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        device = self.encoder.device
        ids, mask = tokens.input_ids.to(device), tokens.attention_mask.to(device)
        embeds = self.encoder(ids, attention_mask=mask, use_cache=False)[0]
        selected = [0, *range(1 - kept, 0)]
        output = self._output_device or device
        return embeds[:, selected].to(output), mask[:, selected].to(output)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _phrases(config: StreamConfig) -> list[str]:
    entries = [entry for bank in config.vocabulary.values() for entry in bank]
    return [phrase for entry in entries for phrase in (entry.name, entry.prompt, *entry.synonyms)]


def instruction_lines(instruction: Instruction) -> list[str]:
    """The lines that stand before prompts, see `StreamConfig`, from the signatures of diffusers' pipelines."""
    if not instruction:
        return []
    from diffusers import SanaPipeline, SanaVideoPipeline  # slow to import, and only some checkpoints need it

    pipeline = SanaPipeline if instruction == "image" else SanaVideoPipeline
    lines = inspect.signature(pipeline.__call__).parameters["complex_human_instruction"].default
    if instruction == "image":  # diffusers copied it with other quotes than it was trained with
        return [line.replace("'Enhanced prompt'", '"Enhanced prompt"') for line in lines]
    return list(lines)
