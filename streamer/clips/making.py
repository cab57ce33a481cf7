"""One try at a clip: the worker's pictures in, a file out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from streamer.clips.video import Video, VideoStatus
from streamer.engine.protocol import ClipCredit, ClipDone, ClipPictures, ClipProgress, Close, Failed, Message
from streamer.media.clip_file import ClipFile
from streamer.session.ports import EngineLike

WINDOW_BYTES = 16 << 20
"""Pictures that may be under way between the worker and the encoder; at least `WINDOW_PICTURES`."""
WINDOW_PICTURES = 8
WAITING = "live streams leave the device no time; it goes on when they do"


class WorkerLost(Exception):
    """The worker ended; the text says why."""


class WorkerRefused(Exception):
    """The clip can't be made; the text says why."""


class Threaded(Protocol):
    """Runs blocking work, in order, in a thread."""

    def __call__(self, work: Callable[[], Any]) -> Awaitable[Any]: ...


async def make(video: Video, engine: EngineLike, path: Path, lost: asyncio.Future[str], threaded: Threaded) -> int:
    """Make a clip and write its file; the file's length in bytes.

    Cancelled, or failed, it leaves nothing on the worker and no file.

    Args:
        video: What to make; its status and progress are kept up to date.
        engine: Its worker is up.
        path: Of the file.
        lost: Resolves when the worker is gone, with the reason.
        threaded: For the encoder and the disk.

    Raises:
        WorkerLost, WorkerRefused: see there.
        OSError: the disk.
    """
    order, epoch = video.order, video.record.restarts + 1
    assert order is not None
    window = max(WINDOW_PICTURES, WINDOW_BYTES // (3 * order.width * order.height))
    inbox: asyncio.Queue[Message | str] = asyncio.Queue()
    lost.add_done_callback(lambda done: None if done.cancelled() else inbox.put_nowait(done.result()))
    stop = engine.listen(video.id, inbox.put_nowait)
    file = ClipFile(path, order.width, order.height, order.rate_hz)
    try:
        if not engine.send(order.message(video.id, epoch, window)):
            raise WorkerLost("the model's worker is gone")
        while True:
            message = await inbox.get()
            match message:
                case str():
                    raise WorkerLost(message)
                case ClipProgress():
                    _progressed(video, message)
                case ClipPictures(rgb=pictures):
                    await threaded(partial(_write, file, pictures))
                    credit = ClipCredit(stream=video.id, epoch=epoch, pictures_until=file.pictures + window)
                    engine.send(credit)
                case Failed():
                    raise WorkerRefused(message.reason)
                case ClipDone():
                    return int(await threaded(file.finish))
    finally:
        stop()
        lost.cancel()
        engine.send(Close(stream=video.id, epoch=epoch))
        await threaded(file.abort)


def _write(file: ClipFile, pictures: Sequence[bytes]) -> None:
    for rgb in pictures:
        file.write(rgb)


def _progressed(video: Video, progress: ClipProgress) -> None:
    if progress.done:
        video.record.status = VideoStatus.IN_PROGRESS
    # The last percent is the file's.
    video.progress = min(99, 100 * progress.done // max(1, progress.total))
    video.reason = WAITING if progress.waiting else None
    video.touch()
