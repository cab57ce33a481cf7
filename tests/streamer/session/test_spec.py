"""Limits that depend on the model."""

from __future__ import annotations

import pytest
import scripted_engine

from streamer.session.errors import Invalid
from streamer.session.spec import CreateStream, steer_values, stream_spec


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("guidance_scale", 20.5, [1.0, 20.0]),
        ("guidance_scale", 0.9, [1.0, 20.0]),
        ("guidance_scale", float("nan"), [1.0, 20.0]),
        ("motion_score", 101, [0, 100]),
        ("motion_score", -1, [0, 100]),
        ("negative_prompt", "x" * 201, 200),
    ],
)
def test_what_a_stream_and_a_steer_say_beside_the_prompt_has_its_limit(
    field: str, value: object, limit: object
) -> None:
    info = scripted_engine.ready()
    with pytest.raises(Invalid) as refused:
        stream_spec(CreateStream(prompt="the sea", **{field: value}), info)
    assert (refused.value.field, refused.value.limit) == (field, limit)
    values = {"motion_score": None, "negative_prompt": None, "guidance_scale": None} | {field: value}
    with pytest.raises(Invalid) as refused:
        steer_values(info.model, "the sea", **values)
    assert refused.value.field == field


def test_what_they_say_within_it_is_in_the_recipe() -> None:
    wanted = CreateStream(prompt="the sea", guidance_scale=20, motion_score=100, negative_prompt="fog")
    header = stream_spec(wanted, scripted_engine.ready()).header
    assert (header.guidance_scale, header.motion_score, header.negative_prompt) == (20, 100, "fog")
