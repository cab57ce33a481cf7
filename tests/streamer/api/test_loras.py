"""Adapters of a running server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from serving import Server, run, serve
from tiny_lora import save_tiny_lora
from websockets.asyncio.client import connect

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`allowed` may be loaded from later; `ink` and the link `allowed/out` to it may not."""
    folder = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate(("ink", "allowed/glow"), 1):
        save_tiny_lora(folder / name, seed)
    (folder / "allowed" / "out").symlink_to(folder / "ink")
    (folder / "allowed" / "broken.safetensors").write_bytes(b"no")
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tiny_model: Path, folder: Path) -> AsyncIterator[Server]:
    options = ("--lora", f"ink={folder / 'ink'}:0.25", "--lora-dir", str(folder / "allowed"))
    async with serve(tiny_model, *options) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=30.0, trust_env=False) as client:
        yield client


async def refused(answer: httpx.Response) -> tuple[int, str, str | None]:
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, body["code"], body.get("field")


async def test_the_model_names_its_adapters(http: httpx.AsyncClient) -> None:
    model = (await http.get("/v1/model")).json()
    (ink,) = model["loras"]
    assert {name: ink[name] for name in ("name", "weight", "rank", "layers")} == {
        "name": "ink",
        "weight": 0.25,
        "rank": 2,
        "layers": 8,
    }
    assert len(ink["sha256"]) == 64
    assert (model["limits"]["loras"], model["limits"]["lora_weight"]) == (8, [-4, 4])
    assert (await http.get("/v1/loras")).json() == {"loras": [ink]}
    main = (await http.get("/v1/streams/main")).json()
    assert main["loras"] == [{"name": "ink", "weight": 0.25}]


async def test_a_stream_is_steered_by_adapters(http: httpx.AsyncClient, server: Server) -> None:
    body = {"prompt": "the sea", "seed": 3, "loras": [{"name": "ink", "weight": 1}]}
    made = (await http.post("/v1/streams", json=body)).json()
    assert made["loras"] == body["loras"]
    steers = f"/v1/streams/{made['id']}/steers"
    off = await http.post(steers, json={"prompt": "the sea at night", "loras": []})
    assert (off.status_code, "loras" in off.json()) == (202, False)
    address = made["urls"]["events"]
    half = [{"name": "ink", "weight": 0.5}]
    async with connect(address) as socket:
        message: dict[str, Any] = {"type": "steer", "ref": 7, "prompt": "rain", "loras": half, "at": {"in_s": 2}}
        await socket.send(json.dumps(message))
        while (told := json.loads(await socket.recv())).get("ref") != 7:
            pass
    assert (told["type"], told["data"]["loras"]) == ("steer.accepted", half)
    kept = (await http.post(steers, json={"prompt": "rain falls", "at": {"in_s": 5}})).json()
    assert kept["loras"] == half

    (line, *_) = (await http.get(f"/v1/streams/{made['id']}/log")).text.splitlines()
    (ink,) = (await http.get("/v1/loras")).json()["loras"]
    assert json.loads(line)["loras"] == [{"name": "ink", "weight": 1.0, "sha256": ink["sha256"]}]
    again = await http.post("/v1/streams", json={"log": line})
    assert again.json()["loras"] == body["loras"]
    other = line.replace(ink["sha256"], "0" * 64)
    assert await refused(await http.post("/v1/streams", json={"log": other})) == (
        422,
        "log-other-weights",
        "log.loras",
    )


@pytest.mark.parametrize(
    ("loras", "expected"),
    [
        ([{"name": "gone", "weight": 1}], (422, "lora-unknown", "loras.0.name")),
        ([{"name": "ink", "weight": 5}], (422, "out-of-range", "loras.0.weight")),
        ([{"name": "ink", "weight": "1"}], (422, "field-invalid", "loras.0.weight")),
        ([{"name": "ink"}], (422, "field-missing", "loras.0.weight")),
        ([{"name": "ink", "weight": 1, "path": "/"}], (422, "unknown-field", "loras.0.path")),
    ],
)
async def test_what_a_steer_may_not_ask(http: httpx.AsyncClient, loras: Any, expected: Any) -> None:
    for path in ("/v1/streams", "/v1/streams/main/steers"):
        assert await refused(await http.post(path, json={"prompt": "the sea", "loras": loras})) == expected


