"""All clip jobs of a server: a bounded queue, one at a time on the worker, files that expire."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from streamer.clips.errors import DiskRefused, VideoFailed, VideoNotReady, VideosFull, VideoUnknown
from streamer.clips.making import WorkerLost, WorkerRefused, make
from streamer.clips.spec import ClipOrder
from streamer.clips.store import Store
from streamer.clips.video import Record, Video, VideoError, VideoStatus
from streamer.engine.protocol import Ready
from streamer.session.ports import EngineLike
from streamer.settings import Settings

logger = logging.getLogger(__name__)

MAX_WAITING = 16
"""Clips that are not over."""
MAX_KEPT = 1000
"""Clips that are over; the oldest goes for a new one."""
TRIES = 3
"""How often a clip is begun: a clip that kills its worker must not do so for ever."""
RETRY_AFTER_S = 10.0
MAX_TIMER_S = 3600.0
DISK_NICENESS = 10
T = TypeVar("T")


class Clips:
    """Creates, makes, keeps and forgets clips.

    Args:
        engine: The worker's handle.
        settings: Where files lie, how many bytes of them, how long.
        clock: Unix seconds.
    """

    def __init__(self, engine: EngineLike, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._videos: OrderedDict[str, Video] = OrderedDict()
        self._waiting: deque[Video] = deque()
        self._wanted = asyncio.Event()
        self._up = asyncio.Event()
        self._lost: Callable[[str], None] | None = None
        self._making: tuple[Video, asyncio.Task[None]] | None = None
        self._worker: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # One thread for encoder and disk: what is asked of it happens in order, and the event loop waits for neither.
        self._thread = ThreadPoolExecutor(1, "clips", initializer=_step_back)

    async def start(self) -> None:
        """Take up what an earlier server left, and begin to work.

        Raises:
            OSError: the folder can't be used.
        """
        self._store = await self._threaded(lambda: Store(self._settings.videos))
        for record in await self._threaded(self._store.load):
            await self._take_up(record)
        self._engine.on_down(self._worker_down)
        self._engine.on_up(self._worker_up)
        if self._engine.ready is not None:
            self._up.set()
        self._worker = asyncio.create_task(self._work(), name="clips")
        self._expire()

    async def close(self) -> None:
        """Stop. Clips not made yet are lost; a folder that outlives the server says so when it is used again."""
        tasks = [task for task in (self._worker, self._making and self._making[1]) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        if self._worker is not None:
            await self._threaded(self._store.close)
        self._thread.shutdown()

    async def create(self, order: ClipOrder) -> Video:
        """Queue a clip.

        Raises:
            VideosFull: too many wait.
            DiskRefused: its record can't be written.
        """
        if sum(not video.over for video in self._videos.values()) >= MAX_WAITING:
            raise VideosFull(f"{MAX_WAITING} clips wait already", limit=MAX_WAITING, retry_after_s=RETRY_AFTER_S)
        video = Video.new(order, self._clock())
        self._videos[video.id] = video
        try:
            await self._save(video)
        except OSError as error:
            del self._videos[video.id]
            raise DiskRefused(f"no clip can be kept: {error.strerror or error}") from error
        self._waiting.append(video)
        self._wanted.set()
        await self._bound()
        return video

    def get(self, id: str) -> Video:
        """A clip by its id.

        Raises:
            VideoUnknown: there is none.
        """
        video = self._videos.get(id)
        if video is None:
            raise VideoUnknown(f"no video {id!r} here, or it has expired", field="video")
        return video

    def list(self, limit: int, after: str | None, newest_first: bool) -> tuple[Sequence[Video], bool]:
        """A page of clips by their creation, and whether there are more.

        Raises:
            VideoUnknown: there is no clip `after`.
        """
        videos = [*self._videos.values()]
        if newest_first:
            videos.reverse()
        if after is not None:
            videos = videos[videos.index(self.get(after)) + 1 :]
        return videos[:limit], len(videos) > limit

    def file(self, video: Video) -> Path:
        """A clip's MP4.

        Raises:
            VideoNotReady: it is not made yet.
            VideoFailed: it never will be.
        """
        if video.record.error is not None:
            raise VideoFailed(video.record.error.message)
        if video.status is not VideoStatus.COMPLETED:
            raise VideoNotReady(f"the video is {video.status}", retry_after_s=1.0, progress=video.progress)
        return self._store.path(video.id)

    def using(self, sha256: str) -> Sequence[str]:
        """Ids of the clips not over yet that an adapter is for."""
        waiting = [video for video in self._videos.values() if video.order is not None]
        return [video.id for video in waiting if any(lora.sha256 == sha256 for lora in video.record.order.loras)]

    def place(self, video: Video) -> int:
        """How many clips are made before this one."""
        return self._waiting.index(video) + (self._making is not None) if video in self._waiting else 0

    async def delete(self, video: Video) -> None:
        """End it if it is not over, and forget it."""
        self._videos.pop(video.id, None)
        if video in self._waiting:
            self._waiting.remove(video)
        if self._making is not None and self._making[0] is video:
            task = self._making[1]
            task.cancel()
            await asyncio.wait({task})
        await self._threaded(lambda: self._store.remove(video.id))
        if not video.over:
            self._set_error(video, "deleted", "the video was deleted")
        video.touch()

    # Making

    async def _work(self) -> None:
        while True:
            self._wanted.clear()
            if not self._waiting:
                await self._wanted.wait()
                continue
            video = self._waiting.popleft()
            task = asyncio.create_task(self._make(video), name=video.id)
            self._making = (video, task)
            await asyncio.wait({task})
            self._making = None

    async def _make(self, video: Video) -> None:
        record = video.record
        try:
            size = await self._made(video)
        except WorkerRefused as error:
            self._set_error(video, "generation-failed", str(error))
        except WorkerLost as error:
            self._set_error(video, "worker-lost", f"begun {TRIES} times, and each time its worker ended: {error}")
        except OSError as error:
            self._set_error(video, "disk", f"the file can't be written: {error.strerror or error}")
        except Exception as error:
            logger.exception("video %s failed", video.id)
            self._set_error(video, "internal", f"an error of the server: {error}")
        else:
            record.status, record.bytes, video.progress = VideoStatus.COMPLETED, size, 100
        record.completed_at = self._clock()
        record.expires_at = record.completed_at + self._settings.videos_keep_s
        video.order, video.reason = None, None
        with contextlib.suppress(OSError):  # then it is lost with this server
            await self._save(video)
        await self._bound()
        self._expire()
        video.touch()

    async def _made(self, video: Video) -> int:
        """Bytes of its file. Raises `WorkerLost` when the last try ends so, and whatever `make` raises."""
        while True:
            if not self._up.is_set():
                video.reason = "the model's worker is starting"
                video.touch()
            await self._up.wait()
            lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self._lost = lost.set_result
            path, most = self._store.path(video.id), self._settings.videos_bytes
            try:
                size = await make(video, self._engine, path, lost, self._threaded)
                if size > most:
                    await self._threaded(path.unlink)
                    raise OSError(f"{size} bytes are over the server's limit of {most}")
                return size
            except WorkerLost as error:
                video.record.restarts += 1
                if video.record.restarts >= TRIES:
                    raise
                video.record.status, video.progress = VideoStatus.QUEUED, 0
                video.reason = f"{error}; it begins anew"
                video.touch()
            finally:
                self._lost = None

    def _set_error(self, video: Video, code: str, message: str) -> None:
        video.record.status = VideoStatus.FAILED
        video.record.error = VideoError(code=code, message=message)

    def _worker_down(self, reason: str) -> None:
        self._up.clear()
        if self._lost is not None:
            self._lost(reason)
            self._lost = None

    def _worker_up(self, ready: Ready) -> None:
        self._up.set()

    # Keeping

    async def _take_up(self, record: Record) -> None:
        video = Video(record)
        if not video.over:
            self._set_error(video, "server-restarted", "the server ended before the video was made; ask for it again")
            record.completed_at = self._clock()
            record.expires_at = record.completed_at + self._settings.videos_keep_s
            await self._save(video)
        self._videos[record.id] = video

    async def _bound(self) -> None:
        """Let the oldest clips go where they are too many, or too many bytes."""
        over = [video for video in self._videos.values() if video.over]
        kept = sum(video.record.bytes for video in over)
        for count, video in enumerate(over):
            if len(over) - count <= MAX_KEPT and kept <= self._settings.videos_bytes:
                return
            kept -= video.record.bytes
            await self.delete(video)

    def _expire(self) -> None:
        """Forget what has expired; look again when the next one does."""
        now_s = self._clock()
        moments = {video.id: video.record.expires_at for video in self._videos.values() if video.record.expires_at}
        expired = [self._videos.pop(id) for id, at_s in moments.items() if at_s <= now_s]
        for video in expired:
            self._thread.submit(self._store.remove, video.id)
            video.touch()
        if self._timer is not None:
            self._timer.cancel()
        left_s = [at_s - now_s for at_s in moments.values() if at_s > now_s]
        # A clock of the day may be put forward: not too long in one go.
        wait_s = min([*left_s, MAX_TIMER_S])
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._expire)

    async def _save(self, video: Video) -> None:
        await self._threaded(lambda: self._store.save(video.record))

    async def _threaded(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _step_back() -> None:
    """Behind the server's own thread and the live streams' encoders (Linux has a niceness a thread)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), DISK_NICENESS)
