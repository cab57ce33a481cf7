"""H.264 encoding: one I420 picture in, one packet out, in the same call.

Constrained baseline without B-frames, one thread, no look-ahead: a packet never waits for a later
picture, and WebRTC and MP4 both take the same bytes (Annex B, SPS and PPS in front of each IDR).
"""

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

GOP_S = 10
"""Seconds between keyframes that nobody asked for; joins, losses and skips ask for theirs."""

_CRF = 18
_BITS_PER_PIXEL = 0.35  # of the VBV cap; far above what smooth pictures need at this CRF
_MIN_BITRATE, _MAX_BITRATE = 1_500_000, 10_000_000  # bit/s; level 3.1 ends at 14 Mbit/s
_VBV_S = 0.5
_LEVEL_31_MACROBLOCKS, _LEVEL_31_MACROBLOCKS_PER_S = 3_600, 108_000  # ITU-T H.264, table A-1
_LIMITED_RANGE, _BT709 = 1, 1  # AVCOL_RANGE_MPEG; AVCOL_SPC_, _PRI_ and _TRC_BT709


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded picture: an H.264 access unit in Annex-B form, and the tick it is shown at."""

    data: bytes
    keyframe: bool
    tick: int


class Encoder:
    """An H.264 encoder for pictures of one size; not thread-safe, to be used by one thread at a time.

    Raises ValueError if width or height is odd or not positive, or rate_hz is not positive.
    """

    def __init__(self, width: int, height: int, rate_hz: Fraction) -> None:
        if width <= 0 or height <= 0 or width % 2 or height % 2:
            raise ValueError(f"4:2:0 pictures need even sizes, not {width}x{height}")
        if rate_hz <= 0:
            raise ValueError(f"rate_hz must be positive, not {rate_hz}")
        self._width, self._height = width, height
        self._time_base = 1 / rate_hz
        self._codec = _open(width, height, rate_hz)

    def encode(self, i420: bytes, tick: int, *, keyframe: bool) -> Packet:
        """Encode one picture.

        i420: width·height·3/2 bytes, BT.709 limited range; ValueError for another size. tick: greater than
        the last one's.
        """
        rows = np.frombuffer(i420, np.uint8).reshape(self._height * 3 // 2, self._width)
        frame = av.VideoFrame.from_ndarray(rows, format="yuv420p")
        frame.pts, frame.time_base = tick, self._time_base
        frame.pict_type = PictureType.I if keyframe else PictureType.NONE
        (packet,) = self._codec.encode(frame)
        return Packet(bytes(packet), packet.is_keyframe, tick)


def _open(width: int, height: int, rate_hz: Fraction) -> VideoCodecContext:
    codec: VideoCodecContext = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.time_base, codec.framerate = 1 / rate_hz, rate_hz
    codec.gop_size = round(GOP_S * rate_hz)
    codec.max_b_frames = 0
    codec.thread_count = 1
    codec.color_range = _LIMITED_RANGE
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
    bitrate = round(min(max(width * height * float(rate_hz) * _BITS_PER_PIXEL, _MIN_BITRATE), _MAX_BITRATE))
    options = {
        "preset": "veryfast",
        "tune": "zerolatency",
        "profile": "baseline",
        "crf": str(_CRF),
        "maxrate": str(bitrate),
        "bufsize": str(round(bitrate * _VBV_S)),
        "forced-idr": "1",
        # force-cfr: after a pause of the ticks the rate control must not believe in one very long picture.
        "x264-params": "scenecut=0:repeat-headers=1:force-cfr=1",
    }
    macroblocks = -(-width // 16) * -(-height // 16)
    if macroblocks <= _LEVEL_31_MACROBLOCKS and macroblocks * rate_hz <= _LEVEL_31_MACROBLOCKS_PER_S:
        options["level"] = "3.1"
    codec.options = options
    return codec
