"""Fragmented MP4 (ISO/IEC 14496-12, -15), one picture a fragment.

The initialisation segment is FFmpeg's. The fragments are written here: FFmpeg's muxer closes a fragment only when
the next picture comes, which would show everything one picture late.
"""

import io
import struct
from dataclasses import dataclass
from fractions import Fraction

import av

from streamer.media.encoder import Packet

TIMESCALE_HZ = 90_000
"""Units of media time, the same as RTP's for video."""

_NAL_SPS, _NAL_PPS = 7, 8
_TRACK = 1
_TFHD_DEFAULT_BASE_IS_MOOF = 0x020000
_TRUN_DATA_OFFSET, _TRUN_DURATION, _TRUN_SIZE, _TRUN_FLAGS = 0x001, 0x100, 0x200, 0x400
_SAMPLE_SYNC, _SAMPLE_NON_SYNC = 0x02000000, 0x01010000  # depends on nothing | on others, not a sync sample


@dataclass(frozen=True, slots=True)
class Fragment:
    """A `moof` and its `mdat`: one picture, shown from `tick` on."""

    data: bytes
    keyframe: bool
    tick: int


class Muxer:
    """Turns the packets of one stream into fragments that all its viewers share.

    Media time is the tick's: round(tick · 90,000 / rate_hz). A picture that follows a short hole in the ticks is
    shown from the hole's beginning, since players stop at holes.
    """

    def __init__(self, width: int, height: int, rate_hz: Fraction) -> None:
        self._width, self._height, self._rate_hz = width, height, rate_hz
        self._end_tick: int | None = None
        self.init: bytes | None = None
        """The initialisation segment; stands as soon as the first keyframe has been muxed."""
        self.mime: str | None = None
        """What `MediaSource.isTypeSupported` wants, from the stream's own SPS; stands together with `init`."""

    def mux(self, packet: Packet) -> Fragment:
        """The fragment of the next packet. The first packet must be a keyframe (ValueError)."""
        nals = split_annex_b(packet.data)
        if self.init is None:
            self._begin(packet, nals)
        first, end = packet.tick, packet.tick + 1
        if self._end_tick is not None and first - self._end_tick < self._rate_hz:
            first = self._end_tick
        self._end_tick = end
        # In `avc1` the parameter sets stand in the initialisation segment only.
        sample = b"".join(
            struct.pack(">I", len(nal)) + nal for nal in nals if nal[0] & 0x1F not in (_NAL_SPS, _NAL_PPS)
        )
        start, duration = self._time(first), self._time(end) - self._time(first)
        return Fragment(_fragment(sample, start, duration, packet.tick, packet.keyframe), packet.keyframe, first)

    def _begin(self, packet: Packet, nals: list[bytes]) -> None:
        sps = next((nal for nal in nals if nal[0] & 0x1F == _NAL_SPS), None)
        if sps is None:
            raise ValueError("the first packet of a stream must carry its SPS")
        self.mime = f'video/mp4; codecs="avc1.{sps[1:4].hex().upper()}"'
        self.init = _init_segment(packet, self._width, self._height)

    def _time(self, tick: int) -> int:
        return round(tick * TIMESCALE_HZ / self._rate_hz)


def split_annex_b(data: bytes) -> list[bytes]:
    """The NAL units of an Annex-B access unit (ITU-T H.264, annex B), without their start codes."""
    units = data.split(b"\x00\x00\x01")[1:]
    # A NAL unit ends in a non-zero byte; zeros at its end belong to the next start code.
    return [unit.rstrip(b"\x00") for unit in units]


def _init_segment(keyframe: Packet, width: int, height: int) -> bytes:
    out = io.BytesIO()
    options = {"movflags": "empty_moov+delay_moov+default_base_moof", "use_editlist": "0"}
    with av.open(out, "w", format="mp4", options=options) as container:
        stream = container.add_mux_stream("h264", width=width, height=height)
        stream.time_base = Fraction(1, TIMESCALE_HZ)
        packet = av.Packet(keyframe.data)
        packet.stream, packet.time_base = stream, stream.time_base
        packet.pts = packet.dts = 0
        packet.duration = 1
        packet.is_keyframe = True
        container.mux(packet)
    segment = out.getvalue()
    end = 0
    while segment[end + 4 : end + 8] in (b"ftyp", b"moov"):
        end += int(struct.unpack_from(">I", segment, end)[0])
    return segment[:end]


def _fragment(sample: bytes, start: int, duration: int, sequence: int, keyframe: bool) -> bytes:
    def moof(data_offset: int) -> bytes:
        flags = _TRUN_DATA_OFFSET | _TRUN_DURATION | _TRUN_SIZE | _TRUN_FLAGS
        sample_flags = _SAMPLE_SYNC if keyframe else _SAMPLE_NON_SYNC
        run = struct.pack(">IiIII", 1, data_offset, duration, len(sample), sample_flags)
        track = (
            _full_box(b"tfhd", 0, _TFHD_DEFAULT_BASE_IS_MOOF, struct.pack(">I", _TRACK))
            + _full_box(b"tfdt", 1, 0, struct.pack(">Q", start))
            + _full_box(b"trun", 0, flags, run)
        )
        header = _full_box(b"mfhd", 0, 0, struct.pack(">I", (sequence + 1) & 0xFFFFFFFF))
        return _box(b"moof", header + _box(b"traf", track))

    mdat = _box(b"mdat", sample)
    return moof(len(moof(0)) + len(mdat) - len(sample)) + mdat


def _box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def _full_box(kind: bytes, version: int, flags: int, payload: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags) + payload)
