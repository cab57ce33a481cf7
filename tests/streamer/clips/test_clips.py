"""The queue of clips against a scripted worker: order, bounds, expiry, lost workers, full disks, what is kept."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import av
import pytest
from msgspec.structs import replace

from streamer.clips.errors import DiskRefused, VideoFailed, VideoNotReady, VideosFull, VideoUnknown
from streamer.clips.making import WAITING, WINDOW_PICTURES
from streamer.clips.manager import MAX_WAITING, TRIES, Clips
from streamer.clips.spec import CreateClip, clip_order
from streamer.clips.video import Video, VideoStatus
from streamer.engine.info import ClipInfo, ModelInfo, Timings
from streamer.engine.protocol import (
    PROTOCOL_VERSION,
    ClipCredit,
    ClipDone,
    ClipPictures,
    ClipProgress,
    Close,
    Failed,
    Message,
    OpenClip,
    Ready,
)
from streamer.session.errors import Invalid
from streamer.settings import Settings

INFO = ClipInfo(
    height=64,
    width=64,
    size_step=16,
    max_pixels=4096,
    rate_hz=16.0,
    max_frames=960,
    steps=2,
    max_steps=100,
    max_guidance_scale=50.0,
    guidance_scale=1.0,
)
MODEL = ModelInfo(
    name="tiny",
    weights_hash="",
    device="cpu",
    dtype="float32",
    height=64,
    width=64,
    rate_hz=16.0,
    block_latent_frames=[3],
    first_block_latent_frames=3,
    sampler="euler",
    state_options={},
    max_guidance_scale=20.0,
    max_prompt_chars=100,
    prompt="the sea",
    vocabulary={},
    clips=INFO,
)
READY = Ready(
    version=PROTOCOL_VERSION,
    pid=0,
    model=MODEL,
    timings=Timings(first_block_s=0.1, pass_s=0.02, passes=2, decode_s=0.02),
    slots=2,
    capacity=2,
    rate_hz=16.0,
)
NO_TIME_S = 30.0


class Worker:
    """A worker as `Clips` sees it: what it is sent is kept, and it says what the test lets it say."""

    def __init__(self) -> None:
        self.ready: Ready | None = READY
        self.stats = None
        self.sent: list[Message] = []
        self.listener: dict[str, Callable[[Message], None]] = {}
        self._down: list[Callable[[str], None]] = []
        self._up: list[Callable[[Ready], None]] = []
        self._changed = asyncio.Event()

    def send(self, message: Message) -> bool:
        if self.ready is None:
            return False
        self.sent.append(message)
        self._changed.set()
        return True

    def listen(self, stream: str, callback: Callable[[Message], None]) -> Callable[[], None]:
        self.listener[stream] = callback
        return lambda: self.listener.pop(stream, None) and None

    def on_down(self, callback: Callable[[str], None]) -> None:
        self._down.append(callback)

    def on_up(self, callback: Callable[[Ready], None]) -> None:
        self._up.append(callback)

    async def asked(self, kind: type[Any], which: Callable[[Any], bool] = lambda message: True) -> Any:
        """The first message of a kind that was, or will be, sent."""
        async with asyncio.timeout(NO_TIME_S):
            while True:
                for message in self.sent:
                    if isinstance(message, kind) and which(message):
                        return message
                self._changed.clear()
                await self._changed.wait()

    def say(self, video: Video, kind: type[Any], **fields: Any) -> None:
        self.listener[video.id](kind(stream=video.id, epoch=1, **fields))

    def die(self) -> None:
        self.ready = None
        for callback in self._down:
            callback("out of memory")

    def revive(self) -> None:
        self.ready = READY
        for callback in self._up:
            callback(READY)


class Stage:
    """`Clips` over a scripted worker, with a clock of the day that a test moves."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.worker = Worker()
        self.now_s = 1000.0
        self.clips = Clips(self.worker, Settings(videos=folder, **settings), clock=lambda: self.now_s)

    async def ask(self, **fields: Any) -> Video:
        wanted = CreateClip(**{"prompt": "the sea", "seconds": 0.25, "seed": 1} | fields)
        return await self.clips.create(clip_order(wanted, READY))

    async def opened(self, video: Video, epoch: int = 1) -> OpenClip:
        message = await self.worker.asked(OpenClip, lambda sent: (sent.stream, sent.epoch) == (video.id, epoch))
        assert isinstance(message, OpenClip)
        return message

    async def made(self, video: Video) -> None:
        """Let the worker make it."""
        await self.opened(video)
        frames = video.record.order.frames
        self.worker.say(video, ClipPictures, first_picture=0, rgb=[bytes(64 * 64 * 3)] * frames)
        self.worker.say(video, ClipDone)
        await self.over(video)

    async def over(self, video: Video) -> None:
        async with asyncio.timeout(NO_TIME_S):
            while not video.over:
                await video.change(NO_TIME_S)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@asynccontextmanager
