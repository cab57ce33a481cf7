"""Bodies that may come as JSON, or as a form with a file."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from streamer.api.problems import Problem, not_json

FORM, JSON = "multipart/form-data", "application/json"
MAX_FIELDS = 32
MAX_FIELD_BYTES = 8 << 20
B = TypeVar("B", bound=BaseModel)


async def asked(
    request: Request, kind: type[B], *, file: str, most: int, text: Collection[str]
) -> tuple[B, bytes | None]:
    """The body, and the file that came with a form.

    Args:
        request: Not read yet.
        kind: What the body is.
        file: Name of the field that may be a file; one that is text stays in the body.
        most: Bytes that are read of the file: one more than may be, so that who checks it sees that it is too long.
        text: Fields of a form that are text; all others are JSON (numbers, objects).

    Raises:
        Problem, RequestValidationError: what is wrong with it.
    """
    content: bytes | None = None
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == FORM:
        fields, content = await _form(request, file, most)
        given: Any = {name: value if name in text else _json(value) for name, value in fields.items()}
    elif media == JSON:
        try:
            given = json.loads(await request.body())
        except (ValueError, RecursionError) as error:
            raise not_json(error) from error
    else:
        message = f"a JSON object is expected in the body, as {JSON}, or a form, as {FORM}"
        raise Problem(422, "body-missing", message, field="Content-Type", limit=[JSON, FORM])
    try:
        return kind.model_validate(given), content
    except ValidationError as error:
        # As FastAPI names the place, so that a field may be called `body` or `query`.
        wrong = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(wrong) from error


async def _form(request: Request, file: str, most: int) -> tuple[dict[str, str], bytes | None]:
    fields: dict[str, str] = {}
    content: bytes | None = None
    try:
        async with request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES) as form:
            for name, part in form.multi_items():
                if name in fields or (name == file and content is not None):
                    raise Problem(422, "field-invalid", f"{name} is there twice", field=name)
                if isinstance(part, str):
                    fields[name] = part
                elif name == file:
                    content = await part.read(most)
                else:
                    raise Problem(422, "field-invalid", f"{name} can't be a file", field=name)
    except HTTPException as error:
        if error.status_code != 400:
            raise
        raise Problem(400, "form-malformed", f"the body is not a form: {error.detail}") from error
    return fields, content


def _json(text: str) -> Any:
    """A number or object as it would stand in JSON; whatever else stays text, and is refused as such."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def schema(kind: type[BaseModel], file: str) -> dict[str, Any]:
    """`openapi_extra` of a route that takes such a body."""
    as_json = kind.model_json_schema()
    as_json = _inlined(as_json, as_json.pop("$defs", {}))
    binary = {"type": "string", "format": "binary"}
    as_form = {**as_json, "properties": {**as_json["properties"], file: binary}}
    content = {JSON: {"schema": as_json}, FORM: {"schema": as_form}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(part: Any, definitions: dict[str, Any]) -> Any:
    """A schema with its definitions in place: inside a larger document nothing finds them."""
    if isinstance(part, list):
        return [_inlined(each, definitions) for each in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _inlined(definitions[part["$ref"].rpartition("/")[2]], definitions)
    return {name: _inlined(value, definitions) for name, value in part.items()}
