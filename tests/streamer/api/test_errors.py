"""Every kind of bad input is refused as problem+json with field and limit, and the running stream never notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Server, serve
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

pytestmark = pytest.mark.asyncio(loop_scope="module")

STREAMS = "/v1/streams"
STEERS = "/v1/streams/main/steers"

BAD = [
    ("unknown field", STREAMS, {"prompt": "the sea", "colour": 1}, 422, "unknown-field", "colour", None),
    ("no prompt", STREAMS, {}, 422, "prompt-empty", "prompt", None),
    ("empty prompt", STREAMS, {"prompt": " \n"}, 422, "prompt-empty", "prompt", None),
    ("prompt of a wrong type", STREAMS, {"prompt": 5}, 422, "field-invalid", "prompt", None),
    ("impossible size", STREAMS, {"prompt": "sea", "size": "1920x1080"}, 422, "size-unsupported", "size", ["64x64"]),
    ("no size at all", STREAMS, {"prompt": "sea", "size": "big"}, 422, "size-unsupported", "size", ["64x64"]),
    ("a seed of many digits", STREAMS, {"prompt": "sea", "seed": 10**400}, 422, "out-of-range", "seed", ...),
    ("negative seed", STREAMS, {"prompt": "sea", "seed": -1}, 422, "out-of-range", "seed", [0, 2**64 - 1]),
    ("rate above the model's", STREAMS, {"prompt": "sea", "rate_hz": 240}, 422, "rate-unsupported", "rate_hz", ...),
    ("a rate that is no number", STREAMS, {"prompt": "sea", "rate_hz": "4"}, 422, "field-invalid", "rate_hz", None),
    ("unknown field of a telling name", STREAMS, {"prompt": "sea", "body": 1}, 422, "unknown-field", "body", None),
    ("unknown idle rule", STREAMS, {"prompt": "sea", "idle": "never"}, 422, "field-invalid", "idle", ...),
    ("very many adapters", STREAMS, {"prompt": "a", "loras": [{}] * 100_000}, 422, "loras-too-many", "loras", 64),
    (
        "very many fields",
        STREAMS,
        {"prompt": "a"} | dict.fromkeys(map(str, range(100_000)), 0),
        422,
        "unknown-field",
        "0",
        None,
    ),
    (
        "very many fields inside",
        STREAMS,
        {"prompt": "a", "loras": [dict.fromkeys(map(str, range(100_000)), 0)]},
        422,
        "unknown-field",
        "loras.0.0",
        None,
    ),
    (
        "very much metadata",
        STREAMS,
        {"prompt": "a", "metadata": dict.fromkeys(map(str, range(100_000)), 0)},
        422,
        "metadata-too-large",
        "metadata",
        16,
    ),
    ("a log that is none", STREAMS, {"log": "hello"}, 422, "log-malformed", ..., None),
    (
        "an adapter's weight that is none",
        STEERS,
        {"prompt": "sea", "loras": [{"name": "ink", "weight": "1"}]},
        422,
        "field-invalid",
        "loras.0.weight",
        None,
    ),
    ("empty steer", STEERS, {"prompt": ""}, 422, "prompt-empty", "prompt", None),
    ("steer without prompt", STEERS, {}, 422, "field-missing", "prompt", None),
    ("steer with an unknown field", STEERS, {"prompt": "sea", "blend": 2}, 422, "unknown-field", "blend", None),
    (
        "steer in the past",
        STEERS,
        {"prompt": "sea", "at": {"in_s": -1}},
        422,
        "out-of-range",
        "at.in_s",
        [0.0, 600.0],
    ),
    ("steer at a bad moment", STEERS, {"prompt": "sea", "at": "noon"}, 422, "field-invalid", "at", None),
    ("steer at a picture", STEERS, {"prompt": "sea", "at": {"picture": 9}}, 422, "field-invalid", "at", None),
]


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code), body
    assert body["detail"]
    return body


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "field", "limit"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
async def test_bad_field_is_named(
    http: httpx.AsyncClient, path: str, body: dict[str, Any], status: int, code: str, field: Any, limit: Any
) -> None:
    told = problem(await http.post(path, json=body), status, code)
    if field is not ...:
        assert told.get("field") == field
    if limit is not ...:
        assert told.get("limit") == limit


@pytest.mark.parametrize("path", [STREAMS, STEERS])
async def test_over_long_prompt_names_the_limit(http: httpx.AsyncClient, path: str) -> None:
    limit = (await http.get("/v1/model")).json()["limits"]["prompt_chars"]
    told = problem(await http.post(path, json={"prompt": "x" * (limit + 1)}), 422, "prompt-too-long")
    assert (told["field"], told["limit"]) == ("prompt", limit)


@pytest.mark.parametrize("path", [STREAMS, STEERS])
@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b'{"prompt": "sea", "motion_score": ' + b"9" * 5000 + b"}"])
async def test_body_that_is_no_json(http: httpx.AsyncClient, path: str, body: bytes) -> None:
    answer = await http.post(path, content=body, headers={"content-type": "application/json"})
    assert "sys." not in problem(answer, 400, "json-malformed")["detail"]


async def test_the_largest_seed_is_written_out(http: httpx.AsyncClient) -> None:
    answer = await http.post(STREAMS, json={"prompt": "sea", "seed": 2**64})
    assert problem(answer, 422, "out-of-range")["detail"] == f"seed must be 0 to {2**64 - 1}"


async def test_a_name_that_is_no_text(http: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    problem(
        await http.post(STEERS, content=rb'{"prompt": "sea", "\ud800": 1}', headers=headers), 422, "unknown-field"
    )


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/model", "/v1/streams/main", "/v1/streams/main/log"])
async def test_head_answers_as_get_does(http: httpx.AsyncClient, path: str) -> None:
    """Uptime monitors and link previews ask this way."""
    asked = await http.head(path)
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["content-type"] == (await http.get(path)).headers["content-type"]


@pytest.mark.parametrize(
    ("message", "code", "field", "ref"),
    [
        (r'{"type": "steer", "ref": 1}', "field-missing", "prompt", 1),
        (r'{"type": "steer", "ref": 1, "prompt": "a", "guidance_scale": "2"}', "field-invalid", "guidance_scale", 1),
        (r'{"type": "steer", "ref": "\ud800", "prompt": ""}', "prompt-empty", "prompt", "\ud800"),
        (r'{"type": "steer", "ref": 1, "prompt": "\ud800"}', "field-invalid", "prompt", 1),
        (r'{"type": "steer", "ref": 1, "prompt": "a", "\ud800": 1}', "unknown-field", None, 1),
        (r'{"type": "steer", "ref": NaN, "prompt": "a"}', "field-invalid", "ref", None),
        (r'{"type": "steer", "ref": [1e999], "prompt": "a"}', "field-invalid", "ref", None),
    ],
)
async def test_a_bad_steer_over_the_socket_is_answered(
    server: Server, message: str, code: str, field: str | None, ref: object
) -> None:
    async with connect(f"{server.url}/v1/streams/main/events".replace("http", "ws")) as socket:
        await socket.send(message)
        async with asyncio.timeout(20):
            while (told := json.loads(await socket.recv()))["type"] != "error":
                pass
    assert (told["data"]["code"], told["data"].get("field"), told["ref"]) == (code, field, ref)


@pytest.mark.parametrize(
    ("path", "field", "body"),
    [
        (STEERS, "prompt", rb'{"prompt": "\ud800"}'),
        (STREAMS, "negative_prompt", rb'{"prompt": "sea", "negative_prompt": "\ud800"}'),
        (STREAMS, "metadata", rb'{"prompt": "sea", "metadata": {"\ud800": "x"}}'),
        (STREAMS, "log", rb'{"log": "\ud800"}'),
    ],
)
async def test_text_that_no_event_or_log_can_hold(
    http: httpx.AsyncClient, path: str, field: str, body: bytes
) -> None:
    answer = await http.post(path, content=body, headers={"content-type": "application/json"})
    assert problem(answer, 422, "field-invalid")["field"] == field
    assert "\\ud800" not in (await http.get(STEERS)).text


LIMITS = [(STREAMS, 15 << 20), ("/v1/streams/main/steers", 256 << 10)]
"""Where a picture may be in the body, and where not."""


@pytest.mark.parametrize(("path", "limit"), LIMITS)
async def test_over_long_body(http: httpx.AsyncClient, path: str, limit: int) -> None:
    answer = await http.post(path, content=b" " * (limit + 1), headers={"content-type": "application/json"})
    assert problem(answer, 413, "body-too-large")["limit"] == limit


@pytest.mark.parametrize(("path", "limit"), LIMITS)
async def test_over_long_body_of_unknown_length(http: httpx.AsyncClient, path: str, limit: int) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range((limit >> 18) + 1):
            yield b" " * (1 << 18)

    answer = await http.post(path, content=pieces(), headers={"content-type": "application/json"})
    assert problem(answer, 413, "body-too-large")["limit"] == limit


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/streams/str_none"),
        ("DELETE", "/v1/streams/str_none"),
        ("GET", "/v1/streams/str_none/log"),
        ("GET", "/v1/streams/str_none/steers"),
        ("DELETE", "/v1/streams/main/steers/ste_none"),
        ("DELETE", "/v1/streams/main/whep/none"),
        ("GET", "/v1/nothing"),
    ],
)
async def test_what_is_unknown_is_404(http: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_unknown_method_is_405(http: httpx.AsyncClient) -> None:
    problem(await http.put("/v1/streams/main"), 405, "method-not-allowed")


async def test_ended_stream_is_410_and_keeps_its_log(http: httpx.AsyncClient) -> None:
    created = (await http.post(STREAMS, json={"prompt": "the sea by day", "seed": 3})).json()
    path = f"{STREAMS}/{created['id']}"
    assert (await http.delete(path)).status_code == 204
    problem(await http.get(path), 410, "stream-ended")
    problem(await http.post(f"{path}/steers", json={"prompt": "night"}), 410, "stream-ended")
    header = json.loads((await http.get(f"{path}/log")).text.splitlines()[0])
    assert (header["prompt"], header["seed"]) == ("the sea by day", 3)


@pytest.mark.parametrize(
    ("offer", "kind", "status", "code"),
    [
        (b"v=0\r\nnonsense", "application/sdp", 400, "sdp-malformed"),
        (b"\xff\xfe", "application/sdp", 400, "sdp-malformed"),
        (b"{}", "application/json", 415, "type-unsupported"),
    ],
)
async def test_malformed_offer(http: httpx.AsyncClient, offer: bytes, kind: str, status: int, code: str) -> None:
    answer = await http.post("/v1/streams/main/whep", content=offer, headers={"content-type": kind})
    problem(answer, status, code)


@pytest.mark.parametrize("foreign", ["https://evil.example", "null", "http://localhost:1"])
async def test_foreign_origin_changes_nothing(http: httpx.AsyncClient, server: Server, foreign: str) -> None:
    headers = {"Origin": foreign}
    told = problem(await http.post(STEERS, json={"prompt": "night"}, headers=headers), 403, "origin-refused")
    assert told["field"] == "Origin"
    problem(await http.delete("/v1/streams/main", headers=headers), 403, "origin-refused")
    for part in ("events", "video"):
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{server.url}/v1/streams/main/{part}".replace("http", "ws"), additional_headers=headers)
        assert refused.value.response.status_code == 403


async def test_own_origin_may(http: httpx.AsyncClient, origin: dict[str, str]) -> None:
    answer = await http.post(STEERS, json={"prompt": "the sea at night"}, headers=origin)
    assert answer.status_code == 202
    assert answer.json()["status"] in ("queued", "locked")


async def test_rebound_name_is_refused(http: httpx.AsyncClient) -> None:
    """A page whose own name was made to resolve to 127.0.0.1 has a matching Origin, but its own Host."""
    headers = {"Host": "evil.example", "Origin": "http://evil.example"}
    problem(await http.post(STEERS, json={"prompt": "night"}, headers=headers), 400, "host-refused")


async def test_body_of_another_type(http: httpx.AsyncClient) -> None:
    """What curl -d sends without a header."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    problem(await http.post(STEERS, content=b'{"prompt": "night"}', headers=headers), 422, "body-missing")