async def test_another_adapter_is_loaded_used_and_dropped_while_the_server_runs(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/loras", json={"name": "glow", "path": "glow"})
    assert answer.status_code == 201
    assert answer.json() == (await http.get("/v1/loras")).json()["loras"][1]
    assert answer.json()["weight"] == 0
    twice = await http.post("/v1/loras", json={"name": "glow", "path": "glow"})
    assert await refused(twice) == (409, "lora-exists", "name")
    wanted = {"prompt": "the sea", "loras": [{"name": "glow", "weight": 1}]}
    made = (await http.post("/v1/streams", json=wanted)).json()
    in_use = await http.delete("/v1/loras/glow")
    assert await refused(in_use) == (409, "lora-in-use", "name")
    assert in_use.json()["streams"] == [made["id"]]
    assert (await http.delete(f"/v1/streams/{made['id']}")).status_code == 204
    assert (await http.delete("/v1/loras/glow")).status_code == 204
    assert await refused(await http.delete("/v1/loras/glow")) == (404, "lora-unknown", "name")
    assert await refused(await http.post("/v1/streams", json=wanted)) == (422, "lora-unknown", "loras.0.name")
    assert (await http.post("/v1/loras", json={"name": "glow", "path": "glow"})).status_code == 201


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"name": "x", "path": "../ink"}, (422, "lora-path-refused", "path")),
        ({"name": "x", "path": "/etc"}, (422, "lora-path-refused", "path")),
        ({"name": "x", "path": "out"}, (422, "lora-path-refused", "path")),
        ({"name": "x", "path": ""}, (422, "lora-path-refused", "path")),
        ({"name": "x", "path": "a\0b"}, (422, "lora-path-refused", "path")),
        ({"name": "x", "path": "owner/name"}, (422, "lora-refused", "path")),
        ({"name": "x", "path": "broken.safetensors"}, (422, "lora-refused", "path")),
        ({"name": "x y", "path": "glow"}, (422, "field-invalid", "name")),
        ({"name": "x", "path": "glow", "weight": 5}, (422, "out-of-range", "weight")),
    ],
)
async def test_only_what_lies_in_the_folder_is_loaded(http: httpx.AsyncClient, body: Any, expected: Any) -> None:
    assert await refused(await http.post("/v1/loras", json=body)) == expected
    assert (await http.get("/v1/streams/main")).json()["status"] not in ("failed", "ended")


async def test_only_an_admin_loads_adapters(http: httpx.AsyncClient) -> None:
    away = {"X-Forwarded-For": "192.0.2.1"}
    for answer in (
        await http.post("/v1/loras", json={"name": "y", "path": "glow"}, headers=away),
        await http.delete("/v1/loras/ink", headers=away),
    ):
        assert await refused(answer) == (401, "token-missing", "Authorization")


async def test_a_clip_is_made_under_adapters(http: httpx.AsyncClient) -> None:
    async def clip(**fields: str) -> tuple[dict[str, Any], bytes]:
        form = {"prompt": "the sea", "seconds": "0.3", "seed": "3"} | fields
        answer = await http.post("/v1/videos", files={name: (None, value) for name, value in form.items()})
        video = answer.json()
        while video.get("status") in ("queued", "in_progress"):
            video = (await http.get(f"/v1/videos/{video['id']}", params={"wait_s": 20})).json()
        return video, (await http.get(f"/v1/videos/{video.get('id')}/content")).content

    plain, plain_bytes = await clip(loras="[]")
    ink, ink_bytes = await clip()  # as new streams have it
    asked, asked_bytes = await clip(loras='[{"name": "ink", "weight": 0.25}]')
    assert (plain["loras"], ink["loras"]) == ([], [{"name": "ink", "weight": 0.25}])
    assert ink["loras"] == asked["loras"]
    assert plain_bytes != ink_bytes == asked_bytes
    unknown, _ = await clip(loras='[{"name": "oil", "weight": 1}]')
    assert (unknown["code"], unknown["field"]) == ("lora-unknown", "loras.0.name")
    long = await http.post("/v1/videos", json={"prompt": "the sea", "seconds": 60})
    assert long.json()["id"] in (await http.delete("/v1/loras/ink")).json()["streams"]
    assert (await http.delete(f"/v1/videos/{long.json()['id']}")).json()["deleted"]


async def test_the_schema_holds_together(http: httpx.AsyncClient) -> None:
    document = (await http.get("/v1/openapi.json")).json()

    def references(part: Any) -> list[str]:
        if isinstance(part, list):
            return [each for item in part for each in references(item)]
        if not isinstance(part, dict):
            return []
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [each for value in part.values() for each in references(value)]

    for reference in references(document):
        place = document
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]


async def test_options_are_checked_at_the_start(tiny_model: Path, tmp_path: Path) -> None:
    status, said = await run("serve", "--model", str(tiny_model), "--port", "0", "--lora", "ink=nowhere:1")
    assert status == 2
    assert said.splitlines()[-1] == "streamer serve: --lora ink: nowhere: no such file or folder"
    status, said = await run("serve", "--lora-dir", str(tmp_path / "gone"), "--port", "0")
    assert (status, said.splitlines()[-1]) == (2, f"streamer serve: --lora-dir {tmp_path / 'gone'}: no such folder")
