from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from streamer.media.clip_file import ClipFile

COLOURS = [(200, 30, 40), (20, 160, 60), (30, 60, 210), (240, 240, 240), (10, 10, 10)]


def write(path: Path, rate_hz: float = 16.0) -> int:
    file = ClipFile(path, 64, 32, rate_hz)
    for colour in COLOURS:
        file.write(np.broadcast_to(np.array(colour, np.uint8), (32, 64, 3)).tobytes())
    assert not path.exists()
    return file.finish()


@pytest.mark.parametrize("rate_hz", [16.0, 24000 / 1001])
def test_it_plays_with_the_right_colours_times_and_index_in_front(tmp_path: Path, rate_hz: float) -> None:
    path = tmp_path / "clip.mp4"
    size = write(path, rate_hz)
    data = path.read_bytes()
    assert len(data) == size
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.pix_fmt) == (64, 32, "yuv420p")
        assert stream.codec_context.colorspace == stream.codec_context.color_primaries == 1
        assert stream.codec_context.color_range == 1
        assert float(stream.average_rate) == pytest.approx(rate_hz)
        frames = list(container.decode(stream))
    times = [float(frame.pts * frame.time_base) for frame in frames]
    assert times == pytest.approx([index / rate_hz for index in range(len(COLOURS))], abs=1e-3)
    for frame, colour in zip(frames, COLOURS, strict=True):
        pixel = frame.to_ndarray(format="rgb24", src_colorspace="ITU709")[16, 32]
        assert np.abs(pixel.astype(int) - colour).max() <= 6


def test_an_aborted_one_leaves_nothing(tmp_path: Path) -> None:
    file = ClipFile(tmp_path / "clip.mp4", 64, 32, 16.0)
    file.write(bytes(64 * 32 * 3))
    file.abort()
    file.abort()
    assert not list(tmp_path.iterdir())
    write(tmp_path / "whole.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["whole.mp4"]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even sizes, not 63x32"):
        ClipFile(tmp_path / "clip.mp4", 63, 32, 16.0)
    with pytest.raises(OSError, match="No such file"):
        write(tmp_path / "none" / "clip.mp4")
