import asyncio
import io
import threading
import weakref
from collections.abc import AsyncIterator

import av
import numpy as np
import psutil
import pytest
from media_feed import HEIGHT, RATE_HZ, WIDTH, Feed, number_of, picture
from PIL import Image

from streamer.media.encoder import Packet
from streamer.media.hub import KEYFRAME_INTERVAL_S, PENDING_PICTURES, Hub, HubClosedError, HubFullError
from streamer.media.sink import Sink

INTERVAL = int(KEYFRAME_INTERVAL_S * RATE_HZ)


class Reader:
    """Collects what a sink gives."""

    def __init__(self, sink: Sink[Packet]) -> None:
        self.sink, self.packets = sink, list[Packet]()
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for packet in self.sink:
            self.packets.append(packet)

    @property
    def ticks(self) -> list[int]:
        return [packet.tick for packet in self.packets]

    @property
    def keyframes(self) -> list[int]:
        return [packet.tick for packet in self.packets if packet.keyframe]


async def join(hub: Hub) -> Reader:
    reader = Reader(hub.packets())
    await asyncio.sleep(0)
    return reader


def numbers(packets: list[Packet]) -> list[int]:
    decoder = av.CodecContext.create("h264", "r")
    frames = [frame for packet in packets for frame in decoder.decode(av.Packet(packet.data))]
    return [number_of(frame.to_ndarray()[:HEIGHT]) for frame in frames + decoder.decode(None)]


async def test_everybody_gets_the_same_packets_one_a_tick(hub: Hub, feed: Feed) -> None:
    readers = [await join(hub) for _ in range(3)]
    await feed.pictures(20)
    assert readers[0].ticks == list(range(20))
    assert numbers(readers[0].packets) == list(range(20))
    for other in readers[1:]:
        assert [id(packet) for packet in other.packets] == [id(packet) for packet in readers[0].packets]
    assert hub.stats.encoded == 20


async def test_nothing_is_encoded_while_nobody_watches(hub: Hub, feed: Feed) -> None:
    await feed.pictures(30)
    assert hub.stats.encoded == 0
    reader = await join(hub)
    await feed.pictures(5)
    assert reader.ticks == list(range(30, 35))
    assert numbers(reader.packets) == list(range(30, 35))
    reader.sink.close()
    await feed.pictures(5)
    assert hub.stats.encoded == 5


async def test_a_joiner_gets_a_keyframe_at_once(hub: Hub, feed: Feed) -> None:
    await join(hub)
    await feed.pictures(40)
    second = await join(hub)
    await feed.pictures(3)
    assert second.ticks == [40, 41, 42]
    assert second.keyframes == [40]
    assert numbers(second.packets) == [40, 41, 42]


async def test_who_takes_time_to_connect_still_gets_a_keyframe_at_once(hub: Hub, feed: Feed) -> None:
    sink = hub.packets()
    await feed.pictures(3)
    assert hub.stats.encoded == 0
    reader = Reader(sink)
    await asyncio.sleep(0)
    await feed.pictures(2)
    assert reader.keyframes == [3]


async def test_keyframes_on_demand_are_rate_limited_and_none_is_forgotten(hub: Hub, feed: Feed) -> None:
    reader = await join(hub)
    for _ in range(4 * INTERVAL):
        hub.keyframe()
        await feed.pictures(1)
    assert reader.keyframes == [0, INTERVAL, 2 * INTERVAL, 3 * INTERVAL]
    await feed.pictures(3 * INTERVAL)  # the last demands are met by one keyframe, then there is none
    assert reader.keyframes[4:] == [4 * INTERVAL]
    assert hub.stats.keyframes == 5


async def test_a_slow_viewer_skips_and_the_other_one_does_not(hub: Hub, feed: Feed) -> None:
    fast, slow, told = await join(hub), hub.packets(), []
    slow.on_skip.append(lambda: told.append(True))
    first = asyncio.create_task(anext(slow))
    await feed.pictures(1)
    assert (await first).tick == 0
    await feed.pictures(200)
    assert slow.skipped > 150
    assert told == [True]
    assert hub.stats.skips == 1
    again = asyncio.create_task(anext(slow))
    await feed.pictures(INTERVAL)
    assert (await again).keyframe
    assert fast.ticks == list(range(201 + INTERVAL))


