"""Pictures that people send: checked, turned upright, cut, resized, and made a PNG of the size that is wanted.

What a picture may be is in the limits below; all of them are checked before its pixels are unpacked. One picture is
worked on at a time, in a thread of its own, so that neither memory nor the event loop suffers from large ones.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import io
import re
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from streamer.api.problems import Problem

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MAX_IMAGE_BYTES = 10 << 20
MAX_PIXELS = 40_000_000
_DATA_URL = re.compile(r"data:image/[\w.+-]{1,40};base64,", re.ASCII)
_WORKER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="images")
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation (TIFF 6.0, tag 274); 1 is upright, whatever else is no orientation."""
_SIDEWAYS = tuple(_UPRIGHT[value] for value in (5, 6, 7, 8))
T = TypeVar("T")


async def fitted(data: bytes, width: int, height: int, field: str = "image") -> bytes:
    """A picture as it enters the model: a PNG of exactly this size, RGB, without metadata.

    Its first frame, upright by its EXIF orientation, cut to the aspect ratio around its middle, resized (Lanczos),
    its colour profile converted to sRGB, transparent parts on white.

    Args:
        data: a file in one of `FORMATS`.
        width, height: wanted, in pixels.
        field: of the request, for refusals.

    Raises:
        Problem: `image-too-large`, `image-type-unsupported` or `image-unreadable`.
    """
    return await _aside(lambda: _guarded(data, field, lambda image: _png(_fit(image, width, height))))


async def from_data_url(text: str, field: str = "image") -> bytes:
    """The file that a `data:image/…;base64,…` URL holds. Nothing is ever fetched.

    Raises:
        Problem: `image-unreadable`, `image-too-large`.
    """
    head = _DATA_URL.match(text)
    if head is None:
        message = f"{field} must be a data URL (data:image/png;base64,…), or a file of a multipart form"
        raise Problem(422, "image-unreadable", message, field=field)
    if (len(text) - head.end()) * 3 // 4 > MAX_IMAGE_BYTES + 2:
        raise _too_many_bytes(field)
    try:
        return await _aside(lambda: base64.b64decode(text[head.end() :], validate=True))
    except (binascii.Error, ValueError) as error:
        raise Problem(422, "image-unreadable", f"{field} is not base64: {error}", field=field) from error


async def resized(jpeg: bytes, width: int) -> bytes:
    """One of our own JPEGs, of another width and the same shape."""

    def resize() -> bytes:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            height = max(1, round(image.height * width / image.width))
            file = io.BytesIO()
            image.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
            return file.getvalue()

    return await _aside(resize)


async def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return await _aside(lambda: hashlib.sha256(data).hexdigest())


async def check_log(log: str) -> None:
    """Refuse a recipe whose picture is not a PNG of the recipe's size. What else is wrong with it is not told here.

    Raises:
        Problem: `image-unreadable`, naming `log.image`.
    """
    await _aside(lambda: _check_log(log))


class _Picture(msgspec.Struct):
    png: bytes


class _Line(msgspec.Struct):
    height: int
    width: int
    image: _Picture | None = None


def _check_log(log: str) -> None:
    field = "log.image"
    try:
        line = msgspec.json.decode(log.lstrip().split("\n", 1)[0].encode(errors="replace"), type=_Line)
    except msgspec.DecodeError:
        return
    if line.image is None:
        return
    size = (line.width, line.height)

    def check(image: Image.Image) -> None:
        if (image.format, image.mode, image.size) != ("PNG", "RGB", size):
            message = f"{field} must be an RGB PNG of {size[0]}x{size[1]}"
            raise Problem(422, "image-unreadable", message, field=field, limit=f"{size[0]}x{size[1]}")
        image.load()

    _guarded(line.image.png, field, check)


async def _aside(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_WORKER, work)


def _guarded(data: bytes, field: str, work: Callable[[Image.Image], T]) -> T:
    """Open a file, check it, and run `work` on it; raises `Problem` whatever the file does."""
    if len(data) > MAX_IMAGE_BYTES:
        raise _too_many_bytes(field)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width}x{image.height}"
                message = f"{field} has {size} pixels, at most {MAX_PIXELS} are taken"
                raise Problem(422, "image-too-large", message, field=field, limit=MAX_PIXELS)
            return work(image)
    except Problem:
        raise
    except Image.DecompressionBombError as error:
        message = f"{field} has more than {MAX_PIXELS} pixels"
        raise Problem(422, "image-too-large", message, field=field, limit=MAX_PIXELS) from error
    except UnidentifiedImageError as error:
        message = f"{field} is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, or damaged"
        raise Problem(422, "image-type-unsupported", message, field=field, limit=[*FORMATS]) from error
    except Exception as error:  # on a damaged file, decoders raise whatever comes to their minds
        message = f"{field} cannot be read: {' '.join(str(error).split())[:200]}"
        raise Problem(422, "image-unreadable", message, field=field) from error


def _fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """First frame, upright, cut, resized, sRGB, opaque. Turned when it is small: less to move."""
    turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    profile = image.info.get("icc_profile")
    size = (height, width) if turn in _SIDEWAYS else (width, height)
    image.draft(None, (2 * max(size), 2 * max(size)))  # a JPEG is unpacked at half, a quarter or an eighth
    small = ImageOps.fit(_plain(image), size, Image.Resampling.LANCZOS)
    if turn is not None:
        small = small.transpose(turn)
    if "A" not in small.mode:
        return _srgb(small, profile)
    colour = _srgb(small.convert(small.mode.removesuffix("A")), profile)
    return Image.composite(colour, Image.new("RGB", colour.size, "white"), small.getchannel("A"))


def _plain(image: Image.Image) -> Image.Image:
    """In a mode that can be resized and that colour profiles know."""
    if image.has_transparency_data:
        return image if image.mode in ("RGBA", "LA") else image.convert("RGBA")
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    if image.mode.startswith("I"):  # 16 bits, which `convert` would cut off at 255
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    return image.convert("RGB")


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB in sRGB; a profile that can't be used counts as none."""
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
    return image.convert("RGB")


def _png(image: Image.Image) -> bytes:
    image.info.clear()  # or its old profile would go along
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _too_many_bytes(field: str) -> Problem:
    message = f"{field} has more than {MAX_IMAGE_BYTES} bytes"
    return Problem(413, "image-too-large", message, field=field, limit=MAX_IMAGE_BYTES)
