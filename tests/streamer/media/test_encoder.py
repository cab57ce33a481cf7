from fractions import Fraction

import av
import numpy as np
import pytest
from media_feed import HEIGHT, RATE_HZ, WIDTH, number_of, picture

from streamer.media.encoder import GOP_S, Encoder, Packet
from streamer.media.mp4 import split_annex_b

RATE = Fraction(RATE_HZ)
SPS, PPS, IDR, NON_IDR = 7, 8, 5, 1


def encode(ticks: list[int], keyframes: tuple[int, ...] = ()) -> list[Packet]:
    encoder = Encoder(WIDTH, HEIGHT, RATE)
    return [encoder.encode(picture(tick), tick, keyframe=tick in keyframes) for tick in ticks]


def decode(packets: list[Packet]) -> list[av.VideoFrame]:
    decoder = av.CodecContext.create("h264", "r")
    frames = []
    for packet in packets:
        data = av.Packet(packet.data)
        data.pts = packet.tick
        frames += decoder.decode(data)
    return frames + decoder.decode(None)


def kinds(packet: Packet) -> list[int]:
    return [nal[0] & 0x1F for nal in split_annex_b(packet.data)]


def test_every_picture_comes_out_once_in_order_and_at_its_tick() -> None:
    frames = decode(encode(list(range(40))))
    assert [number_of(frame.to_ndarray()[:HEIGHT]) for frame in frames] == list(range(40))
    assert [frame.pts for frame in frames] == list(range(40))


def test_the_picture_survives() -> None:
    (frame,) = decode(encode([7]))
    original = np.frombuffer(picture(7), np.uint8).reshape(-1, WIDTH)
    error = original.astype(float) - frame.to_ndarray()
    assert np.sqrt((error**2).mean()) < 4


def test_keyframes_come_first_when_asked_for_and_at_the_end_of_a_gop() -> None:
    gop = GOP_S * RATE_HZ
    packets = encode(list(range(gop + 30)), keyframes=(20,))
    assert [packet.tick for packet in packets if packet.keyframe] == [0, 20, 20 + gop]
    for packet in packets:
        assert (IDR in kinds(packet)) == packet.keyframe
        assert ({SPS, PPS} <= set(kinds(packet))) == packet.keyframe
        assert (NON_IDR in kinds(packet)) != packet.keyframe


def test_decoding_can_begin_at_any_keyframe() -> None:
    packets = encode(list(range(30)), keyframes=(17,))
    assert [number_of(frame.to_ndarray()[:HEIGHT]) for frame in decode(packets[17:])] == list(range(17, 30))


def test_the_stream_says_what_it_is() -> None:
    packet = encode([0])[0]
    sps = next(nal for nal in split_annex_b(packet.data) if nal[0] & 0x1F == SPS)
    assert sps[1:4].hex() == "42c01f"  # constrained baseline, level 3.1
    (frame,) = decode([packet])
    assert (frame.colorspace, frame.color_range) == (1, 1)  # BT.709, limited range


def test_a_pause_of_the_ticks_costs_no_quality_and_no_bytes() -> None:
    steady = encode(list(range(20)))
    paused = encode([*range(10), *range(10_010, 10_020)])
    assert paused[10].keyframe is False
    assert sum(len(packet.data) for packet in paused[11:]) < 2 * sum(len(packet.data) for packet in steady[11:])


def test_a_large_picture_gets_the_level_it_needs() -> None:
    packet = Encoder(1920, 1080, Fraction(30)).encode(picture(0, 1920, 1080), 0, keyframe=True)
    assert next(nal for nal in split_annex_b(packet.data) if nal[0] & 0x1F == SPS)[3] > 0x1F


@pytest.mark.parametrize(
    ("width", "height", "rate_hz"), [(255, 144, 16), (256, 143, 16), (0, 144, 16), (256, 144, 0)]
)
def test_impossible_sizes_and_rates_are_refused(width: int, height: int, rate_hz: int) -> None:
    with pytest.raises(ValueError, match=r"even sizes|positive"):
        Encoder(width, height, Fraction(rate_hz))


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="reshape"):
        Encoder(WIDTH, HEIGHT, RATE).encode(b"short", 0, keyframe=True)
