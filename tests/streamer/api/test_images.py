"""Pictures that streams start from: what is taken, what is refused, and that a recipe holds them."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from PIL import Image, ImageCms
from serving import Server, serve
from websockets.asyncio.client import connect

from streamer.api import images
from streamer.api.problems import Problem

RED, BLUE = (250, 10, 10), (10, 10, 250)


def halves(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image.convert(mode)


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is huge."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


async def fit(data: bytes, width: int = 64, height: int = 48) -> np.ndarray:
    """(height, width, 3), checked to be a plain PNG of that size."""
    image = Image.open(io.BytesIO(await images.fitted(data, width, height)))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (width, height))
    assert not {"exif", "icc_profile"} & image.info.keys()
    return np.asarray(image).astype(int)


def near(pixel: np.ndarray, colour: tuple[int, int, int], within: int = 14) -> bool:
    return bool(np.abs(pixel - np.array(colour)).max() <= within)


@pytest.mark.parametrize("kind", images.FORMATS)
@pytest.mark.parametrize("size", [(64, 48), (400, 100), (31, 300), (3000, 20)])
async def test_any_format_and_aspect_ratio_is_cut_around_its_middle(kind: str, size: tuple[int, int]) -> None:
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    pixels = await fit(file_of(halves(*size), kind, **options))
    assert near(pixels[24, 4], RED)
    assert near(pixels[24, -5], BLUE)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGBA", "I;16"])
async def test_any_mode(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.tile(np.array([20_000, 60_000], np.uint16).repeat(32), (48, 1)))
    else:
        image = halves(64, 48).convert("L").convert(mode) if mode in ("1", "L", "LA") else halves(64, 48, mode)
    pixels = await fit(file_of(image, "JPEG" if mode == "CMYK" else "PNG"))
    expected = np.asarray(image.convert("RGB")).astype(int)
    if mode == "I;16":
        expected = np.asarray(image)[..., None].astype(int) // 257 + np.zeros(3, int)
    assert np.abs(pixels - expected)[:, 8:24].max() <= 14


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
async def test_exif_orientation_is_respected(orientation: int, kind: str) -> None:
    """The four corners of an upright picture, stored in each of the eight ways."""
    corners = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]
    upright = Image.new("RGB", (64, 48))
    for index, colour in enumerate(corners):
        upright.paste(colour, (index % 2 * 32, index // 2 * 24, index % 2 * 32 + 32, index // 2 * 24 + 24))
    turns = [None, None, 0, 3, 1, 5, 2, 6, 4]  # what undoes each orientation, as Image.Transpose
    undo = {None: None, 0: 0, 1: 1, 3: 3, 5: 5, 6: 6, 2: 2, 4: 4}[turns[orientation]]
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    pixels = await fit(file_of(stored, kind, exif=exif, **options))
    found = [pixels[12, 16], pixels[12, 48], pixels[36, 16], pixels[36, 48]]
    assert all(near(pixel, colour) for pixel, colour in zip(found, corners, strict=True)), found


async def test_transparent_parts_are_white_and_only_the_first_frame_counts() -> None:
    clear = Image.new("RGBA", (64, 48), (250, 10, 10, 0))
    clear.paste((10, 10, 250, 255), (32, 0, 64, 48))
    pixels = await fit(file_of(clear))
    assert near(pixels[24, 4], (255, 255, 255))
    assert near(pixels[24, -5], BLUE)
    frames = [Image.new("RGB", (64, 48), colour) for colour in (RED, BLUE)]
    for kind in ("GIF", "WEBP", "PNG"):
        pixels = await fit(file_of(frames[0], kind, save_all=True, append_images=frames[1:], duration=50))
        assert near(pixels[24, 24], RED, 20), kind


async def test_a_colour_profile_is_converted_and_a_broken_one_ignored() -> None:
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))  # no profile of RGB: can't be used
    plain = halves(64, 48)
    assert near((await fit(file_of(plain, icc_profile=swapped.tobytes())))[24, 4], RED)
    assert near((await fit(file_of(plain, icc_profile=b"nonsense")))[24, 4], RED)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert near((await fit(file_of(plain, icc_profile=srgb)))[24, 4], RED, 2)
    wide = srgb.replace(_colorant(srgb, b"rXYZ"), _xyz(0.6097, 0.3111, 0.0195))
    wide = wide.replace(_colorant(srgb, b"gXYZ"), _xyz(0.2053, 0.6257, 0.0609))  # Adobe RGB's red and green
    pixels = await fit(file_of(Image.new("RGB", (64, 48), (200, 120, 120)), icc_profile=wide))
    assert pixels[24, 4][0] > 210


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _colorant(profile: bytes, name: bytes) -> bytes:
    place = profile.index(name)
    offset, length = struct.unpack(">II", profile[place + 4 : place + 12])
    return profile[offset : offset + length]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (bomb(60_000, 60_000), "image-too-large"),
        (bomb(8_000, 5_001), "image-too-large"),
        (bomb(0, 5), "image-type-unsupported"),
        (bomb(100, 100), "image-unreadable"),
        (b"", "image-type-unsupported"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image-type-unsupported"),
        (file_of(halves(8, 8), "BMP"), "image-type-unsupported"),
        (file_of(halves(640, 480), "JPEG")[:900], "image-unreadable"),
        (file_of(halves(64, 48))[:70], "image-unreadable"),
        (bytes(images.MAX_IMAGE_BYTES + 1), "image-too-large"),
    ],
    ids=["bomb", "pixels", "empty", "hollow", "nothing", "svg", "bmp", "cut jpeg", "cut png", "bytes"],
)
async def test_bombs_damage_and_other_types_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(Problem) as refused:
        await images.fitted(data, 64, 48)
    assert (refused.value.code, refused.value.field) == (code, "image")
    assert refused.value.limit or code == "image-unreadable"


@pytest.mark.parametrize("text", ["http://example.org/a.png", "data:text/plain;base64,AAAA", "data:image/png,AAAA"])
async def test_only_data_urls_are_taken(text: str) -> None:
    with pytest.raises(Problem) as refused:
        await images.from_data_url(text)
    assert refused.value.code == "image-unreadable"


async def pictures(server: Server, stream: str, count: int) -> list[np.ndarray]:
    """The first pictures of a stream, decoded, in order and without repeats."""
    seen: dict[int, np.ndarray] = {}
    url = f"{server.url}/v1/streams/{stream}/video".replace("http", "ws", 1)
    async with connect(url, max_size=None) as socket:
        hello = json.loads(await socket.recv())
        head = await socket.recv()
        assert hello["type"] == "hello"
        while len(seen) < count:
            fragment = await socket.recv()
            if isinstance(fragment, bytes):
                with av.open(io.BytesIO(head + fragment)) as container:
                    for frame in container.decode(video=0):
                        seen[len(seen)] = frame.to_ndarray(format="rgb24").astype(int)
    return [*seen.values()]


async def test_over_http(tiny_model: Path) -> None:
    data = file_of(halves(200, 100), "JPEG")
    async with (
        serve(tiny_model, "--max-streams", "2") as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as http,
    ):
        fields = {"prompt": "the sea", "seed": "7", "metadata": '{"a": "b"}'}
        key = {"Idempotency-Key": "one"}
        made = await http.post("/v1/streams", data=fields, files={"image": ("a.jpg", data)}, headers=key)
        assert made.status_code == 201, made.text
        stream = made.json()
        assert (stream["seed"], stream["metadata"], stream["prompt"]) == (7, {"a": "b"}, "the sea")
        again = await http.post("/v1/streams", data=fields, files={"image": ("b.jpg", data)}, headers=key)
        assert again.json()["id"] == stream["id"]
        other = await http.post("/v1/streams", data=fields, files={"image": ("a.jpg", data + b"x")}, headers=key)
        assert (other.status_code, other.json()["code"]) == (422, "key-reused")

        log = (await http.get(f"/v1/streams/{stream['id']}/log")).text
        header = json.loads(log.splitlines()[0])
        kept = Image.open(io.BytesIO(base64.b64decode(header["image"]["png"])))
        assert kept.size == (64, 64)
        assert near(np.asarray(kept).astype(int)[32, 4], RED)
        shown = await pictures(server, stream["id"], 3)
        assert shown[0].shape == (64, 64, 3)
        await http.delete(f"/v1/streams/{stream['id']}")

        url = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
        by_url = await http.post("/v1/streams", json={"prompt": "the sea", "seed": 7, "image": url})
        replay = await http.post("/v1/streams", json={"log": log})
        logs = [(await http.get(f"/v1/streams/{one.json()['id']}/log")).text for one in (by_url, replay)]
        assert logs == [log, log]

        for body, code, field in [
            ({"prompt": "x", "image": "http://example.org/a.png"}, "image-unreadable", "image"),
            ({"log": log, "image": url}, "log-and-field", "image"),
            ({"log": log.replace(header["image"]["sha256"], "0" * 64)}, "log-malformed", "log.image"),
            ({"log": _with_picture(header, file_of(halves(32, 64)))}, "image-unreadable", "log.image"),
            ({"log": _with_picture(header, file_of(halves(64, 64))[:70])}, "image-unreadable", "log.image"),
        ]:
            refused = await http.post("/v1/streams", json=body)
            assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (422, code, field)
        for form, code in [
            ({"prompt": (None, "x"), "image": ("a", bomb(60_000, 60_000))}, "image-too-large"),
            ({"prompt": (None, "x"), "image": ("a", bytes(images.MAX_IMAGE_BYTES + 1))}, "image-too-large"),
            ({"prompt": (None, "x"), "picture": ("a", data)}, "field-invalid"),
            ({"prompt": (None, "x"), "seed": (None, "seven"), "image": ("a", data)}, "field-invalid"),
        ]:
            refused = await http.post("/v1/streams", files=form)
            assert (refused.status_code // 100, refused.json()["code"]) == (4, code)
        limits = (await http.get("/v1/model")).json()["limits"]
        assert limits["image_bytes"] == images.MAX_IMAGE_BYTES


def _with_picture(header: dict[str, Any], png: bytes) -> str:
    import hashlib

    picture = {"png": base64.b64encode(png).decode(), "sha256": hashlib.sha256(png).hexdigest()}
    return json.dumps(header | {"image": picture})