async def stage(folder: Path, **settings: Any) -> AsyncIterator[Stage]:
    stage = Stage(folder, **settings)
    await stage.clips.start()
    yield stage
    await stage.clips.close()


async def test_clips_are_made_one_after_the_other(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        first, second = await on.ask(size="32x64"), await on.ask(steps=7)
        opened = await on.opened(first)
        assert (opened.width, opened.height, opened.frames, opened.steps) == (32, 64, 4, None)
        assert [on.clips.place(video) for video in (first, second)] == [0, 1]
        with pytest.raises(VideoNotReady, match="the video is queued"):
            on.clips.file(first)
        on.worker.say(first, ClipProgress, done=1, total=4)
        await first.change(NO_TIME_S)
        assert (first.status, first.progress, first.reason) == (VideoStatus.IN_PROGRESS, 25, None)
        on.worker.say(first, ClipProgress, done=1, total=4, waiting=True)
        await first.change(NO_TIME_S)
        assert first.reason == WAITING
        on.worker.say(first, ClipPictures, first_picture=0, rgb=[bytes(32 * 64 * 3)] * 4)
        credit = await on.worker.asked(ClipCredit)
        assert credit.pictures_until >= 4 + WINDOW_PICTURES
        on.worker.say(first, ClipDone)
        await on.over(first)
        with av.open(str(on.clips.file(first))) as container:
            assert [(frame.width, frame.height) for frame in container.decode(video=0)] == [(32, 64)] * 4
        await on.made(second)
        assert [video.id for video in on.clips.list(9, None, newest_first=True)[0]] == [second.id, first.id]
        assert on.clips.list(1, None, newest_first=False) == ([first], True)
        assert on.clips.list(1, first.id, newest_first=False) == ([second], False)


async def test_no_more_than_so_many_wait(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        videos = [await on.ask() for _ in range(MAX_WAITING)]
        with pytest.raises(VideosFull, match="16 clips wait"):
            await on.ask()
        await on.clips.delete(videos[5])
        await on.ask()


async def test_a_deleted_clip_ends_on_the_worker_and_wakes_who_waits(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        running, waiting = await on.ask(), await on.ask()
        await on.opened(running)
        on.worker.say(running, ClipPictures, first_picture=0, rgb=[bytes(64 * 64 * 3)])
        await on.worker.asked(ClipCredit)
        watcher = asyncio.create_task(running.change(NO_TIME_S))
        await on.clips.delete(running)
        assert await on.worker.asked(Close, lambda sent: sent.stream == running.id)
        await watcher
        with pytest.raises(VideoUnknown):
            on.clips.get(running.id)
        await on.clips.delete(waiting)
        assert on.files() == []


async def test_a_clip_begins_anew_when_its_worker_dies_but_not_for_ever(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        video = await on.ask()
        for attempt in range(1, TRIES + 1):
            await on.opened(video, attempt)
            on.worker.say(video, ClipProgress, done=1, total=4)
            await video.change(NO_TIME_S)
            on.worker.die()
            await video.change(NO_TIME_S)
            if attempt < TRIES:
                assert (video.status, video.progress) == (VideoStatus.QUEUED, 0)
                on.worker.revive()
        await on.over(video)
        assert video.record.error is not None
        assert (video.record.error.code, video.record.restarts) == ("worker-lost", TRIES)
        assert "out of memory" in video.record.error.message
        on.worker.revive()
        await on.made(await on.ask())  # the next one is not hurt


async def test_what_the_worker_refuses_and_what_the_disk_refuses_is_told(tmp_path: Path) -> None:
    async with stage(tmp_path / "videos", videos_bytes=1) as on:
        refused, large = await on.ask(), await on.ask()
        await on.opened(refused)
        on.worker.say(refused, Failed, reason="no memory for it")
        await on.over(refused)
        with pytest.raises(VideoFailed, match="no memory for it"):
            on.clips.file(refused)
        await on.made(large)
        assert large.record.error is not None
        assert "over the server's limit of 1" in large.record.error.message
        assert on.files() == sorted(f"{video.id}.json" for video in (refused, large))
        (tmp_path / "videos").rename(tmp_path / "gone")
        with pytest.raises(DiskRefused):
            await on.ask()
        (tmp_path / "gone").rename(tmp_path / "videos")


async def test_clips_expire_and_the_oldest_makes_room(tmp_path: Path) -> None:
    async with stage(tmp_path / "a", videos_keep_s=60.0) as on:
        video = await on.ask()
        await on.made(video)
        assert video.record.expires_at == 1060.0
        on.now_s = 1059.0
        await on.made(await on.ask())
        assert on.clips.get(video.id) is video
        on.now_s = 1060.0
        await on.made(await on.ask())
        with pytest.raises(VideoUnknown):
            on.clips.get(video.id)
        size = on.clips.file(on.clips.list(1, None, newest_first=True)[0][0]).stat().st_size
    async with stage(tmp_path / "b", videos_bytes=2 * size + 1) as on:
        videos = [await on.ask() for _ in range(3)]
        for video in videos:
            await on.made(video)
        await on.ask()  # tidies up
        kept = {name for name in on.files() if name.endswith(".mp4")}
        assert kept == {f"{video.id}.mp4" for video in videos[1:]}


async def test_a_folder_outlives_its_server_and_damage(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        made, lost = await on.ask(), await on.ask()
        await on.made(made)
        await on.opened(lost)
    (tmp_path / f"vid_{0:032x}.json").write_text("{")
    (tmp_path / f"{lost.id}.mp4.part").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("somebody's own")
    async with stage(tmp_path) as on:
        assert on.clips.file(on.clips.get(made.id)).stat().st_size == made.record.bytes
        with pytest.raises(VideoFailed, match="ask for it again"):
            on.clips.file(on.clips.get(lost.id))
        assert on.files() == sorted([f"{made.id}.json", f"{made.id}.mp4", f"{lost.id}.json", "notes.txt"])
        on.now_s += 2 * 86400
        await on.made(await on.ask())
        with pytest.raises(VideoUnknown):
            on.clips.get(made.id)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"size": "64×16"}, "size"),
        ({"size": "80x80"}, "size"),
        ({"size": "64x-64"}, "size"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": float("inf")}, "seconds"),
        ({"steps": 0}, "steps"),
        ({"negative_prompt": "\ud800"}, "negative_prompt"),
        ({"model": "another"}, "model"),
    ],
)
def test_what_cannot_be_made_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        clip_order(CreateClip(**{"prompt": "the sea"} | fields), READY)
    assert refused.value.field == field


def test_defaults_are_the_models() -> None:
    order = clip_order(CreateClip(prompt=" the  sea "), READY)
    assert (order.prompt, order.frames, order.width, order.height) == ("the sea", 64, 64, 64)
    seeds = {clip_order(CreateClip(prompt="the sea"), READY).seed for _ in itertools.repeat(None, 8)}
    assert len(seeds) > 1
    none = replace(READY, model=replace(MODEL, clips=None))
    with pytest.raises(Invalid, match="makes no clips"):
        clip_order(CreateClip(prompt="the sea"), none)
