"""Request bodies. Unknown fields are refused by name; values are checked by the session, in one place."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr

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


class SteerBody(Body):
    """`POST /v1/streams/{id}/steers`, and the `steer` message of the events WebSocket."""

    prompt: StrictStr
    motion_score: StrictInt | None = None
    negative_prompt: StrictStr | None = None
    guidance_scale: Number | None = None
    at: Annotated[Literal["now"] | InSeconds, Field(union_mode="left_to_right")] = "now"
