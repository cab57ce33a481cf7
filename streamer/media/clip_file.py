"""A whole video as an MP4 file: RGB pictures in, one after the other; the file appears when the last one is in."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream

PART = ".part"
"""What a file's name ends in while it is written."""
_CRF = 17
_LIMITED_RANGE, _BT709 = 1, 1  # AVCOL_RANGE_MPEG; AVCOL_SPC_, _PRI_ and _TRC_BT709
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


class ClipFile:
    """H.264 (yuv420p, BT.709, limited range) in MP4 with its index in front, so that it plays while it loads.

    Not thread-safe, and slow: for one thread that may wait. Memory is bounded by the encoder's look-ahead.

    Args:
        path: The file; a like-named `.part` is written first.
        width, height: In pixels, even.
        rate_hz: Pictures a second.

    Raises:
        OSError: The disk, in every method but this one and `abort`.
        ValueError: An odd size.
    """

    def __init__(self, path: Path, width: int, height: int, rate_hz: float) -> None:
        if width <= 0 or height <= 0 or width % 2 or height % 2:
            raise ValueError(f"4:2:0 pictures need even sizes, not {width}x{height}")
        self.path = path
        self._part = path.with_name(path.name + PART)
        self._width, self._height = width, height
        self._time_base = 1 / Fraction(rate_hz).limit_denominator(1001)
        self._container = av.open(str(self._part), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream: VideoStream = self._container.add_stream("libx264", rate=1 / self._time_base)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        codec = self._stream.codec_context
        codec.thread_count = 1  # the machine has other things to do
        codec.color_range = _LIMITED_RANGE
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
        codec.options = {"preset": "veryfast", "crf": str(_CRF)}
        self.pictures = 0
        """Pictures written."""

    def write(self, rgb: bytes) -> None:
        """Add a picture: 8-bit RGB, (height, width, 3)."""
        pixels = np.frombuffer(rgb, np.uint8).reshape(self._height, self._width, 3)
        frame = VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=_SCALING,
        )
        frame.pts, frame.time_base = self.pictures, self._time_base
        self._container.mux(self._stream.encode(frame))
        self.pictures += 1

    def finish(self) -> int:
        """Write what is left and give the file its name; its length in bytes."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        os.replace(self._part, self.path)
        return self.path.stat().st_size

    def abort(self) -> None:
        """Remove what was written. After `finish`, or again, it does nothing."""
        with contextlib.suppress(Exception):  # a full disk can't be closed in order either
            self._container.close()
        self._part.unlink(missing_ok=True)
