import asyncio
from dataclasses import dataclass

import pytest

from streamer.media.sink import Sink


@dataclass
class Item:
    tick: int
    keyframe: bool = False


class Asked:
    count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def asked() -> Asked:
    return Asked()


async def begin(sink: Sink[Item]) -> "asyncio.Task[Item]":
    """A reader that waits for its first item."""
    task = asyncio.create_task(anext(sink))
    await asyncio.sleep(0)
    return task


async def test_nothing_is_queued_before_somebody_reads_and_reading_asks_for_a_keyframe(asked: Asked) -> None:
    sink = Sink[Item](4, asked)
    for tick in range(10):
        sink.offer(Item(tick, keyframe=tick == 0))
    assert asked.count == 0
    reader = await begin(sink)
    assert asked.count == 1
    sink.offer(Item(10))
    sink.offer(Item(11, keyframe=True))
    assert (await reader).tick == 11
    assert sink.skipped == 0


async def test_a_slow_reader_goes_on_at_the_next_keyframe_and_is_told(asked: Asked) -> None:
    sink, told = Sink[Item](4, asked), Asked()
    sink.on_skip.append(told)
    reader = await begin(sink)
    for tick in range(5):  # the fifth finds four in the queue
        sink.offer(Item(tick, keyframe=tick == 0))
    assert told.count == 1
    assert sink.skipped == 5
    await asyncio.sleep(0)
    assert not reader.done()  # it had been woken, and found what it was woken for gone
    assert asked.count == 2
    sink.offer(Item(5))
    sink.offer(Item(6, keyframe=True))
    sink.offer(Item(7))
    assert (await reader).tick == 6
    assert (await anext(sink)).tick == 7
    assert (told.count, sink.skipped) == (1, 6)


async def test_a_reader_that_stopped_asks_for_no_keyframes(asked: Asked) -> None:
    sink = Sink[Item](4, asked)
    reader = await begin(sink)
    sink.offer(Item(0, keyframe=True))
    await reader
    for tick in range(1, 1000):
        sink.offer(Item(tick, keyframe=tick % 10 == 0))
    assert asked.count == 1
    assert sink.skipped == 999
    again = await begin(sink)
    assert asked.count == 2
    sink.offer(Item(1000, keyframe=True))
    assert (await again).tick == 1000


async def test_closing_ends_the_iteration_after_what_is_queued_and_is_told_once(asked: Asked) -> None:
    sink, left = Sink[Item](4, asked), Asked()
    sink.on_close.append(left)
    reader = await begin(sink)
    with sink:
        sink.offer(Item(0, keyframe=True))
        sink.offer(Item(1))
    sink.close()
    assert (await reader).tick == 0
    assert [item.tick async for item in sink] == [1]
    assert left.count == 1


async def test_closing_wakes_a_reader_that_waits(asked: Asked) -> None:
    sink = Sink[Item](4, asked)
    reader = await begin(sink)
    sink.close()
    with pytest.raises(StopAsyncIteration):
        await reader
