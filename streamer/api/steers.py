"""Steers: ask for another prompt, list what was asked, take one back before it locks."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from streamer.api.auth import require_control
from streamer.api.bodies import InSeconds, SteerBody
from streamer.api.state import SessionOf, StateOf
from streamer.session.session import Session

router = APIRouter(prefix="/streams/{stream}/steers", tags=["steers"])


def steer(session: Session, body: SteerBody, actor: str) -> dict[str, Any]:
    """Ask the session; the steer as the API shows it. Raises `SessionError`."""
    asked = session.steer(
        body.prompt,
        at={"in_s": body.at.in_s} if isinstance(body.at, InSeconds) else "now",
        actor=actor,
        motion_score=body.motion_score,
        negative_prompt=body.negative_prompt,
        guidance_scale=body.guidance_scale,
        loras=None if body.loras is None else [lora.model_dump() for lora in body.loras],
    )
    return asked.info()


@router.post("", status_code=202)
async def create(body: SteerBody, session: SessionOf, state: StateOf, request: Request) -> dict[str, Any]:
    require_control(request, state.settings, session)

    async def act() -> dict[str, Any]:
        state.rates.count(request, session)
        return steer(session, body, "api")

    return await state.idempotency.once(request, body, act)


@router.get("")
async def index(session: SessionOf) -> dict[str, Any]:
    return {"steers": [asked.info() for asked in session.steers]}


@router.delete("/{id}", status_code=204, response_class=Response)
async def cancel(id: str, session: SessionOf, state: StateOf, request: Request) -> None:
    """204, or 409 once it is locked."""
    require_control(request, state.settings, session)
    session.cancel_steer(id)