async def test_a_socket_to_nowhere_is_404(server: Server) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{server.url}/v1/nowhere".replace("http", "ws"))
    assert json.loads(refused.value.response.body or b"")["code"] == "not-found"
    assert refused.value.response.status_code == 404


async def test_a_refused_socket_is_no_error_of_the_server(tiny_model: Path) -> None:
    """A page that waits for the model asks again and again: no line in the log for each."""
    async with serve(tiny_model, ready=False) as server:
        with pytest.raises(InvalidStatus):
            await connect(f"{server.url}/v1/streams/main/video".replace("http", "ws"))
        await server.line("ready")
    assert not [line for line in server.output if "ERROR" in line]


async def test_malformed_event_number(server: Server) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{server.url}/v1/streams/main/events?after=x".replace("http", "ws"))
    body = json.loads(refused.value.response.body or b"")
    assert (body["status"], body["code"], body["field"]) == (422, "field-invalid", "after")


async def test_log_of_other_weights(http: httpx.AsyncClient) -> None:
    created = (await http.post(STREAMS, json={"prompt": "the sea"})).json()
    lines = (await http.get(f"{STREAMS}/{created['id']}/log")).text.splitlines()
    header = json.loads(lines[0])
    assert header["weights"] == (await http.get("/v1/model")).json()["weights_hash"]
    header["weights"] = "0" * len(header["weights"])
    answer = await http.post(STREAMS, json={"log": "\n".join([json.dumps(header), *lines[1:]])})
    problem(answer, 422, "log-other-weights")
    await http.delete(f"{STREAMS}/{created['id']}")


