import asyncio
import io
import itertools
import struct
from collections.abc import Iterator
from fractions import Fraction

import av
import pytest
from media_feed import HEIGHT, RATE_HZ, WIDTH, Feed, number_of, picture

from streamer.media.encoder import Encoder, Packet
from streamer.media.hub import Hub
from streamer.media.mp4 import TIMESCALE_HZ, Muxer, split_annex_b
from streamer.media.mse import UNACKNOWLEDGED_S, MseViewer

TICK = TIMESCALE_HZ // RATE_HZ  # media time units


class Reader:
    """Collects what a viewer gives."""

    def __init__(self, viewer: MseViewer) -> None:
        self.viewer, self.messages = viewer, list[bytes]()
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.viewer:
            self.messages.append(message)


async def join(hub: Hub) -> Reader:
    reader = Reader(hub.fragments())
    await asyncio.sleep(0)
    return reader


def encode(ticks: list[int], rate_hz: Fraction = Fraction(RATE_HZ)) -> list[Packet]:
    encoder = Encoder(WIDTH, HEIGHT, rate_hz)
    return [encoder.encode(picture(tick), tick, keyframe=False) for tick in ticks]


def demux(data: bytes) -> list[tuple[int, int, int, bool]]:
    """(picture number, media time, duration, keyframe) of each picture that FFmpeg finds."""
    with av.open(io.BytesIO(data)) as container:
        (stream,) = container.streams
        assert stream.time_base == Fraction(1, TIMESCALE_HZ)
        packets = [packet for packet in container.demux(stream) if packet.size]
        times = [(packet.pts, packet.duration, packet.is_keyframe) for packet in packets]
        decoder = stream.codec_context
        frames = [frame for packet in packets for frame in decoder.decode(packet)] + decoder.decode(None)
    assert len(frames) == len(packets)
    found = [number_of(frame.to_ndarray()[:HEIGHT]) for frame in frames]
    return [(number, *time) for number, time in zip(found, times, strict=True)]


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    while data:
        size, kind = struct.unpack_from(">I4s", data)
        yield kind, data[8:size]
        data = data[size:]


async def test_the_pictures_arrive_at_their_media_times_without_a_hole(hub: Hub, feed: Feed) -> None:
    reader = await join(hub)
    await feed.pictures(25)
    init, *fragments = reader.messages
    assert len(fragments) == 25  # one picture a message, none held back
    assert demux(init + b"".join(fragments)) == [(n, n * TICK, TICK, n == 0) for n in range(25)]


async def test_a_joiner_starts_at_a_keyframe_on_the_time_line_of_all_and_shares_the_bytes(
    hub: Hub, feed: Feed
) -> None:
    first = await join(hub)
    await feed.pictures(40)
    viewer = hub.fragments()
    starting = asyncio.create_task(viewer.start())
    await asyncio.sleep(0)
    await feed.pictures(1)
    start = await starting
    assert (start.tick, start.mime) == (40, 'video/mp4; codecs="avc1.42C01F"')
    second = Reader(viewer)
    await feed.pictures(9)
    assert demux(b"".join(second.messages)) == [(n, n * TICK, TICK, n == 40) for n in range(40, 50)]
    shared = [id(message) for message in first.messages]
    assert [id(message) for message in second.messages] == shared[:1] + shared[41:]


async def test_decoding_can_begin_at_any_keyframe_fragment(hub: Hub, feed: Feed) -> None:
    reader = await join(hub)
    await feed.pictures(20)
    hub.keyframe()
    await feed.pictures(10)
    init, *fragments = reader.messages
    assert [number for number, *_ in demux(init + b"".join(fragments[20:]))] == list(range(20, 30))


def test_the_initialisation_segment_has_the_parameter_sets_and_the_samples_have_not() -> None:
    muxer = Muxer(WIDTH, HEIGHT, Fraction(RATE_HZ))
    packet = encode([0])[0]
    fragment = muxer.mux(packet)
    sps, pps = (nal for nal in split_annex_b(packet.data) if nal[0] & 0x1F in (7, 8))
    assert muxer.init is not None
    assert [kind for kind, _ in boxes(muxer.init)] == [b"ftyp", b"moov"]
    avcc = muxer.init.index(b"avcC") + 4
    assert muxer.init[avcc : avcc + 6] == bytes([1, *sps[1:4], 0xFF, 0xE1])  # 4-byte lengths, one SPS
    assert sps in muxer.init
    assert pps in muxer.init
    (moof, _), (mdat, sample) = boxes(fragment.data)
    assert (moof, mdat) == (b"moof", b"mdat")
    assert sps not in sample
    assert pps not in sample


def test_a_hole_in_the_ticks_is_filled_by_the_picture_after_it() -> None:
    muxer = Muxer(WIDTH, HEIGHT, Fraction(RATE_HZ))
    fragments = [muxer.mux(packet) for packet in encode([0, 1, 4, 5])]
    assert muxer.init is not None
    assert demux(muxer.init + b"".join(fragment.data for fragment in fragments)) == [
        (0, 0, TICK, True),
        (1, TICK, TICK, False),
        (4, 2 * TICK, 3 * TICK, False),
        (5, 5 * TICK, TICK, False),
    ]
    assert [fragment.tick for fragment in fragments] == [0, 1, 2, 5]


