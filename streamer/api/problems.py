"""Errors as problem+json (RFC 9457): every refusal names its code, the field and the limit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from streamer.session.errors import SessionError

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """A refusal of this layer; refusals of the session arrive as `SessionError`."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        limit: Any = None,
        retry_after_s: float | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.limit = limit
        self.retry_after_s = retry_after_s
        self.extra = extra

    def body(self, request_id: str | None) -> dict[str, Any]:
        """The JSON members; those without a value are left out."""
        members = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "field": self.field,
            "limit": self.limit,
            "retry_after_s": self.retry_after_s,
            "request_id": request_id,
            **self.extra,
        }
        return {name: value for name, value in members.items() if value is not None}

    def response(self, request_id: str | None) -> JSONResponse:
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        return JSONResponse(self.body(request_id), self.status, headers, media_type=MEDIA_TYPE)


def from_session(error: SessionError) -> Problem:
    """A session's refusal in this layer's words."""
    return Problem(
        error.status,
        error.code,
        str(error),
        field=error.field,
        limit=error.limit,
        retry_after_s=error.retry_after_s,
        **error.extra,
    )


def from_validation(error: RequestValidationError | WebSocketRequestValidationError) -> Problem:
    """The first thing wrong with a request's parts, by its field."""
    fault = error.errors()[0]
    return from_fault(fault, fault["loc"][fault["loc"][:1] in (("body",), ("query",), ("path",), ("header",)) :])


def from_fault(fault: Mapping[str, Any], where: Sequence[int | str]) -> Problem:
    """What pydantic found wrong at a place of the body."""
    place = [str(part) for part in where]
    field = ".".join(place) or None
    kind = fault["type"]
    limits = {name: value for name, value in fault.get("ctx", {}).items() if isinstance(value, int | float | str)}
    if kind == "unknown_field":
        field = ".".join([*place, fault["ctx"]["name"]])
    if kind in ("loras_too_many", "metadata_too_large"):
        return Problem(422, kind.replace("_", "-"), fault["msg"], field=field, limit=fault["ctx"]["limit"])
    if kind in ("extra_forbidden", "unknown_field"):
        return Problem(422, "unknown-field", f"there is no field {field!r} here", field=field)
    if kind == "json_invalid":
        return not_json(fault.get("ctx", {}).get("error", ""))
    if kind == "string_unicode" and field is None:
        return Problem(422, "unknown-field", "a field's name is not Unicode")
    if field is None:
        return Problem(422, "body-missing", "a JSON object is expected in the body, as application/json")
    code = "field-missing" if kind == "missing" else "field-invalid"
    return Problem(422, code, f"{field}: {fault['msg']}", field=field, limit=limits or None)


def not_json(why: object) -> Problem:
    """A body that the parser refused, in its words; after a semicolon it advises whoever wrote the server."""
    return Problem(400, "json-malformed", f"the body is not JSON: {str(why).partition(';')[0]}")


def request_id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)


def install(app: FastAPI) -> None:
    """Answer every error of `app` as problem+json."""

    @app.exception_handler(Problem)
    async def on_problem(request: Request, error: Problem) -> JSONResponse:
        return error.response(request_id(request))

    @app.exception_handler(SessionError)
    async def on_session_error(request: Request, error: SessionError) -> JSONResponse:
        return from_session(error).response(request_id(request))

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        return from_validation(error).response(request_id(request))

    @app.exception_handler(WebSocketRequestValidationError)
    async def on_handshake_error(socket: WebSocket, error: WebSocketRequestValidationError) -> None:
        await socket.send_denial_response(from_validation(error).response(None))

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400 and isinstance(error.__cause__, ValueError | RecursionError):
            # FastAPI's own words for JSON that the parser gave up on: nested too deep, a number of too many digits.
            return not_json(error.__cause__).response(request_id(request))
        phrase = HTTPStatus(error.status_code).phrase
        problem = Problem(error.status_code, phrase.lower().replace(" ", "-"), str(error.detail or phrase))
        answer = problem.response(request_id(request))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        # Starlette logs the traceback; the caller is told no more than where to find it.
        return Problem(500, "internal", "an error of the server; its log has it").response(request_id(request))
