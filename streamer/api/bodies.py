"""Request bodies. Unknown fields are refused by name; values are checked by the session, in one place."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

Number = StrictInt | StrictFloat


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LoraWeight(Body):
    """An adapter of a set, see `GET /v1/loras`."""

    name: StrictStr
    weight: Number


class StreamBody(Body):
    """`POST /v1/streams`. With `log`, what the log says can't be said otherwise."""

    prompt: StrictStr | None = None
    seed: StrictInt | None = None
    size: Annotated[StrictStr | None, Field(description="WIDTHxHEIGHT in pixels")] = None
    rate_hz: Number | None = None
    motion_score: StrictInt | None = None
    negative_prompt: StrictStr | None = None
    guidance_scale: Number | None = None
    loras: list[LoraWeight] | None = None
    image: Annotated[StrictStr | None, Field(description="picture to start from: a data URL, or a form's file")] = (
        None
    )
    log: Annotated[StrictStr | None, Field(max_length=8 << 20, description="a recipe (JSON Lines)")] = None
    idle: Literal["pause", "run", "end"] = "pause"
    idle_timeout_s: Number | None = None
    max_duration_s: Number | None = None
    metadata: dict[StrictStr, StrictStr] = {}


class ImageReference(Body):
    """OpenAI's way to give a picture in JSON."""

    image_url: Annotated[StrictStr, Field(description="a data URL")]


class VideoBody(Body):
    """`POST /v1/videos`. A form has only text, so numbers may come as text."""

    prompt: StrictStr | None = None
    model: Annotated[StrictStr | None, Field(description="the checkpoint's name, or nothing")] = None
    seconds: float | None = None
    size: Annotated[StrictStr | None, Field(description="WIDTHxHEIGHT in pixels")] = None
    seed: int | None = None
    negative_prompt: StrictStr | None = None
    guidance_scale: float | None = None
    steps: int | None = None
    motion_score: int | None = None
    loras: list[LoraWeight] | None = None
    input_reference: Annotated[
        StrictStr | ImageReference | None,
        Field(description="picture to start from: a data URL, or a form's file"),
    ] = None


class InSeconds(Body):
    in_s: Number


def _moment(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:  # names the alternatives one by one, not what may be said
        raise PydanticCustomError("at_unknown", 'must be "now" or {"in_s": seconds}') from None


class SteerBody(Body):
    """`POST /v1/streams/{id}/steers`, and the `steer` message of the events WebSocket."""

    prompt: StrictStr
    motion_score: StrictInt | None = None
    negative_prompt: StrictStr | None = None
    guidance_scale: Number | None = None
    loras: list[LoraWeight] | None = None
    at: Annotated[Literal["now"] | InSeconds, WrapValidator(_moment)] = "now"
