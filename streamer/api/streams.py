"""Streams: create, look at, list, end, and take the recipe."""

from __future__ import annotations

import io
from typing import Annotated, Any, Literal

import segno
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse

from streamer.api import forms, images
from streamer.api.auth import require_admin, require_control
from streamer.api.bodies import StreamBody
from streamer.api.problems import Problem
from streamer.api.state import SessionOf, State, StateOf
from streamer.session import loras, spec
from streamer.session.events import rfc3339
from streamer.session.session import Session
from streamer.session.spec import CreateStream

router = APIRouter(prefix="/streams", tags=["streams"])

IMAGE = "image"
_TEXT = ("prompt", "size", "negative_prompt", IMAGE, "log", "idle")
"""Fields of a form that are text; all others are JSON."""


def shown(session: Session, state: State, request: Request) -> dict[str, Any]:
    """A stream as the API shows it, with the addresses of its parts."""
    base = str(request.base_url).rstrip("/")
    live = base.replace("http", "ws", 1)
    path = f"/v1/streams/{session.id}"
    in_force = session.in_force
    page = "/" if state.sessions.is_main(session) else f"/s/{session.id}"
    return {
        "id": session.id,
        "status": session.status,
        "reason": session.reason,
        "prompt": session.prompt,
        "motion_score": in_force.motion_score,
        "negative_prompt": in_force.negative_prompt,
        "guidance_scale": in_force.guidance_scale,
        "loras": loras.shown(in_force.loras),
        "seed": session.seed,
        "size": f"{session.width}x{session.height}",
        "rate_hz": session.rate_hz,
        "picture": session.picture,
        "tick": session.tick,
        "seq": session.events.seq,
        "viewers": session.viewers,
        "lead_s": round(session.lead_s, 3),
        "created_at": rfc3339(session.created_at),
        "expires_at": None if session.expires_at is None else rfc3339(session.expires_at),
        "idle": session.spec.idle,
        "metadata": session.spec.metadata,
        "urls": {
            "page": f"{base}{page}",
            "output": f"{base}{page}?output",
            "kiosk": f"{base}{page}?kiosk",
            "whep": f"{base}{path}/whep",
            "video": f"{live}{path}/video",
            "events": f"{live}{path}/events",
            "log": f"{base}{path}/log",
            "poster": f"{base}{path}/poster.jpg",
        },
    }


@router.post("", status_code=201, openapi_extra=forms.schema(StreamBody, IMAGE))
async def create(state: StateOf, request: Request, response: Response) -> dict[str, Any]:
    """A new stream; its control token is shown only here. 409 `clips-only` where the checkpoint makes no streams."""
    state.sessions.require_streams()
    body, file = await forms.asked(request, StreamBody, file=IMAGE, most=images.MAX_IMAGE_BYTES + 1, text=_TEXT)
    if body.image is not None:
        file = await images.from_data_url(body.image)
    if file is not None:
        body = body.model_copy(update={IMAGE: await images.digest(file)})

    async def act() -> dict[str, Any]:
        png = None
        if file is not None:
            width, height = spec.size(body.size, state.ready.model)
            png = await images.fitted(file, width, height)
        if body.log is not None:
            await images.check_log(body.log)
        session = state.sessions.create(CreateStream(**body.model_dump(exclude={IMAGE}), image=png))
        first = session.in_force
        warnings = spec.warnings(state.ready.model, first.motion_score, first.negative_prompt, first.guidance_scale)
        told = {"warnings": warnings} if warnings else {}
        return {**shown(session, state, request), **told, "control_token": session.control_token}

    created = await state.idempotency.once(request, body, act)
    response.headers["Location"] = f"/v1/streams/{created['id']}"
    return created


@router.get("")
async def index(state: StateOf, request: Request) -> dict[str, Any]:
    require_admin(request, state.settings)
    return {"streams": [shown(session, state, request) for session in state.sessions.list()]}


@router.get("/{stream}")
async def show(session: SessionOf, state: StateOf, request: Request) -> dict[str, Any]:
    return shown(session, state, request)


@router.delete("/{stream}", status_code=204, response_class=Response)
async def end(session: SessionOf, state: StateOf, request: Request) -> None:
    require_control(request, state.settings, session)
    await session.end("ended by request")


@router.get("/{stream}/log", response_class=PlainTextResponse)
async def log(stream: str, state: StateOf) -> Response:
    """The recipe, JSON Lines; also of a stream that has ended, as long as it is kept."""
    session = state.sessions.get(stream)
    text = "".join(f"{line}\n" for line in session.log_lines())
    disposition = f'inline; filename="{session.id}.jsonl"'
    return Response(text, media_type="application/jsonl", headers={"Content-Disposition": disposition})


@router.get("/{stream}/poster.jpg", response_class=Response)
async def poster(session: SessionOf, width: Annotated[int | None, Query(ge=16, le=1280)] = None) -> Response:
    """The picture shown last; `width` makes it larger or smaller."""
    picture = await session.hub.poster()
    if picture is None:
        raise Problem(404, "no-picture", "this stream has shown no picture yet")
    if width is not None:
        picture = await images.resized(picture, width)
    return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


@router.get("/{stream}/qr.svg", response_class=Response)
async def qr(
    session: SessionOf, state: StateOf, request: Request, view: Literal["steer", "watch", "output"] = "steer"
) -> Response:
    """The address of the stream's page as a QR code, for phones before a wall. It holds no token."""
    page = shown(session, state, request)["urls"]["page"]
    code = segno.make(page if view == "steer" else f"{page}?{view}", error="m", micro=False)
    file = io.BytesIO()
    code.save(file, kind="svg", border=3, dark="#0b0c0e", light="#fff", omitsize=True)
    return Response(file.getvalue(), media_type="image/svg+xml", headers={"Cache-Control": "max-age=3600"})
