"""A server whose checkpoint makes clips only (720p): clips over HTTP end to end, every way to a stream refused."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
import pytest_asyncio
import torch
import websockets
from PIL import Image
from pth import random_pth
from serving import Server, run, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHY = "its VAE (AutoencoderKLLTX2Video) is not causal, it decodes whole clips only"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tiny_720p: Path) -> AsyncIterator[Server]:
    async with serve(tiny_720p, "--dtype", "fp32", "--threads", "1") as server:
        yield server


def png() -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "PNG")
    return file.getvalue()


def first_picture(data: bytes) -> tuple[int, Any]:
    """How many pictures, and the first one, (height, width, 3)."""
    with av.open(io.BytesIO(data)) as container:
        frames = [*container.decode(video=0)]
    return len(frames), frames[0].to_ndarray(format="rgb24")


async def made(http: httpx.AsyncClient, **form: Any) -> tuple[str, list[int], bytes]:
    """Address of a clip, the percents that were told, and its MP4."""
    form = {"prompt": "the sea at night", "seconds": "1", "seed": "3", "steps": "3"} | form
    answer = await http.post(
        "/v1/videos",
        files={name: value if isinstance(value, tuple) else (None, value) for name, value in form.items()},
    )
    assert answer.status_code == 200, answer.text
    path, told = answer.headers["Location"], []
    async with asyncio.timeout(60):
        while (video := (await http.get(path, params={"wait_s": 20})).json())["status"] != "completed":
            assert video["status"] != "failed", video["error"]
            told.append(video["progress"])
    return path, told, (await http.get(f"{path}/content")).content


async def test_it_says_what_it_is(server: Server, http: httpx.AsyncClient) -> None:
    assert server.output[-1] == f"Streamer: ready, on cpu, clips only: {WHY}; the page and POST /v1/videos make them"
    model = (await http.get("/v1/model")).json()
    assert (model["streaming"], model["no_streams"], model["capacity"]) == ("clips only", WHY, 0)
    clips = model["clips"]
    assert (clips["size"], clips["size_multiple_of"], clips["size_pixels"]) == ("128x64", 32, 128 * 64)
    assert (clips["seconds"], clips["steps"], clips["pixels_in_all"]) == (81 / 16, 50, None)
    assert (await http.get("/readyz")).json() == {"status": "ready", "rate_hz": 16.0, "capacity": 0}
    assert (await http.get("/v1/streams")).json() == {"streams": []}
    assert (await http.get("/")).status_code == 200


async def test_clips_are_made_fetched_and_deleted(http: httpx.AsyncClient) -> None:
    path, told, data = await made(http)
    assert told
    assert told == sorted(told)
    count, plain = first_picture(data)
    assert (count, plain.shape) == (16, (64, 128, 3))
    image = ("start.png", png())
    _, _, other = await made(http, input_reference=image, size="64x128")
    count, given = first_picture(other)
    assert (count, given.shape) == (16, (128, 64, 3))
    assert (await http.delete(path)).json()["deleted"]
    assert (await http.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({"size": "1280x704"}, "size", "multiples of 32"),
        ({"size": "128x72"}, "size", "multiples of 32"),
        ({"seconds": "6"}, "seconds", "0.0625 to 5.0625"),
    ],
)
async def test_what_is_beyond_its_limits_is_named(
    http: httpx.AsyncClient, fields: dict[str, str], field: str, told: str
) -> None:
    refused = await http.post("/v1/videos", json={"prompt": "the sea"} | fields)
    assert (refused.status_code, refused.json()["field"]) == (422, field)
    assert told in refused.json()["detail"]


async def test_streams_are_refused_with_why_and_what_instead(server: Server, http: httpx.AsyncClient) -> None:
    offer = {"content": b"v=0", "headers": {"Content-Type": "application/sdp"}}
    for method, path, body in (
        ("POST", "/v1/streams", {"json": {"prompt": "the sea"}}),
        ("GET", "/v1/streams/main", {}),
        ("DELETE", "/v1/streams/main", {}),
        ("POST", "/v1/streams/main/steers", {"json": {"prompt": "night falls"}}),
        ("POST", "/v1/streams/main/whep", offer),
        ("GET", "/v1/streams/main/poster.jpg", {}),
    ):
        refused = await http.request(method, path, **body)
        assert refused.status_code == 409, (path, refused.text)
        assert refused.headers["Content-Type"] == "application/problem+json"
        problem = refused.json()
        assert (problem["code"], problem["instead"]) == ("clips-only", "/v1/videos")
        expected = f"this checkpoint makes clips, not streams: {WHY}; ask for one with POST /v1/videos"
        assert problem["detail"] == expected
    for part in ("video", "events"):
        with pytest.raises(websockets.InvalidStatus) as closed:
            await websockets.connect(f"{server.url.replace('http', 'ws')}/v1/streams/main/{part}", proxy=None)
        assert closed.value.response.status_code == 409
        assert b'"clips-only"' in (closed.value.response.body or b"")


async def test_generate_makes_one_here(tiny_720p: Path, tmp_path: Path) -> None:
    out = tmp_path / "clip.mp4"
    options = ("--seconds", "0.5", "--seed", "3", "--steps", "2", "--threads", "1")
    status, printed = await run("generate", "the sea", "--out", str(out), "--model", str(tiny_720p), *options)
    assert status == 0, printed
    assert printed.startswith(f"{out}: 0.5 s, 8 pictures, 128x64, seed 3, ")
    assert first_picture(out.read_bytes())[0] == 8


async def test_a_dc_ae_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save({"state_dict": random_pth(width=224, layers=1, channels=32, patch=(1, 1, 1))}, file)
    commands = [("serve", "--port", "0"), ("generate", "the sea", "--out", str(tmp_path / "clip.mp4"))]
    ended = [run(*command, "--model", str(file), only_errors=True) for command in commands]
    for command, (status, printed) in zip(commands, await asyncio.gather(*ended), strict=True):
        assert (status, printed.count("\n")) == (2, 1)
        refusal = f"{file}: the VAE is missing: DC-AE form (32 latent channels), transformer only: "
        assert printed.startswith(f"streamer {command[0]}: --model {file}: {refusal}")
