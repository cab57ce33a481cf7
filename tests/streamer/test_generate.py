"""`streamer generate`: here, and by a running server."""

from __future__ import annotations

import asyncio
import os
import pty
from collections.abc import AsyncIterator
from pathlib import Path

import av
import httpx
import pytest
import pytest_asyncio
from PIL import Image
from serving import Server, run, serve
from streamer_client import Client, Problem, VideoFailed
from streamer_client.cli import UsageError, end_progress, main, show_progress

on_loop = pytest.mark.asyncio(loop_scope="module")
SHORT = ("--seconds", "0.6", "--seed", "3")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tiny_model: Path) -> AsyncIterator[Server]:
    async with serve(tiny_model, "--no-trust-loopback", "--admin-token", "secret") as server:
        yield server


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "start.png"
    Image.linear_gradient("L").save(path)
    return path


def pictures(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@on_loop
async def test_a_server_makes_the_same_clip_as_a_worker_of_our_own(
    server: Server, tiny_model: Path, tmp_path: Path, picture: Path
) -> None:
    here, there = tmp_path / "here.mp4", tmp_path / "there.mp4"
    options = (*SHORT, "--size", "64x64", "--image", str(picture), "--negative-prompt", "fog", "--guidance", "2")
    status, printed = await run("generate", "the sea", "--out", str(here), "--model", str(tiny_model), *options)
    assert status == 0, printed
    assert printed.startswith(f"{here}: 0.6 s, 10 pictures, 64x64, seed 3, ")
    status, printed = await run("generate", "the sea", "--out", str(there), "--url", server.url, *options)
    assert status == 0, printed
    assert pictures(here) == 10
    assert here.read_bytes() == there.read_bytes()
    # It took its clip away again.
    assert (await clips(server))["data"] == []


async def clips(server: Server) -> dict[str, list[object]]:
    async with httpx.AsyncClient(trust_env=False, headers={"Authorization": "Bearer secret"}) as http:
        return dict((await http.get(f"{server.url}/v1/videos")).json())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--out", "clip.avi"), "--out clip.avi: must end in .mp4"),
        (("--out", "none/clip.mp4"), "--out none/clip.mp4: its folder does not exist"),
        (("--image", "none.png"), "--image none.png: No such file or directory"),
        (("--seconds", "nan"), "--seconds nan: must be a number"),
        (("--seconds", "99"), "--seconds: seconds must be 0.0625 to 60"),
        (("--size", "80x80"), "--size: size must be WIDTHxHEIGHT, both multiples of 16"),
        (("--guidance", "0"), "--guidance: guidance_scale must be 1 to 50"),
        (("--image", __file__), "--image: the picture is no"),
    ],
)
@on_loop
async def test_bad_input_is_one_line_and_status_2(
    server: Server, tmp_path: Path, options: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", "the sea", "--url", server.url, "--out", str(tmp_path / "clip.mp4"), *options]
    assert await asyncio.to_thread(main, arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"streamer generate: {told}"), printed
    assert printed.count("\n") == 1
    assert os.listdir(tmp_path) == []


@on_loop
async def test_a_model_that_is_none_and_a_server_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", str(tmp_path / "clip.mp4"))
    assert await asyncio.to_thread(main, ["generate", "the sea", *out, "--model", str(tmp_path / "none")]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.startswith(f"streamer generate: --model {tmp_path}/none: ")
    assert await asyncio.to_thread(main, ["generate", "the sea", *out, "--url", "http://127.0.0.1:1"]) == 1
    assert "can't be reached" in capsys.readouterr().err


@on_loop
async def test_the_client_asks_waits_fetches_and_deletes(server: Server, tmp_path: Path, picture: Path) -> None:
    async with Client(server.url) as client:
        video = await client.videos.create("the sea", seconds=0.6, seed=3, image=picture)
        seen: list[int] = []
        await video.made(lambda video: seen.append(video.progress))
        assert seen[-1] == 100
        assert seen == sorted(seen)
        assert (await client.videos.retrieve(video.id)).status == "completed"
        path = await video.download(tmp_path / "clip.mp4")
        assert pictures(path) == 10
        with pytest.raises(Problem, match="token-missing"):
            await client.videos.list()
        await video.delete()  # with its control token
        with pytest.raises(Problem, match="video-unknown"):
            await video.refresh()
        with pytest.raises(Problem, match="video-unknown"):
            await video.download(tmp_path / "gone.mp4")
        assert sorted(os.listdir(tmp_path)) == ["clip.mp4", "start.png"]
        long = await client.videos.create("the sea", seconds=60)
        with pytest.raises(Problem, match="video-not-ready"):
            await long.download(tmp_path / "early.mp4")
        long.info |= {"status": "failed", "error": {"code": "worker-lost", "message": "gone"}}
        with pytest.raises(VideoFailed, match="gone"):
            await long.made()
        await long.delete()


def test_the_bar_is_for_terminals_only(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    show_progress(0.5, "half")
    end_progress()
    assert capsys.readouterr().err == ""
    ours, theirs = pty.openpty()
    with open(theirs, "w", closefd=False) as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        show_progress(0.5, " 50% in progress")
        end_progress()
    expected = f"\r{'█' * 12}{'·' * 12}  50% in progress\x1b[K\r\x1b[K".encode()
    shown = b""
    while len(shown) < len(expected):  # it comes in pieces
        shown += os.read(ours, 1000)
    assert shown == expected
    os.close(ours)
    os.close(theirs)


def test_an_unreadable_image_is_told_before_anything_starts(tmp_path: Path) -> None:
    from streamer.generate import read_image

    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate((10 << 20) + 1)
    with pytest.raises(UsageError, match="has more than 10485760 bytes"):
        read_image(large)
    assert main(["generate", "the sea", "--out", "x.mp4", "--image", str(large)]) == 2
