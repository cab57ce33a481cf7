"""Clips over HTTP, against a real server with a tiny model."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import signal
from pathlib import Path
from typing import Any

import av
import httpx
import openai
import psutil
import pytest
from PIL import Image
from serving import Server, run
from streamer_client.video import VideoSocket

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK: dict[str, Any] = {"prompt": "the sea at night", "seconds": "0.6", "seed": 3}
LONG: dict[str, Any] = {"prompt": "the sea by day", "seconds": "60"}


async def over(http: httpx.AsyncClient, id: str) -> dict[str, Any]:
    """The clip when it is over."""
    async with asyncio.timeout(60):
        while True:
            video = (await http.get(f"/v1/videos/{id}", params={"wait_s": 20})).json()
            if video["status"] in ("completed", "failed"):
                return dict(video)


async def begun(http: httpx.AsyncClient, id: str) -> dict[str, Any]:
    """The clip when it is under way."""
    async with asyncio.timeout(60):
        while True:
            video = (await http.get(f"/v1/videos/{id}", params={"wait_s": 20})).json()
            if video["status"] != "queued":
                return dict(video)


async def asked(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await http.post("/v1/videos", json=ASK | fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def png() -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "PNG")
    return file.getvalue()


def pictures(data: bytes) -> list[tuple[int, int]]:
    with av.open(io.BytesIO(data)) as container:
        return [(frame.width, frame.height) for frame in container.decode(video=0)]


async def test_a_clip_is_asked_for_made_fetched_and_deleted(http: httpx.AsyncClient) -> None:
    form = {**ASK, "size": "64x64", "guidance_scale": "2", "steps": "3", "negative_prompt": "fog"}
    answer = await http.post("/v1/videos", files={name: (None, str(value)) for name, value in form.items()})
    assert answer.status_code == 200, answer.text
    video = answer.json()
    path = answer.headers["Location"]
    assert path == f"/v1/videos/{video['id']}"
    assert video["id"].startswith("vid_")
    assert len(video["id"]) == 36
    assert (video["object"], video["status"], video["progress"]) == ("video", "queued", 0)
    assert (video["size"], video["seconds"], video["pictures"]) == ("64x64", "0.6", 10)
    assert (video["seed"], video["guidance_scale"], video["steps"]) == (3, 2.0, 3)

    made = await over(http, video["id"])
    assert (made["status"], made["progress"], made["error"]) == ("completed", 100, None)
    assert made["created_at"] <= made["completed_at"] < made["expires_at"]
    assert "control_token" not in made
    content = await http.get(f"{path}/content")
    assert content.headers["Content-Type"] == "video/mp4"
    assert len(content.content) == made["bytes"]
    assert pictures(content.content) == [(64, 64)] * 10

    assert (await http.delete(path)).json() == {"id": video["id"], "object": "video.deleted", "deleted": True}
    gone = await http.get(path)
    assert (gone.status_code, gone.json()["code"]) == (404, "video-unknown")
    assert (await http.get(f"{path}/content")).status_code == 404


async def test_the_same_seed_gives_the_same_clip_and_ranges_of_it(http: httpx.AsyncClient) -> None:
    ids = [(await asked(http))["id"] for _ in range(2)]
    one, other = [await over(http, id) for id in ids]
    path = f"/v1/videos/{one['id']}/content"
    whole = (await http.get(path)).content
    assert whole == (await http.get(f"/v1/videos/{other['id']}/content")).content
    part = await http.get(path, headers={"Range": "bytes=10-29"})
    assert part.status_code == 206
    assert part.headers["Content-Range"] == f"bytes 10-29/{len(whole)}"
    assert part.content == whole[10:30]
    assert (await http.get(path, headers={"Range": "bytes=-5"})).content == whole[-5:]
    beyond = await http.get(path, headers={"Range": f"bytes={len(whole)}-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range-invalid")
    assert beyond.headers["Content-Type"] == "application/problem+json"
    unknown = await http.get(path, params={"variant": "thumbnail"})
    assert (unknown.status_code, unknown.json()["field"]) == (422, "variant")


async def test_a_clip_under_way_is_not_ready_and_can_be_cancelled(http: httpx.AsyncClient) -> None:
    first = await asked(http, **LONG)
    second = await asked(http)
    running = await begun(http, first["id"])
    assert running["status"] == "in_progress"
    waiting = (await http.get(f"/v1/videos/{second['id']}")).json()
    assert (waiting["status"], waiting["reason"]) == ("queued", "another video is made first")
    for id in (first["id"], second["id"]):
        early = await http.get(f"/v1/videos/{id}/content")
        assert (early.status_code, early.json()["code"]) == (409, "video-not-ready")
        assert early.headers["Retry-After"] == "1"
    assert (await http.delete(f"/v1/videos/{first['id']}")).json()["deleted"]
    assert (await over(http, second["id"]))["status"] == "completed"


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"prompt": "  "}, "prompt-empty", "prompt"),
        ({"prompt": "x" * 1000}, "prompt-too-long", "prompt"),
        ({"seconds": "61"}, "out-of-range", "seconds"),
        ({"seconds": "nan"}, "out-of-range", "seconds"),
        ({"seconds": "soon"}, "field-invalid", "seconds"),
        ({"size": "128x128"}, "size-unsupported", "size"),
        ({"size": "60x64"}, "size-unsupported", "size"),
        ({"size": "large"}, "size-unsupported", "size"),
        ({"seed": -1}, "out-of-range", "seed"),
        ({"seed": 1.5}, "field-invalid", "seed"),
        ({"seed": True}, "field-invalid", "seed"),
        ({"seconds": True}, "field-invalid", "seconds"),
        ({"input_reference": 7}, "field-invalid", "input_reference"),
        ({"query": 7}, "unknown-field", "query"),
        ({"steps": 101}, "out-of-range", "steps"),
        ({"guidance_scale": 51}, "out-of-range", "guidance_scale"),
        ({"motion_score": 101}, "out-of-range", "motion_score"),
        ({"negative_prompt": 7}, "field-invalid", "negative_prompt"),
        ({"model": "sora-2"}, "model-unknown", "model"),
        ({"fps": 30}, "unknown-field", "fps"),
    ],
)
async def test_bad_fields_are_refused_by_name(
    http: httpx.AsyncClient, fields: dict[str, Any], code: str, field: str
) -> None:
    answer = await http.post("/v1/videos", json=ASK | fields)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, field)
    assert answer.headers["Content-Type"] == "application/problem+json"
    if code == "out-of-range":
        assert len(answer.json()["limit"]) == 2


async def test_bodies_that_are_none_are_refused(http: httpx.AsyncClient) -> None:
    async def refused(**request: Any) -> tuple[int, str]:
        answer = await http.post("/v1/videos", **request)
        assert answer.headers["Content-Type"] == "application/problem+json"
        return answer.status_code, answer.json()["code"]

    json = {"Content-Type": "application/json"}
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert await refused(content=b"{", headers=json) == (400, "json-malformed")
    assert await refused(content=b"[" * 100_000, headers=json) == (400, "json-malformed")
    assert await refused(content=b"[]", headers=json) == (422, "body-missing")
    assert await refused(content=b"prompt=x") == (422, "body-missing")
    assert await refused(content=b"nonsense", headers=form) == (400, "form-malformed")
    assert await refused(content=b"x", headers={"Content-Type": "multipart/form-data"}) == (400, "form-malformed")
    too_many = {f"field{index}": (None, "x") for index in range(40)}
    assert await refused(files=too_many) == (400, "form-malformed")
    assert await refused(json=ASK, headers={"Origin": "https://elsewhere.example"}) == (403, "origin-refused")
    assert (await http.get("/v1/videos/vid_0")).json()["code"] == "video-unknown"
    deep = await http.post("/v1/videos", files={"prompt": (None, "the sea"), "loras": (None, "[" * 100_000)})
    assert (deep.status_code, deep.json()["code"], deep.json()["field"]) == (422, "field-invalid", "loras")
    assert (await http.get("/v1/videos", params={"limit": 0})).json()["field"] == "limit"


async def test_a_key_makes_one_clip(http: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "a clip"}
    one, again = [(await http.post("/v1/videos", json=ASK, headers=key)).json() for _ in range(2)]
    assert one == again
    other = await http.post("/v1/videos", json=ASK | {"seed": 4}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "key-reused")
    await http.delete(f"/v1/videos/{one['id']}")


async def test_strangers_may_ask_and_fetch_but_neither_list_nor_delete(http: httpx.AsyncClient) -> None:
    stranger = {"X-Forwarded-For": "192.0.2.7"}
    video = (await http.post("/v1/videos", json=ASK, headers=stranger)).json()
    path = f"/v1/videos/{video['id']}"
    assert (await http.get("/v1/videos", headers=stranger)).status_code == 401
    assert (await http.delete(path, headers=stranger)).status_code == 401
    wrong = stranger | {"Authorization": "Bearer tok_0"}
    assert (await http.delete(path, headers=wrong)).status_code == 403
    await over(http, video["id"])
    assert (await http.get(f"{path}/content", headers=stranger)).status_code == 200
    right = stranger | {"Authorization": f"Bearer {video['control_token']}"}
    assert (await http.delete(path, headers=right)).status_code == 200


@pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
async def test_openais_own_client_works(server: Server, http: httpx.AsyncClient) -> None:
    ask: dict[str, Any] = {"prompt": "the sea at night", "seconds": "0.6", "size": "64x64"}
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        ids = [(await client.videos.create(**ask, extra_body={"seed": seed})).id for seed in (1, 2)]
        ids.append((await client.videos.create(**ask, input_reference=("start.png", png()))).id)
        assert (await over(http, ids[-1]))["reason"] is None
        video = await client.videos.retrieve(ids[-1])
        assert (video.status, video.progress, video.seconds) == ("completed", 100, "0.6")
        content = await client.videos.download_content(ids[-1])
        assert len(pictures(content.content)) == 10
        page = await client.videos.list(limit=2, order="asc")
        listed = [video.id async for video in page]  # further pages are fetched on the way
        assert [id for id in listed if id in ids] == ids
        assert (await client.videos.delete(ids[0])).deleted
        with pytest.raises(openai.NotFoundError):
            await client.videos.retrieve(ids[0])
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            await client.videos.create(prompt="the sea", size="1280x720")
        assert refused.value.response.json()["field"] == "size"


async def test_a_clip_starts_from_a_picture(http: httpx.AsyncClient) -> None:
    url = "data:image/png;base64," + base64.b64encode(png()).decode()
    clips = []
    for reference in (url, {"image_url": url}):
        made = await over(http, (await asked(http, input_reference=reference))["id"])
        clips.append((await http.get(f"/v1/videos/{made['id']}/content")).content)
    assert clips[0] == clips[1]
    bad = await http.post("/v1/videos", json=ASK | {"input_reference": "https://elsewhere.example/a.png"})
    assert (bad.status_code, bad.json()["code"], bad.json()["field"]) == (422, "image-unreadable", "input_reference")
    files = {"prompt": (None, "the sea"), "input_reference": ("a.png", b"nonsense")}
    bad = await http.post("/v1/videos", files=files)
    assert (bad.status_code, bad.json()["code"]) == (422, "image-type-unsupported")


async def test_a_clip_is_made_beside_a_stream_that_goes_on(server: Server, http: httpx.AsyncClient) -> None:
    async with VideoSocket(f"{server.url.replace('http', 'ws')}/v1/streams/main/video") as video:
        messages = video.messages()
        await anext(messages)
        made = asyncio.create_task(over(http, (await asked(http, seconds=4))["id"]))
        shown = 0
        async with asyncio.timeout(60):
            while not made.done():
                await anext(messages)
                shown += 1
    assert made.result()["status"] == "completed"
    assert shown > 0
    main = (await http.get("/v1/streams/main")).json()
    assert main["picture"] >= shown - 1


async def test_a_clip_survives_its_worker(server: Server, http: httpx.AsyncClient) -> None:
    video = await asked(http, **LONG | {"seconds": 8})
    await begun(http, video["id"])
    (worker,) = psutil.Process(server.process.pid).children()
    os.kill(worker.pid, signal.SIGKILL)
    made = await over(http, video["id"])
    assert (made["status"], made["restarts"]) == ("completed", 1)
    assert len(pictures((await http.get(f"/v1/videos/{video['id']}/content")).content)) == 128


async def test_a_folder_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    status, printed = await run("serve", "--port", "0", "--videos", str(file / "videos"), only_errors=True)
    assert (status, printed) == (2, f"streamer serve: --videos {file}/videos: Not a directory\n")
    status, printed = await run("serve", "--port", "0", "--videos-hours", "0", only_errors=True)
    assert (status, printed) == (2, "streamer serve: --videos-hours 0: must be above 0, at most 1000000\n")
