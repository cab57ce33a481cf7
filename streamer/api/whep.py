"""WHEP (draft-ietf-wish-whep): an SDP offer is answered with 201 and the address of the connection."""

from __future__ import annotations

from typing import Any

from aiortc import RTCIceServer
from fastapi import APIRouter, Request, Response

from streamer.api.problems import Problem
from streamer.api.state import SessionOf, State, StateOf
from streamer.media.whep import WhepError, WhepResource

router = APIRouter(prefix="/streams/{stream}/whep", tags=["video"])

_STATUS = {"sdp-malformed": 400, "sdp-unsupported": 422, "viewers-full": 503, "stream-ended": 410}


@router.post("", status_code=201, response_class=Response)
async def offer(session: SessionOf, state: StateOf, request: Request) -> Response:
    """The offer as `application/sdp`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/sdp":
        raise Problem(
            415, "type-unsupported", "an offer is application/sdp", field="Content-Type", limit="application/sdp"
        )
    try:
        text = (await request.body()).decode()
    except UnicodeDecodeError:
        raise Problem(400, "sdp-malformed", "the offer is not UTF-8", field="body") from None
    servers = [RTCIceServer(urls=url) for url in state.settings.ice_servers]

    def gone(resource: WhepResource) -> None:
        state.connections.pop(resource.id, None)

    try:
        resource = await WhepResource.open(session.hub, text, ice_servers=servers, on_gone=gone)
    except WhepError as error:
        status = _STATUS.get(error.code, 422)
        retry_after_s = 5.0 if status == 503 else None
        field = "body" if error.code.startswith("sdp") else None
        raise Problem(
            status, error.code, error.detail, field=field, limit=error.limit, retry_after_s=retry_after_s
        ) from error
    state.connections[resource.id] = resource
    headers = {"Location": f"/v1/streams/{session.id}/whep/{resource.id}"}
    return Response(resource.answer, 201, headers, media_type="application/sdp")


@router.get("/{id}")
async def show(id: str, session: SessionOf, state: StateOf) -> dict[str, Any]:
    """Where this connection's RTP time starts: tick k has RTP timestamp (origin + k * 90,000 / rate_hz) mod 2^32.

    `rtp_origin` is null before the first picture was sent.
    """
    resource = _connection(state, id)
    return {"id": resource.id, "rtp_origin": resource.rtp_origin(), "rate_hz": float(session.rate_hz)}


@router.delete("/{id}", status_code=204, response_class=Response)
async def close(id: str, state: StateOf) -> None:
    """End the connection; who knows its id may."""
    await _connection(state, id).close()


def _connection(state: State, id: str) -> WhepResource:
    if id not in state.connections:
        raise Problem(404, "connection-unknown", f"no connection {id!r} here", field="id")
    return state.connections[id]
