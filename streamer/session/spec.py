"""What may be asked of a stream, and the one place where it is checked."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from streamer.engine.info import ModelInfo
from streamer.engine.protocol import Ready
from streamer.session import log as log_format
from streamer.session import loras
from streamer.session.capacity import is_guided
from streamer.session.errors import Invalid
from streamer.session.log import Log

MAX_SEED = 2**64 - 1
MAX_WAIT_S = 600.0
"""A steer may be asked for this long ahead."""
MAX_DURATION_S = 30 * 86400.0
MAX_MOTION = 100
MAX_METADATA = 16
IDLE_TIMEOUT_S: dict[str, float | None] = {"pause": 3600.0, "run": None, "end": 60.0}
"""How long a stream outlives its last viewer, by idle rule, where nothing else is asked; None: for ever."""

IN_LOG = ("prompt", "seed", "size", "rate_hz", "motion_score", "negative_prompt", "guidance_scale", "loras", "image")
"""What can't be asked for beside a log."""

Idle = Literal["pause", "run", "end"]


class CreateStream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stream as it is asked for. With `log`, what that says can't be said otherwise."""

    prompt: str | None = None
    seed: int | None = None
    size: str | None = None
    """`WIDTHxHEIGHT` in pixels."""
    rate_hz: float | None = None
    motion_score: int | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    loras: loras.Wanted | None = None
    """The whole set of adapters; None: those that are on by default."""
    image: bytes | None = None
    """The picture to start from: a PNG of exactly the stream's size."""
    log: str | None = None
    """A recipe: the stream runs it."""
    idle: Idle = "pause"
    """When nobody watches: pause (and yield the slot), run on, or end after `idle_timeout_s`."""
    idle_timeout_s: float | None = None
    """Ends this long after its last viewer left."""
    max_duration_s: float | None = None
    """Ends this long after its creation."""
    metadata: dict[str, str] = {}


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as it will be: checked, with every default filled in."""

    header: log_format.Header
    log: Log | None
    idle: Idle
    idle_timeout_s: float | None
    max_duration_s: float | None
    metadata: dict[str, str]


def stream_spec(wanted: CreateStream, ready: Ready) -> StreamSpec:
    """Check a stream against the model.

    Raises:
        Invalid: names the field and its limit.
        LogError: the log is malformed or of other weights.
    """
    model = ready.model
    log = None
    if wanted.log is not None:
        for name in IN_LOG:
            if getattr(wanted, name) is not None:
                raise Invalid(f"{name} is in the log already", code="log-and-field", field=name)
        unicode("log", wanted.log)
        log = log_format.parse(wanted.log)
        log_format.check(log, model)
        header = log.header
        number("log.seed", header.seed, 0, MAX_SEED)
        rate(header.rate_hz, ready, field="log.rate_hz")
        lines: list[log_format.Header | log_format.Entry] = [header, *log.steers]
        for line in lines:
            steer_values(model, line.prompt, line.motion_score, line.negative_prompt, line.guidance_scale, "log.")
            loras.check_logged(line.loras, model)
    else:
        width, height = size(wanted.size, model)
        given = prompt(wanted.prompt, model)
        steer_values(model, given, wanted.motion_score, wanted.negative_prompt, wanted.guidance_scale)
        header = log_format.header(
            model,
            seed=number("seed", secrets.randbits(32) if wanted.seed is None else wanted.seed, 0, MAX_SEED),
            height=height,
            width=width,
            rate_hz=ready.rate_hz if wanted.rate_hz is None else rate(wanted.rate_hz, ready),
            prompt=given,
            motion_score=wanted.motion_score,
            negative_prompt=wanted.negative_prompt,
            guidance_scale=wanted.guidance_scale,
            loras=loras.chosen(wanted.loras, model),
            png=wanted.image,
        )
    if wanted.idle not in IDLE_TIMEOUT_S:
        raise Invalid("idle must be pause, run or end", code="idle-unknown", field="idle", limit=[*IDLE_TIMEOUT_S])
    timeout_s = IDLE_TIMEOUT_S[wanted.idle] if wanted.idle_timeout_s is None else wanted.idle_timeout_s
    return StreamSpec(
        header=header,
        log=log,
        idle=wanted.idle,
        idle_timeout_s=None if timeout_s is None else number("idle_timeout_s", timeout_s, 1.0, MAX_DURATION_S),
        max_duration_s=None
        if wanted.max_duration_s is None
        else number("max_duration_s", wanted.max_duration_s, 1.0, MAX_DURATION_S),
        metadata=_metadata(wanted.metadata),
    )


def prompt(text: str | None, model: ModelInfo, field: str = "prompt") -> str:
    """A prompt without the space around it.

    Raises:
        Invalid: `prompt-empty` or `prompt-too-long`.
    """
    if text is None or not (text := " ".join(text.split())):
        raise Invalid("a prompt is needed", code="prompt-empty", field=field)
    unicode(field, text)
    if len(text) > model.max_prompt_chars:
        message = f"a prompt has at most {model.max_prompt_chars} characters, this one has {len(text)}"
        raise Invalid(message, code="prompt-too-long", field=field, limit=model.max_prompt_chars)
    return text


def unicode(field: str, text: str) -> None:
    """Refuse lone surrogates, which JSON can name and neither a log nor an event can hold. Raises `Invalid`."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Invalid(f"{field} is not Unicode: {error.reason}", code="field-invalid", field=field) from None


