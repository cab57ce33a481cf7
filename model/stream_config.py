"""`stream.json` of a checkpoint folder: how the checkpoint wants to be streamed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from model.precision import PRECISIONS, REFERENCE_BLOCKS, Precision, PrecisionError
from model.sampler import SAMPLERS, SamplerName

FORMAT = 1
FILE_NAME = "stream.json"
Instruction = bool | Literal["image"]
RING = 5
"""Entries of the ring behind the window that `StreamConfig.endless` adds: 20 MB each with LongSANA."""


@dataclass(frozen=True)
class VocabularyEntry:
    """One pad: its name, the words that go into a prompt, and other words that mean the same."""

    name: str
    prompt: str
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True)
class StreamConfig:
    """Typed `stream.json`. The defaults are LongSANA's, for a folder without the file.

    Sizes are of pictures, in pixels; block lengths in latent frames; window, its groups (see `model.state`) and sink
    in blocks (`window_blocks` None remembers every block). `trained_latents`: the longest video it was trained on, in
    latent frames (None: said nowhere); see `endless`. `block_latent_frames` are the lengths of blocks that it was
    trained for, the default first; `steer_block_latent_frames` is the length of a block that begins at a steer (None:
    the default), and `cut_blocks` says that a steer may begin inside a block, which then is kept and committed up to
    there.

    Raises:
        ValueError: names the field and its limit.
    """

    height: int = 480
    width: int = 832
    portrait: bool = False
    """Whether streams may also have height and width exchanged."""
    rate_hz: float = 16.0
    block_latent_frames: tuple[int, ...] = (10,)
    first_block_latent_frames: int = 10
    steer_block_latent_frames: int | None = None
    cut_blocks: bool = False
    sampler: SamplerName = "renoise"
    timesteps: tuple[float, ...] = (1000, 960, 889, 727)
    shift: float = 7.0
    first_block_timesteps: tuple[float, ...] | None = None
    window_blocks: int | None = None
    window_group: int = 1
    sink_blocks: int = 0
    decay: float = 1.0
    recache: bool = True
    precision: Precision = "precise"
    trained_latents: int | None = 261
    guidance_scale: float = 1.0
    max_tokens: int = 300
    lowercase: bool = False
    motion_score: int | None = 10
    complex_human_instruction: Instruction = "image"
    """What stands before prompts: "image" that of SANA's image models, which LongSANA was trained with, true that of
    diffusers' video pipelines, false nothing."""
    prompt: str = "a sailboat on the sea at sunset"
    """What a stream shows where nobody said."""
    vocabulary: Mapping[str, tuple[VocabularyEntry, ...]] = field(default_factory=dict)
    known_words: tuple[str, ...] = ()
    """Words that it was trained with beside the vocabulary's."""

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            _require(name, getattr(self, name), _whole(getattr(self, name), 16, 8192), "16 to 8192")
        _require("rate_hz", self.rate_hz, _number(self.rate_hz) and 0 < self.rate_hz <= 120, "above 0, at most 120")
        lengths = self.block_latent_frames
        _require("block_latent_frames", lengths, _lengths(lengths), "1 to 1024")
        first = self.first_block_latent_frames
        _require("first_block_latent_frames", first, _whole(first, 1, 1024), "1 to 1024")
        _require("sampler", self.sampler, self.sampler in SAMPLERS, f"one of {', '.join(SAMPLERS)}")
        _require("timesteps", self.timesteps, _descending(self.timesteps), "falling, from at most 1000 to above 0")
        if self.first_block_timesteps is not None:
            opening = self.first_block_timesteps
            _require("first_block_timesteps", opening, _descending(opening), "falling, 1000 to above 0, or null")
        _require("shift", self.shift, _number(self.shift) and self.shift > 0, "above 0")
        window = self.window_blocks
        _require("window_blocks", window, window is None or _whole(window, 1, 4096), "1 to 4096, or null")
        group = self.window_group
        fits = _whole(group, 1, 4096) and (group == 1 if window is None else window % group == 0)
        _require("window_group", group, fits, "a whole part of window_blocks")
        _require("precision", self.precision, self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        trained = self.trained_latents
        _require("trained_latents", trained, trained is None or _whole(trained, 1, 1 << 31), "at least 1, or null")
        _require("sink_blocks", self.sink_blocks, _whole(self.sink_blocks, 0, 4096), "0 to 4096")
        _require("decay", self.decay, _number(self.decay) and 0 < self.decay <= 1, "above 0, at most 1")
        scale = self.guidance_scale
        _require("guidance_scale", scale, _number(scale) and 0 <= scale <= 50, "0 to 50")
        _require("max_tokens", self.max_tokens, _whole(self.max_tokens, 1, 4096), "1 to 4096")
        score = self.motion_score
        _require("motion_score", score, score is None or _whole(score, 0, 1000), "0 to 1000, or null")
        _require("prompt", self.prompt, isinstance(self.prompt, str) and self.prompt.strip() != "", "a text")
        words = self.known_words
        listed = isinstance(words, tuple) and all(isinstance(word, str) and word for word in words)
        _require("known_words", words, listed, "a list of non-empty strings")
        text = self.complex_human_instruction
        known = isinstance(text, bool) or text == "image"
        _require("complex_human_instruction", text, known, 'true, "image" or false')
        for name in ("portrait", "recache", "lowercase", "cut_blocks"):
            _require(name, getattr(self, name), isinstance(getattr(self, name), bool), "true or false")
        self._check_cuts()

    def _check_cuts(self) -> None:
        steer, lengths = self.steer_block_latent_frames, self.block_latent_frames
        allowed = steer is None or (self.cut_blocks and steer in lengths)
        rule = "one of block_latent_frames, with cut_blocks; or null"
        _require("steer_block_latent_frames", steer, allowed, rule)
        if self.cut_blocks:
            longest = max(self.block, self.first_block_latent_frames, steer or 1)
            missing = sorted(set(range(1, longest)) - set(lengths))
            rule = f"false unless block_latent_frames lists 1 to {longest - 1}: a block is cut to any of these"
            _require("cut_blocks", True, not missing, rule)

    @property
    def sums_run(self) -> bool:
        """Whether the state's sums grow with every block."""
        return self.window_blocks is None and self.decay == 1

    def endless(self) -> StreamConfig:
        """For a stream without an end: with a window, where the sums would else outgrow what it was trained on.

        A block of the longest video in training read all the blocks before it; the window is as long, up to
        rounding, in `RING` groups. Up to that length nothing changes by it.

        Raises:
            PrecisionError: "reference" with sums that run for ever.
        """
        config = self
        if self.sums_run and self.trained_latents is not None:
            past = max(1, self.trained_latents // self.block - 1)
            group = -(-past // RING)
            config = replace(self, window_blocks=past // group * group, window_group=group)
        if config.precision == "reference" and (config.sums_run or (config.window_blocks or 0) > REFERENCE_BLOCKS):
            raise PrecisionError
        return config

    @property
    def block(self) -> int:
        """Latent frames of a block unless asked otherwise."""
        return self.block_latent_frames[0]

    @classmethod
    def load(cls, folder: str | Path) -> StreamConfig:
        """Read `stream.json` in a checkpoint folder; LongSANA's values where there is none.

        Raises:
            ValueError: not JSON, an unknown field, or a field outside its limit.
        """
        path = Path(folder) / FILE_NAME
        if not path.is_file():
            return cls()
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: not readable JSON: {error}") from error
        if not isinstance(raw, dict):
            raise ValueError(f"{path}: must be a JSON object")
        try:
            return cls.from_dict(raw)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> StreamConfig:
        """Build from parsed JSON.

        Raises:
            ValueError: an unknown format or field, or a field outside its limit.
        """
        values = dict(raw)
        if (number := values.pop("format", FORMAT)) != FORMAT:
            raise ValueError(f"format: {number!r} is not known, must be {FORMAT}")
        known = {f.name for f in fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise ValueError(f"{unknown[0]}: unknown field")
        for name in ("block_latent_frames", "timesteps", "first_block_timesteps", "known_words"):
            if name in values and values[name] is not None:
                _require(name, values[name], isinstance(values[name], list), "a list")
                values[name] = tuple(values[name])
        if values.get("block_latent_frames"):
            values.setdefault("first_block_latent_frames", values["block_latent_frames"][0])
        values.setdefault("trained_latents", None)  # the default is LongSANA's
        if "vocabulary" in values:
            values["vocabulary"] = _vocabulary(values["vocabulary"])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `stream.json`."""
        raw: dict[str, Any] = {"format": FORMAT}
        for f in fields(self):
            value = getattr(self, f.name)
            raw[f.name] = list(value) if isinstance(value, tuple) else value
        raw["vocabulary"] = {
            bank: [{"name": e.name, "prompt": e.prompt, "synonyms": list(e.synonyms)} for e in entries]
            for bank, entries in self.vocabulary.items()
        }
        return raw


def _vocabulary(raw: Any) -> dict[str, tuple[VocabularyEntry, ...]]:
    rule = "an object of banks, each a list of {name, prompt, synonyms}"
    _require("vocabulary", raw, isinstance(raw, dict), rule)
    banks: dict[str, tuple[VocabularyEntry, ...]] = {}
    for bank, entries in raw.items():
        _require("vocabulary", entries, isinstance(entries, list), rule)
        for entry in entries:
            fits = isinstance(entry, dict) and {"name", "prompt"} <= entry.keys() <= {"name", "prompt", "synonyms"}
            _require("vocabulary", entry, fits, rule)
            words = [entry["name"], entry["prompt"], *entry.get("synonyms", ())]
            _require("vocabulary", entry, all(isinstance(word, str) and word for word in words), "non-empty strings")
        banks[bank] = tuple(
            VocabularyEntry(entry["name"], entry["prompt"], tuple(entry.get("synonyms", ()))) for entry in entries
        )
    return banks


def _require(name: str, value: Any, fits: bool, limit: str) -> None:
    if not fits:
        raise ValueError(f"{name}: {value!r} is not allowed, must be {limit}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _lengths(values: Sequence[Any]) -> bool:
    return bool(values) and all(_whole(n, 1, 1024) for n in values)


def _descending(values: Sequence[Any]) -> bool:
    if not values or not all(_number(v) and 0 < v <= 1000 for v in values):
        return False
    return all(a > b for a, b in pairwise(values))
