"""The adapters that a stream asks for, checked against those that are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streamer.engine.info import Lora, ModelInfo, by_default
from streamer.session.errors import Invalid, LogError

MAX_LORAS = 8
"""Adapters of one stream at once."""
MAX_WEIGHT = 4.0

Wanted = Sequence[Mapping[str, Any]]
"""`[{"name": "ink", "weight": 0.8}, …]`: the whole set."""


def chosen(wanted: Wanted | None, model: ModelInfo, before: tuple[Lora, ...] | None = None) -> tuple[Lora, ...]:
    """The set that a request asks for, by name, without those of weight 0.

    Args:
        wanted: None keeps what was in force.
        model: What is loaded.
        before: What was in force; None for a new stream, which then has what is on by default.

    Raises:
        Invalid: `lora-unknown`, `lora-twice`, `loras-too-many` or `out-of-range`, with the field.
    """
    if wanted is None:
        return by_default(model.loras) if before is None else before
    found: dict[str, Lora] = {}
    for index, each in enumerate(wanted):
        name, weight = each["name"], each["weight"]
        info = model.loras.get(name)
        if info is None:
            message = f"there is no adapter {name!r} here"
            raise Invalid(message, code="lora-unknown", field=f"loras.{index}.name", limit=[*model.loras])
        if name in found:
            raise Invalid(f"adapter {name} is there twice", code="lora-twice", field=f"loras.{index}.name")
        _check_weight(weight, f"loras.{index}.weight")
        found[name] = Lora(name=name, weight=float(weight), sha256=info.sha256)
    used = [found[name] for name in sorted(found) if found[name].weight]
    if len(used) > MAX_LORAS:
        message = f"a stream has at most {MAX_LORAS} adapters at once"
        raise Invalid(message, code="loras-too-many", field="loras", limit=MAX_LORAS)
    return tuple(used)


def check_logged(loras: Sequence[Lora], model: ModelInfo) -> None:
    """Whether a log's adapters are loaded here, under whatever name.

    Raises:
        LogError: `log-other-weights`: one of them is not.
        Invalid: too many, or a weight out of range.
    """
    known = {info.sha256 for info in model.loras.values()}
    if len(loras) > MAX_LORAS:
        message = f"a stream has at most {MAX_LORAS} adapters at once"
        raise Invalid(message, code="loras-too-many", field="log.loras", limit=MAX_LORAS)
    for lora in loras:
        _check_weight(lora.weight, "log.loras.weight")
        if lora.sha256 not in known:
            message = (
                f"the log was made with the adapter {lora.name}, SHA-256 {lora.sha256}, which is not loaded here"
            )
            raise LogError(message, code="log-other-weights", field="log.loras", limit=sorted(model.loras))


def shown(loras: Sequence[Lora]) -> list[dict[str, Any]]:
    """As the API shows a set, and takes it."""
    return [{"name": lora.name, "weight": lora.weight} for lora in loras]


def _check_weight(weight: Any, field: str) -> None:
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not -MAX_WEIGHT <= weight <= MAX_WEIGHT:
        message = f"{field} must be {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
        raise Invalid(message, code="out-of-range", field=field, limit=[-MAX_WEIGHT, MAX_WEIGHT])
