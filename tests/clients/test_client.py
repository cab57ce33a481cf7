"""The Python client against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import av
import pytest
import pytest_asyncio
from PIL import Image
from serving import Server, run, serve
from streamer_client import Client, Problem, SteerFailed, StreamerError
from streamer_client.cli import UsageError
from streamer_client.watch import parse_steer

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tiny_model: Path) -> AsyncIterator[Server]:
    async with serve(tiny_model, "--max-streams", "2") as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url) as client:
        yield client


async def test_model_and_streams(client: Client) -> None:
    assert (await client.model())["sizes"] == ["64x64"]
    asked = {"negative_prompt": "fog", "motion_score": 7, "guidance_scale": 1.0}
    stream = await client.streams.create(prompt="the sea at night", seed=5, **asked)
    assert {name: stream.info[name] for name in asked} == asked
    assert len(stream.info["warnings"]) == 2
    assert stream.control_token is not None
    assert stream.id in [one["id"] for one in await client.streams.list()]
    assert (await stream.log()).splitlines()
    await stream.end()
    with pytest.raises(Problem) as gone:
        await stream.refresh()
    assert (gone.value.status, gone.value.code) == (410, "stream-ended")


async def test_pictures_come_in_order_and_know_their_steer(client: Client) -> None:
    stream = await client.streams.get("main")
    async with asyncio.timeout(60), aclosing(stream.pictures()) as pictures:
        seen = [await anext(pictures)]
        steer = stream.steer("the sea at night")
        while seen[-1].steer != steer.id or steer.id is None:
            seen.append(await anext(pictures))
        assert steer.at_picture is not None
        assert seen[-1].number >= steer.at_picture
        assert all(one.steer is None for one in seen if one.number < steer.at_picture)
    assert seen[0].rgb.shape == (64, 64, 3)
    assert [one.tick for one in seen] == list(range(seen[0].tick, seen[0].tick + len(seen)))
    numbers = [one.number for one in seen]
    assert numbers == sorted(numbers)
    assert steer.released.done()
    assert steer.latency_s is not None


async def test_steer_stages_and_failures(client: Client) -> None:
    stream = await client.streams.get("main")
    async with asyncio.timeout(60), aclosing(stream.fragments()) as fragments:
        await anext(fragments)
        draining = asyncio.create_task(drain(fragments))
        steer = stream.steer("snowy mountains by day")
        assert await steer.queued is steer
        assert await steer.locked is steer
        assert await steer.released is steer
        with pytest.raises(Problem, match="prompt") as refused:
            await stream.steer("").queued
        assert refused.value.field == "prompt"
        late = stream.steer("the sea", at={"in_s": 300})
        await late.queued
        await client.request("DELETE", f"/v1/streams/main/steers/{late.id}")
        with pytest.raises(SteerFailed) as cancelled:
            await late.released
        assert cancelled.value.outcome == "cancelled"
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)


async def drain(fragments: AsyncIterator[bytes]) -> None:
    async for _ in fragments:
        pass


async def test_watch_records_and_steers(server: Server, client: Client, tmp_path: Path) -> None:
    rate_hz = (await client.streams.get("main")).info["rate_hz"]
    out = tmp_path / "clip.mp4"
    status, text = await run(
        "watch", server.url, "--out", str(out), "--seconds", "3", "--steer", "1s: the sea at night"
    )
    assert status == 0, text
    assert str(out) in text
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        times = [float(frame.pts * stream.time_base) for frame in container.decode(stream)]
        assert (stream.width, stream.height) == (64, 64)
    assert times[0] == 0.0
    # A busy machine may leave a picture out, but never moves one off its tick.
    assert times == sorted(set(times))
    ticks = [time * rate_hz for time in times]
    assert ticks == pytest.approx([round(tick) for tick in ticks], abs=0.02)
    assert times[-1] == pytest.approx(3.0, abs=0.5)


async def test_watch_makes_a_stream_of_its_own(server: Server, client: Client, tmp_path: Path) -> None:
    out = tmp_path / "own.mp4"
    status, text = await run("watch", server.url, "--out", str(out), "--seconds", "1", "--prompt", "the sea by day")
    assert status == 0, text
    own = [one for one in await client.streams.list() if one["prompt"] == "the sea by day"]
    assert [one["status"] for one in own] == ["ended"]


async def test_a_picture_starts_a_stream(server: Server, client: Client, tmp_path: Path) -> None:
    start = tmp_path / "start.png"
    Image.linear_gradient("L").save(start)
    by_path = await client.streams.create("the sea", image=start, seed=5, metadata={"a": "b"}, size="64x64")
    by_bytes = await client.streams.create("the sea", image=start.read_bytes(), seed=5)
    log = await by_path.log()
    assert await by_bytes.log() == log
    assert by_path.info["metadata"] == {"a": "b"}
    assert '"image":{"png":' in log
    with pytest.raises(Problem) as refused:
        await client.streams.create("the sea", image=b"no picture")
    assert (refused.value.code, refused.value.field) == ("image-type-unsupported", "image")
    for stream in (by_path, by_bytes):
        await stream.end()
    out = tmp_path / "own.mp4"
    status, text = await run(
        *("watch", server.url, "--out", str(out), "--seconds", "1"),
        *("--prompt", "a picture", "--image", str(start), "--size", "64x64"),
    )
    assert status == 0, text


async def test_watch_tells_of_a_refused_steer(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "clip.mp4"
    long = "x" * 5000
    status, text = await run("watch", server.url, "--out", str(out), "--seconds", "2", "--steer", f"0s: {long}")
    assert status == 1
    assert "prompt-too-long" in text
    assert out.stat().st_size > 0, "the recording stands"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("http://127.0.0.1:1", "--out", "x.gif"), "--out"),
        (("http://127.0.0.1:1", "--out", "/nowhere/x.mp4"), "--out"),
        (("http://127.0.0.1:1", "--out", "x.mp4", "--steer", "night"), "--steer"),
        (("http://127.0.0.1:1", "--out", "x.mp4", "--seconds", "0"), "--seconds"),
        (("http://127.0.0.1:1", "--out", "x.mp4", "--image", "x.png"), "--prompt"),
        (("http://127.0.0.1:1", "--out", "x.mp4", "--prompt", "x", "--image", "/nowhere/x.png"), "--image"),
        (("http://127.0.0.1:1",), "--out"),
    ],
)
async def test_bad_arguments_are_one_line(arguments: tuple[str, ...], named: str) -> None:
    status, text = await run("watch", *arguments)
    assert (status, len(text.splitlines())) == (2, 1)
    assert named in text


async def test_no_server_is_one_line() -> None:
    status, text = await run("watch", "http://127.0.0.1:1", "--out", "/tmp/x.mp4")
    assert (status, len(text.splitlines())) == (1, 1)
    assert "127.0.0.1:1" in text


async def test_bad_address() -> None:
    with pytest.raises(StreamerError, match="ftp"):
        Client("ftp://somewhere")


async def test_steer_times() -> None:
    assert parse_steer("10s: night falls") == (10.0, "night falls")
    assert parse_steer(" 2.5 : a: b") == (2.5, "a: b")
    with pytest.raises(UsageError):
        parse_steer("ten: night")