def test_a_long_pause_stays_a_pause() -> None:
    muxer = Muxer(WIDTH, HEIGHT, Fraction(RATE_HZ))
    assert [muxer.mux(packet).tick for packet in encode([0, 1, 1 + 2 * RATE_HZ])] == [0, 1, 1 + 2 * RATE_HZ]


def test_times_stay_gapless_where_the_rate_does_not_divide_the_time_scale() -> None:
    rate_hz = Fraction(7)
    muxer = Muxer(WIDTH, HEIGHT, rate_hz)
    fragments = [muxer.mux(packet) for packet in encode(list(range(20)), rate_hz)]
    assert muxer.init is not None
    times = demux(muxer.init + b"".join(fragment.data for fragment in fragments))
    for (_, start, duration, _), (_, following, *_) in itertools.pairwise(times):
        assert start + duration == following


def test_media_time_outlives_32_bits() -> None:
    days = 30 * 86_400 * RATE_HZ
    muxer = Muxer(WIDTH, HEIGHT, Fraction(RATE_HZ))
    fragment = muxer.mux(encode([days])[0])
    tfdt = fragment.data.index(b"tfdt") + 8
    assert struct.unpack_from(">Q", fragment.data, tfdt)[0] == days * TICK > 1 << 32


def test_a_stream_must_begin_with_its_parameter_sets() -> None:
    with pytest.raises(ValueError, match="SPS"):
        Muxer(WIDTH, HEIGHT, Fraction(RATE_HZ)).mux(encode([0, 1])[1])


async def test_a_viewer_that_acknowledges_is_kept_within_its_window(hub: Hub, feed: Feed) -> None:
    window = int(UNACKNOWLEDGED_S * RATE_HZ)
    reader = await join(hub)
    await feed.pictures(1)
    reader.viewer.acknowledge(0)
    await feed.pictures(window + 20)
    assert len(reader.messages) == 1 + 1 + window  # the initialisation segment, tick 0, and the window
    reader.viewer.acknowledge(window - 1)
    await feed.pictures(1)
    assert len(reader.messages) == 2 + window + 21  # had been waiting in the queue
    assert reader.viewer.skipped == 0


async def test_a_viewer_that_stops_acknowledging_skips_and_comes_back_at_a_keyframe(hub: Hub, feed: Feed) -> None:
    window = int(UNACKNOWLEDGED_S * RATE_HZ)
    told: list[bool] = []
    reader = await join(hub)
    reader.viewer.on_skip(lambda: told.append(True))
    await feed.pictures(1)
    reader.viewer.acknowledge(0)
    await feed.pictures(200)
    assert told == [True]
    assert reader.viewer.skipped == 200 - window
    reader.viewer.acknowledge(window)
    await asyncio.sleep(0)
    await feed.pictures(5)
    times = demux(b"".join(reader.messages))
    assert [number for number, *_ in times] == [*range(window + 1), *range(201, 206)]
    assert times[window + 1][1:] == (201 * TICK, TICK, True)


async def test_acknowledging_what_was_never_sent_opens_the_window_no_further(hub: Hub, feed: Feed) -> None:
    window = int(UNACKNOWLEDGED_S * RATE_HZ)
    reader = await join(hub)
    await feed.pictures(1)
    reader.viewer.acknowledge(10**9)
    await feed.pictures(100)
    assert len(reader.messages) == 2 + window


async def test_a_viewer_that_never_acknowledges_is_bounded_by_its_socket_alone(hub: Hub, feed: Feed) -> None:
    reader = await join(hub)
    await feed.pictures(100)
    assert len(reader.messages) == 101


async def test_closing_ends_a_viewer_that_waits(hub: Hub, feed: Feed) -> None:
    waiting, blocked = await join(hub), await join(hub)
    await feed.pictures(1)
    blocked.viewer.acknowledge(0)
    await feed.pictures(100)
    waiting.viewer.close()
    blocked.viewer.close()
    async with asyncio.timeout(5):
        await asyncio.gather(waiting.task, blocked.task)
    assert hub.viewers == 0


async def test_the_end_of_the_stream_ends_a_viewer_without_credit(hub: Hub, feed: Feed) -> None:
    reader = await join(hub)
    await feed.pictures(1)
    reader.viewer.acknowledge(0)
    await feed.pictures(50)
    await hub.close()
    async with asyncio.timeout(5):
        await reader.task
    assert len(reader.messages) == 52  # what was queued is shown


async def test_a_stream_that_ends_before_its_first_picture_says_so(hub: Hub) -> None:
    viewer = hub.fragments()
    starting = asyncio.create_task(viewer.start())
    await asyncio.sleep(0)
    await hub.close()
    with pytest.raises(EOFError):
        await starting
