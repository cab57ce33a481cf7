"""Which sets of adapters a stream may have."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import scripted_engine

from streamer.engine.info import Lora, LoraInfo, ModelInfo
from streamer.session.errors import Invalid, SessionError
from streamer.session.loras import check_logged, chosen
from streamer.session.spec import CreateStream, stream_spec

NAMES = [f"a{n}" for n in range(10)]


def info(name: str, weight: float = 0.0) -> LoraInfo:
    return LoraInfo(name=name, sha256=f"hash of {name}", weight=weight, rank=4, layers=8, nbytes=100)


@pytest.fixture
def model() -> ModelInfo:
    loras = {name: info(name) for name in NAMES} | {"on": info("on", 0.5)}
    return msgspec.structs.replace(scripted_engine.ready().model, loras=loras)


def lora(name: str, weight: float) -> Lora:
    return Lora(name=name, weight=weight, sha256=f"hash of {name}")


def test_a_set_is_the_whole_set_by_name_without_what_is_off(model: ModelInfo) -> None:
    before = (lora("a1", 1.0),)
    assert chosen(None, model) == (lora("on", 0.5),)
    assert chosen(None, model, before) == before
    assert chosen([], model, before) == ()
    wanted = [{"name": "on", "weight": 2}, {"name": "a2", "weight": -0.5}, {"name": "a3", "weight": 0}]
    assert chosen(wanted, model, before) == (lora("a2", -0.5), lora("on", 2.0))


@pytest.mark.parametrize(
    ("wanted", "code", "field", "limit"),
    [
        ([{"name": "b", "weight": 1}], "lora-unknown", "loras.0.name", [*NAMES, "on"]),
        ([{"name": "a1", "weight": 1}, {"name": "a1", "weight": 2}], "lora-twice", "loras.1.name", None),
        ([{"name": "a1", "weight": 4.1}], "out-of-range", "loras.0.weight", [-4.0, 4.0]),
        ([{"name": "a1", "weight": float("nan")}], "out-of-range", "loras.0.weight", [-4.0, 4.0]),
        ([{"name": "a1", "weight": True}], "out-of-range", "loras.0.weight", [-4.0, 4.0]),
        ([{"name": name, "weight": 1} for name in NAMES[:9]], "loras-too-many", "loras", 8),
    ],
)
def test_what_is_refused(model: ModelInfo, wanted: Any, code: str, field: str, limit: Any) -> None:
    with pytest.raises(Invalid) as refused:
        chosen(wanted, model)
    assert (refused.value.code, refused.value.field, refused.value.limit) == (code, field, limit)


def test_a_log_needs_its_adapters_under_whatever_name(model: ModelInfo) -> None:
    check_logged([Lora(name="called otherwise", weight=1.0, sha256="hash of a1")], model)
    for loras, code in [
        ([Lora(name="a1", weight=1.0, sha256="another file")], "log-other-weights"),
        ([lora("a1", -5.0)], "out-of-range"),
        ([lora(name, 1.0) for name in NAMES[:9]], "loras-too-many"),
    ]:
        with pytest.raises(SessionError) as refused:
            check_logged(loras, model)
        assert refused.value.code == code


def test_a_log_says_its_adapters_itself(model: ModelInfo) -> None:
    ready = msgspec.structs.replace(scripted_engine.ready(), model=model)
    with pytest.raises(Invalid, match="loras is in the log already"):
        stream_spec(CreateStream(log="{}", loras=[]), ready)
    assert stream_spec(CreateStream(prompt="the sea"), ready).header.loras == (lora("on", 0.5),)
