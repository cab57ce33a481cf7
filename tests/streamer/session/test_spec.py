"""Limits that depend on what the worker measured."""

from __future__ import annotations

import msgspec
import pytest
import scripted_engine

from streamer.session.errors import Invalid
from streamer.session.spec import CreateStream, steer_values, stream_spec


def test_guidance_is_refused_where_there_is_no_time_for_its_second_row() -> None:
    wide = scripted_engine.ready()
    narrow = msgspec.structs.replace(wide, model=msgspec.structs.replace(wide.model, max_guidance_scale=1.0))
    wanted = CreateStream(prompt="the sea", guidance_scale=4.0)
    assert stream_spec(wanted, wide).header.guidance_scale == 4.0
    with pytest.raises(Invalid) as refused:
        stream_spec(wanted, narrow)
    assert (refused.value.field, refused.value.limit) == ("guidance_scale", [1.0, 1.0])
    with pytest.raises(Invalid):
        steer_values(narrow.model, "the sea", None, None, 2.0)
    steer_values(narrow.model, "the sea", None, None, 1.0)