async def test_the_same_key_happens_once(http: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "k1"}
    first = (await http.post(STREAMS, json={"prompt": "the sea"}, headers=key)).json()
    again = (await http.post(STREAMS, json={"prompt": "the sea"}, headers=key)).json()
    assert first == again
    problem(await http.post(STREAMS, json={"prompt": "the lake"}, headers=key), 422, "key-reused")
    other = await http.post(STREAMS, json={"prompt": "the sea"}, headers=key | {"Authorization": "Bearer other"})
    assert other.json()["id"] != first["id"]
    await http.delete(f"{STREAMS}/{other.json()['id']}")
    await http.delete(f"{STREAMS}/{first['id']}")


async def test_a_running_stream_never_notices(http: httpx.AsyncClient, server: Server) -> None:
    """While every bad request of this file is made, a viewer gets every picture in order."""
    async with connect(f"{server.url}/v1/streams/main/video".replace("http", "ws"), max_size=None) as viewer:
        hello = json.loads(await viewer.recv())
        assert hello["mime"].startswith("video/mp4")

        async def offend() -> None:
            for _, path, body, status, *_ in BAD:
                assert (await http.post(path, json=body)).status_code == status

        offending = asyncio.create_task(offend())
        async with asyncio.timeout(60):
            for _ in range(32):
                assert isinstance(await viewer.recv(), bytes)
            await offending
            for _ in range(16):
                assert isinstance(await viewer.recv(), bytes)
    assert (await http.get("/v1/streams/main")).json()["status"] in ("live", "paused")
