"""Clips, in the shape of OpenAI's Videos API (`docs/videos.md`): ask, look, fetch, delete."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from msgspec.structs import replace
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from streamer.api import forms, images
from streamer.api.auth import require_admin, require_control
from streamer.api.bodies import VideoBody
from streamer.api.head import as_asked
from streamer.api.problems import Problem
from streamer.api.state import State, StateOf
from streamer.clips.spec import CreateClip, clip_order
from streamer.clips.video import Video, VideoStatus
from streamer.session import loras

router = APIRouter(prefix="/videos", tags=["videos"])

MAX_PAGE = 100
MAX_WAIT_S = 30.0
PICTURE = "input_reference"
_TEXT = tuple(name for name in VideoBody.model_fields if name != "loras")


def shown(video: Video, state: State) -> dict[str, Any]:
    """A clip as the API shows it: OpenAI's members (times in Unix seconds), then ours."""
    record, order = video.record, video.record.order
    place = state.clips.place(video)
    waits = "another video is made first" if place == 1 else f"{place} videos are made first" if place else None
    return {
        "id": record.id,
        "object": "video",
        "model": order.model,
        "status": record.status,
        "progress": video.progress,
        "created_at": int(record.created_at),
        "completed_at": int(record.completed_at or 0) if record.status is VideoStatus.COMPLETED else None,
        "expires_at": None if record.expires_at is None else int(record.expires_at),
        "size": f"{order.width}x{order.height}",
        "seconds": f"{order.seconds:g}",
        "prompt": order.prompt,
        "remixed_from_video_id": None,
        "error": None if record.error is None else {"code": record.error.code, "message": record.error.message},
        "reason": video.reason or waits,
        "restarts": record.restarts,
        "pictures": order.frames,
        "rate_hz": order.rate_hz,
        "bytes": record.bytes or None,
        "seed": order.seed,
        "negative_prompt": order.negative_prompt,
        "guidance_scale": order.guidance_scale,
        "steps": order.steps,
        "motion_score": order.motion_score,
        "loras": loras.shown(order.loras),
    }


async def video_of(video: str, state: StateOf) -> Video:
    """The clip of a path's `{video}`. Raises `VideoUnknown`."""
    return state.clips.get(video)


VideoOf = Annotated[Video, Depends(video_of)]


@router.post("", openapi_extra=forms.schema(VideoBody, PICTURE))
async def create(state: StateOf, request: Request, response: Response) -> dict[str, Any]:
    """A new clip; its control token is shown only here."""
    # Numbers of a form stay text: OpenAI's `seconds` is text in JSON, too.
    body, file = await forms.asked(request, VideoBody, file=PICTURE, most=images.MAX_IMAGE_BYTES + 1, text=_TEXT)
    reference = body.input_reference
    if reference is not None:
        url = reference if isinstance(reference, str) else reference.image_url
        file = await images.from_data_url(url, PICTURE)
    if file is not None:
        body = body.model_copy(update={PICTURE: await images.digest(file)})

    async def act() -> dict[str, Any]:
        order = clip_order(CreateClip(**body.model_dump(exclude={PICTURE})), state.ready)
        if file is not None:
            order = replace(order, image=await images.fitted(file, order.width, order.height, PICTURE))
        video = await state.clips.create(order)
        return {**shown(video, state), "control_token": video.control_token}

    created = await state.idempotency.once(request, body, act)
    response.headers["Location"] = f"/v1/videos/{created['id']}"
    return created


@router.get("")
async def index(
    state: StateOf,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    after: str | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> dict[str, Any]:
    """A page of clips by their creation; `after` is the last id of the page before."""
    require_admin(request, state.settings)
    videos, more = state.clips.list(limit, after, newest_first=order == "desc")
    ids = [video.id for video in videos]
    return {
        "object": "list",
        "data": [shown(video, state) for video in videos],
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": more,
    }


@router.get("/{video}")
async def show(
    video: VideoOf, state: StateOf, wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 0.0
) -> dict[str, Any]:
    """A clip; with `wait_s` as soon as it changes, or after that time, and at once when it is over."""
    if wait_s:
        await video.change(wait_s)
    return shown(video, state)


@router.get("/{video}/content", response_class=FileResponse)
async def content(video: VideoOf, state: StateOf, variant: Literal["video"] = "video") -> Response:
    """The MP4; ranges of it, too."""
    path = state.clips.file(video)
    return _Ranges(path, media_type="video/mp4", filename=path.name, content_disposition_type="inline")


@router.delete("/{video}")
async def delete(video: VideoOf, state: StateOf, request: Request) -> dict[str, Any]:
    """End it if it is not over, and forget it."""
    require_control(request, state.settings, video)
    await state.clips.delete(video)
    return {"id": video.id, "object": "video.deleted", "deleted": True}


class _Ranges(FileResponse):
    """A file that refuses impossible ranges as everything here is refused."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = False

        async def checked(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                refused = True
            if not refused:
                await send(message)

        await super().__call__(as_asked(scope), receive, checked)
        if refused:
            problem = Problem(416, "range-invalid", "the file has no such range of bytes", field="Range")
            await problem.response(scope.get("state", {}).get("request_id"))(scope, receive, send)
