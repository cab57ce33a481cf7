"""Request bodies. Unknown fields are refused by name; values are checked by the session, in one place."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from streamer.session.spec import MAX_METADATA

MAX_FIELDS = 32
"""More than any object here has."""
MAX_NAMED_LORAS = 64
"""In one set, those of weight 0 included: as many as a server loads."""


def _alternatives(kind: str, said: str) -> WrapValidator:
    """One message for a union: pydantic's own names the alternatives one by one, in the field's name too."""

    def checked(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError:
            raise PydanticCustomError(kind, said) from None

    return WrapValidator(checked)


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "must be a number")
    return value


Number = Annotated[StrictInt | StrictFloat, _alternatives("number_type", "must be a number")]
TextNumber = Annotated[float, BeforeValidator(_no_bool)]
"""A number, or one as text."""
TextInt = Annotated[int, BeforeValidator(_no_bool)]


def _at_most(limit: int, kind: str, said: str) -> BeforeValidator:
    """Refuse what has more entries than `limit` before each of them is looked at: pydantic makes an error of each."""

    def checked(value: Any) -> Any:
        if isinstance(value, list | dict) and len(value) > limit:
            raise PydanticCustomError(kind, said, {"limit": limit})
        return value

    return BeforeValidator(checked)


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few(cls, given: Any) -> Any:
        """The same for an object of very many fields: the first that is none says enough."""
        if isinstance(given, dict) and len(given) > MAX_FIELDS:
            name = next(str(name) for name in given if name not in cls.model_fields)
            raise PydanticCustomError("unknown_field", "unknown", {"name": name.encode(errors="replace").decode()})
        return given


class LoraWeight(Body):
    """An adapter of a set, see `GET /v1/loras`."""

    name: StrictStr
    weight: Number


Loras = Annotated[
    list[LoraWeight],
    _at_most(MAX_NAMED_LORAS, "loras_too_many", f"at most {MAX_NAMED_LORAS} adapters can be named"),
]


class StreamBody(Body):
    """`POST /v1/streams`. With `log`, what the log says can't be said otherwise."""

    prompt: StrictStr | None = None
    seed: StrictInt | None = None
    size: Annotated[StrictStr | None, Field(description="WIDTHxHEIGHT in pixels")] = None
    rate_hz: Number | None = None
    motion_score: StrictInt | None = None
    negative_prompt: StrictStr | None = None
    guidance_scale: Number | None = None
    loras: Loras | None = None
    image: Annotated[StrictStr | None, Field(description="picture to start from: a data URL, or a form's file")] = (
        None
    )
    log: Annotated[StrictStr | None, Field(max_length=8 << 20, description="a recipe (JSON Lines)")] = None
    idle: Literal["pause", "run", "end"] = "pause"
    idle_timeout_s: Number | None = None
    max_duration_s: Number | None = None
    metadata: Annotated[
        dict[StrictStr, StrictStr],
        _at_most(MAX_METADATA, "metadata_too_large", f"metadata has at most {MAX_METADATA} fields"),
    ] = {}


class ImageReference(Body):
    """OpenAI's way to give a picture in JSON."""

    image_url: Annotated[StrictStr, Field(description="a data URL")]


class VideoBody(Body):
    """`POST /v1/videos`. A form has only text, so numbers may come as text."""

    prompt: StrictStr | None = None
    model: Annotated[StrictStr | None, Field(description="the checkpoint's name, or nothing")] = None
    seconds: TextNumber | None = None
    size: Annotated[StrictStr | None, Field(description="WIDTHxHEIGHT in pixels")] = None
    seed: TextInt | None = None
    negative_prompt: StrictStr | None = None
    guidance_scale: TextNumber | None = None
    steps: TextInt | None = None
    motion_score: TextInt | None = None
    loras: Loras | None = None
    input_reference: Annotated[
        StrictStr | ImageReference | None,
        _alternatives("picture_type", 'must be a data URL, or {"image_url": a data URL}'),
        Field(description="picture to start from: a data URL, or a form's file"),
    ] = None


class InSeconds(Body):
    in_s: Number


class SteerBody(Body):
    """`POST /v1/streams/{id}/steers`, and the `steer` message of the events WebSocket."""

    prompt: StrictStr
    motion_score: StrictInt | None = None
    negative_prompt: StrictStr | None = None
    guidance_scale: Number | None = None
    loras: Loras | None = None
    at: Annotated[
        Literal["now"] | InSeconds,
        _alternatives("at_unknown", 'must be "now" or {"in_s": seconds}'),
    ] = "now"
