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


class StreamBody(Body):
    """`POST /v1/streams`. With `log`, what the log says can't be said otherwise."""

    prompt: StrictStr | None = None
    seed: StrictInt | None = None
    size: Annotated[StrictStr | None, Field(description="WIDTHxHEIGHT in pixels")] = None
    rate_hz: Number | None = None
    motion_score: StrictInt | None = None
    negative_prompt: StrictStr | None = None
    guidance_scale: Number | None = None
    log: Annotated[StrictStr | None, Field(max_length=8 << 20, description="a recipe (JSON Lines)")] = None
    idle: Literal["pause", "run", "end"] = "pause"
    idle_timeout_s: Number | None = None
    max_duration_s: Number | None = None
    metadata: dict[StrictStr, StrictStr] = {}


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
    at: Annotated[Literal["now"] | InSeconds, WrapValidator(_moment)] = "now"
