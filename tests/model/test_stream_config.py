"""stream.json: what it says arrives, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.stream_config import StreamConfig, VocabularyEntry


def test_a_folder_without_the_file_streams_as_longsana(tmp_path: Path) -> None:
    config = StreamConfig.load(tmp_path)
    assert config == StreamConfig()
    assert (config.height, config.width, config.block, config.first_block_latent_frames) == (480, 832, 10, 10)
    assert (config.timesteps, config.shift, config.sampler) == ((1000, 960, 889, 727), 7.0, "renoise")
    assert config.window_blocks is None
    assert (config.lowercase, config.motion_score, config.complex_human_instruction) == (False, 10, "image")


def test_what_the_file_says_arrives(tmp_path: Path) -> None:
    raw: dict[str, Any] = {
        "format": 1,
        "height": 144,
        "width": 256,
        "block_latent_frames": [3, 5],
        "sampler": "euler",
        "timesteps": [1000, 500],
        "first_block_timesteps": [1000, 900.5, 100],
        "window_blocks": 6,
        "vocabulary": {"scene": [{"name": "sea", "prompt": "the sea", "synonyms": ["ocean"]}]},
        "known_words": ["surf"],
    }
    (tmp_path / "stream.json").write_text(json.dumps(raw))
    config = StreamConfig.load(tmp_path)
    assert (config.height, config.block, config.first_block_latent_frames) == (144, 3, 3)
    assert config.block_latent_frames == (3, 5)
    assert config.first_block_timesteps == (1000, 900.5, 100)
    assert config.vocabulary == {"scene": (VocabularyEntry("sea", "the sea", ("ocean",)),)}
    assert config.known_words == ("surf",)
    assert StreamConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", 2),
        ("height", 0),
        ("height", 144.5),
        ("width", True),
        ("rate_hz", 0),
        ("rate_hz", float("nan")),
        ("block_latent_frames", []),
        ("block_latent_frames", 3),
        ("block_latent_frames", ["3"]),
        ("first_block_latent_frames", 0),
        ("steer_block_latent_frames", 0),
        ("steer_block_latent_frames", 10),  # without cut_blocks
        ("cut_blocks", 1),
        ("cut_blocks", True),  # with blocks of ten latent frames only
        ("sampler", "ddim"),
        ("timesteps", []),
        ("timesteps", [500, 1000]),
        ("timesteps", [1001]),
        ("timesteps", "1000"),
        ("first_block_timesteps", [1000, 0]),
        ("shift", 0),
        ("window_blocks", 0),
        ("sink_blocks", -1),
        ("decay", 1.5),
        ("recache", "yes"),
        ("guidance_scale", -1),
        ("max_tokens", 0),
        ("motion_score", "fast"),
        ("complex_human_instruction", "video"),
        ("vocabulary", []),
        ("known_words", "surf"),
        ("known_words", None),
        ("known_words", ["surf", 3]),
        ("vocabulary", {"scene": ["sea"]}),
        ("vocabulary", {"scene": [{"name": "sea"}]}),
        ("vocabulary", {"scene": [{"name": "sea", "prompt": 3}]}),
        ("prompt", " "),
        ("colour_depth", 8),
    ],
)
def test_a_bad_field_is_named(tmp_path: Path, field: str, value: Any) -> None:
    (tmp_path / "stream.json").write_text(json.dumps({field: value}))
    with pytest.raises(ValueError, match=field):
        StreamConfig.load(tmp_path)


def test_blocks_may_be_cut_where_every_shorter_length_was_trained() -> None:
    raw = {"block_latent_frames": [3, 1, 2], "cut_blocks": True, "steer_block_latent_frames": 2}
    config = StreamConfig.from_dict(raw)
    assert (config.block, config.steer_block_latent_frames, config.cut_blocks) == (3, 2, True)
    for field, value, message in (
        ("steer_block_latent_frames", 4, r"one of block_latent_frames"),
        ("block_latent_frames", [3, 2], r"cut_blocks: .* lists 1 to 2"),
        ("first_block_latent_frames", 5, r"cut_blocks: .* lists 1 to 4"),
        ("cut_blocks", False, r"steer_block_latent_frames: 2 .* with cut_blocks"),
    ):
        with pytest.raises(ValueError, match=message):
            StreamConfig.from_dict(raw | {field: value})


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_a_file_that_is_no_object_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "stream.json").write_text(text)
    with pytest.raises(ValueError, match=r"stream\.json"):
        StreamConfig.load(tmp_path)
