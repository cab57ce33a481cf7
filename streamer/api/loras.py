"""Adapters: list them, load another one while streams run, take one away."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import StrictStr

from streamer.api.auth import require_admin
from streamer.api.bodies import Body, Number
from streamer.api.problems import Problem
from streamer.api.state import State, StateOf
from streamer.engine.info import LoraInfo
from streamer.engine.loras import LoraError
from streamer.session.loras import MAX_WEIGHT

router = APIRouter(prefix="/loras", tags=["loras"])

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)


class LoraBody(Body):
    """`POST /v1/loras`. `path` lies in the server's `--lora-dir`; `weight` is what new streams have of it."""

    name: StrictStr
    path: StrictStr
    weight: Number = 0


def shown(info: LoraInfo) -> dict[str, Any]:
    """An adapter as the API shows it."""
    return {
        "name": info.name,
        "weight": info.weight,
        "sha256": info.sha256,
        "rank": info.rank,
        "layers": info.layers,
        "bytes": info.nbytes,
    }


@router.get("")
async def index(state: StateOf) -> dict[str, Any]:
    """503 until the model is warm."""
    return {"loras": [shown(info) for info in state.ready.model.loras.values()]}


@router.post("", status_code=201)
async def create(body: LoraBody, state: StateOf, request: Request) -> dict[str, Any]:
    """Answered when it is loaded. No stream notices, and none has it until it is asked for."""
    require_admin(request, state.settings)
    if NAME.fullmatch(body.name) is None:
        detail = "a name has 1 to 64 letters, digits, _, - and ."
        raise Problem(422, "field-invalid", detail, field="name", limit=64)
    if not -MAX_WEIGHT <= body.weight <= MAX_WEIGHT:
        detail = f"weight must be {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
        raise Problem(422, "out-of-range", detail, field="weight", limit=[-MAX_WEIGHT, MAX_WEIGHT])
    if body.name in state.ready.model.loras:
        raise Problem(409, "lora-exists", f"there is an adapter {body.name} already", field="name")
    path = _inside(body.path, state.settings.lora_dir)
    try:
        return shown(await state.engine.loras.load(body.name, str(path), float(body.weight)))
    except LoraError as error:
        raise Problem(422, "lora-refused", str(error), field="path") from error


@router.delete("/{name}", status_code=204, response_class=Response)
async def drop(name: str, state: StateOf, request: Request) -> None:
    """204, or 409 while a stream has it in its log or its steers, or a clip waits for it."""
    require_admin(request, state.settings)
    info = state.ready.model.loras.get(name)
    if info is None:
        raise Problem(404, "lora-unknown", f"there is no adapter {name!r} here", field="name")
    users = _users(state, info.sha256)
    if users:
        detail = f"{len(users)} running streams or clips need adapter {name}"
        raise Problem(409, "lora-in-use", detail, field="name", streams=users)
    state.engine.loras.drop(name)


def _inside(path: str, folder: Path | None) -> Path:
    """The path within the allowed folder. Nothing outside it is looked at, also through links."""
    if folder is None:
        detail = "this server loads no adapters later: start it with --lora-dir"
        raise Problem(403, "lora-dir-missing", detail, field="path")
    root = folder.resolve()
    try:
        found = (root / path).resolve()
    except (OSError, ValueError):
        found = root.parent
    if not found.is_relative_to(root) or found == root:
        raise Problem(422, "lora-path-refused", "path must lie inside the server's --lora-dir", field="path")
    return found


def _users(state: State, sha256: str) -> list[str]:
    streams = [
        session.id
        for session in state.sessions.list()
        if not session.over
        and any(
            lora.sha256 == sha256
            for steer in (*session.steers.locked, *session.steers.pending)
            for lora in steer.loras
        )
    ]
    return [*streams, *state.clips.using(sha256)]