def steer_values(
    model: ModelInfo,
    text: str | None,
    motion_score: int | None,
    negative_prompt: str | None,
    guidance_scale: float | None,
    prefix: str = "",
) -> None:
    """Check what a steer says beside its place. Raises `Invalid`."""
    prompt(text, model, f"{prefix}prompt")
    if motion_score is not None:
        number(f"{prefix}motion_score", motion_score, 0, MAX_MOTION)
    if negative_prompt:
        prompt(negative_prompt, model, f"{prefix}negative_prompt")
    if guidance_scale is not None:
        number(f"{prefix}guidance_scale", guidance_scale, 1.0, model.max_guidance_scale)


def warnings(
    model: ModelInfo, motion_score: int | None, negative_prompt: str | None, guidance_scale: float | None
) -> list[str]:
    """What is said to no effect, in words for people."""
    found = []
    if negative_prompt and not is_guided(guidance_scale, model):
        found.append("negative_prompt has no effect without guidance: guidance_scale is 1")
    if motion_score is not None and model.motion_score is None:
        found.append("motion_score: this checkpoint was not trained with motion scores")
    return found


def number(field: str, value: Any, low: float, high: float) -> Any:
    """A number within its range. Raises `Invalid`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise Invalid(f"{field} must be a number", code="out-of-range", field=field, limit=[low, high])
    if not low <= value <= high:
        shown = [f"{limit:g}" if isinstance(limit, float) else str(limit) for limit in (low, high)]
        message = f"{field} must be {' to '.join(shown)}"
        raise Invalid(message, code="out-of-range", field=field, limit=[low, high])
    return value


def rate(value: float, ready: Ready, field: str = "rate_hz") -> float:
    """A rate that the machine holds. Raises `Invalid` (`rate-unsupported`)."""
    if not 1.0 <= value <= ready.rate_hz:
        message = f"{field} must be 1 to {ready.rate_hz:g}: this machine makes no more pictures a second"
        raise Invalid(message, code="rate-unsupported", field=field, limit=ready.rate_hz)
    return float(value)


def sizes(model: ModelInfo) -> dict[str, tuple[int, int]]:
    """(width, height) that streams may have, by `WIDTHxHEIGHT`; the first one where nobody asked."""
    pairs = [(model.width, model.height), *([(model.height, model.width)] if model.portrait else [])]
    return {f"{width}x{height}": (width, height) for width, height in pairs}


def size(text: str | None, model: ModelInfo) -> tuple[int, int]:
    """(width, height) of one of the model's sizes. Raises `Invalid` (`size-unsupported`)."""
    ours = sizes(model)
    asked = next(iter(ours)) if text is None else text.strip().lower().replace("×", "x")
    if asked not in ours:
        raise Invalid(f"size must be {' or '.join(ours)}", code="size-unsupported", field="size", limit=[*ours])
    return ours[asked]


def wait_s(at: object) -> float:
    """Seconds from now at which a steer is wanted: `"now"`, `{"in_s": n}`, or an object with `in_s`.

    Raises:
        Invalid: `at` is something else, or too far ahead.
    """
    if at is None or at == "now":
        return 0.0
    if isinstance(at, Mapping):
        if set(at) != {"in_s"}:
            raise Invalid('at must be "now" or {"in_s": seconds}', code="at-unknown", field="at")
        seconds: Any = at["in_s"]
    else:
        seconds = getattr(at, "in_s", at)
    return float(number("at.in_s", seconds, 0.0, MAX_WAIT_S))


def _metadata(metadata: dict[str, str]) -> dict[str, str]:
    if len(metadata) > MAX_METADATA:
        message = f"metadata has at most {MAX_METADATA} fields"
        raise Invalid(message, code="metadata-too-large", field="metadata", limit=MAX_METADATA)
    for key, value in metadata.items():
        unicode("metadata", key + value)
        if len(key) > 64 or len(value) > 512:
            message = "a metadata key has at most 64 characters, its value 512"
            raise Invalid(message, code="metadata-too-large", field="metadata", limit=512)
    return dict(metadata)