async def test_viewers_are_counted_and_told_in_the_loop() -> None:
    counts: list[tuple[int, str]] = []
    hub = Hub(WIDTH, HEIGHT, RATE_HZ, lambda count: counts.append((count, threading.current_thread().name)))
    with hub.packets(), hub.fragments():
        assert hub.viewers == 2
    sink = hub.packets()
    sink.close()
    sink.close()
    await hub.close()
    assert [count for count, _ in counts] == [1, 2, 1, 0, 1, 0]
    assert {name for _, name in counts} == {threading.current_thread().name}


async def test_places_are_limited() -> None:
    hub = Hub(WIDTH, HEIGHT, RATE_HZ, max_viewers=2)
    with hub.packets(), hub.fragments():
        with pytest.raises(HubFullError) as caught:
            hub.packets()
        assert caught.value.limit == 2
    hub.packets().close()
    await hub.close()
    with pytest.raises(HubClosedError):
        hub.fragments()


async def test_a_late_encoder_costs_pictures_not_memory_and_says_so_once(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    reader = await join(hub)
    blocker = threading.Event()
    hub._thread.submit(blocker.wait)
    for tick in range(50):
        hub.release(picture(tick), tick)
    assert hub.stats.dropped == 50 - PENDING_PICTURES
    assert [record.getMessage() for record in caplog.records] == [
        "the encoder is late: pictures from tick 4 on are dropped"
    ]
    blocker.set()
    await hub.close()
    await reader.task
    assert reader.ticks == list(range(PENDING_PICTURES))


async def test_closing_shows_what_was_released_and_leaves_nothing(leaves_nothing: None) -> None:
    hub = Hub(WIDTH, HEIGHT, RATE_HZ)
    reader = await join(hub)
    for tick in range(3):
        hub.release(picture(tick), tick)
    await hub.close()
    await hub.close()
    await reader.task
    assert reader.ticks == [0, 1, 2]
    hub.release(picture(3), 3)
    assert hub.stats.encoded == 3


async def test_a_broken_encoder_ends_the_viewers_and_says_why(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons: list[str] = []
    hub._on_failure = reasons.append
    reader, viewer = await join(hub), hub.fragments()
    monkeypatch.setattr(hub._encoder, "_height", HEIGHT // 2)  # the picture no longer fits
    hub.release(picture(0), 0)
    hub.release(picture(1), 1)
    async with asyncio.timeout(5):
        await reader.task
        assert [data async for data in viewer] == []
    assert len(reasons) == 1
    assert reasons[0] == hub.failure
    assert "reshape" in reasons[0]
    assert hub.viewers == 0


async def test_wrong_pictures_and_ticks_are_refused(hub: Hub) -> None:
    hub.release(picture(0), 5)
    for tick in (5, 4):
        with pytest.raises(ValueError, match=f"tick {tick}"):
            hub.release(picture(0), tick)
    with pytest.raises(ValueError, match="no I420 picture of 256x144"):
        hub.release(b"short", 6)


async def test_a_closed_hub_keeps_neither_encoder_nor_picture(hub: Hub, feed: Feed) -> None:
    await join(hub)
    await feed.pictures(2)
    assert hub._encoder is not None
    encoder, shown = weakref.ref(hub._encoder), hub._latest
    assert shown is not None
    await hub.close()
    assert encoder() is None
    assert hub._latest is None


async def test_the_poster_is_the_last_picture(hub: Hub, feed: Feed) -> None:
    assert await hub.poster() is None
    await feed.pictures(12)
    first, same = await asyncio.gather(hub.poster(), hub.poster())
    assert first is not None
    assert first is same
    image = Image.open(io.BytesIO(first))
    assert image.format == "JPEG"
    assert number_of(np.asarray(image.convert("L"))) == 11
    await feed.pictures(1)
    assert await hub.poster() != first


@pytest.fixture
async def watched(hub: Hub) -> AsyncIterator[Hub]:
    packets, fragments = Reader(hub.packets()), hub.fragments()

    async def read() -> None:
        async for _ in fragments:
            packets.packets.clear()

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    yield hub
    await hub.close()
    await asyncio.gather(task, packets.task)


async def test_memory_is_flat(watched: Hub, feed: Feed) -> None:
    stalled = watched.fragments()
    process = psutil.Process()
    await feed.pictures(400)
    before = process.memory_info().rss
    await feed.pictures(2500)
    assert process.memory_info().rss - before < 4 << 20
    assert watched.stats.encoded == 2900
    stalled.close()
