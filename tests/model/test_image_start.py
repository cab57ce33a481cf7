"""Streams that start from a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from reference import make_nets, make_noise, make_text
from torch import Tensor

from model import VideoStream
from model.checkpoint import Checkpoint, load_checkpoint
from model.image_start import picture_tensor
from model.snapshot import pack, unpack
from model.stream import LatentStream, advance

H, W = 8, 8


@pytest.fixture(scope="module")
def checkpoint(tiny_model: Path) -> Checkpoint:
    return load_checkpoint(tiny_model, dtype=torch.float32)


def make_stream(net: Any, text: tuple[Tensor, Tensor], **options: Any) -> LatentStream:
    given = {"noise": make_noise(5, 4, H, W), "block": 2, "first_block": 1, **options}
    return LatentStream(net, text=text[0], text_mask=text[1], height=H, width=W, **given)


def test_goes_on_from_its_latent_as_from_a_denoised_block() -> None:
    _, net = make_nets(authors=True)
    text, night = make_text(1), make_text(2)
    denoised = make_stream(net, text)
    first = next(denoised)
    given = make_stream(net, text, image=first, first_block=7)
    assert (given.next_block, given.passes_ahead) == (1, 0)
    (block,) = advance([given])
    assert block is not None
    assert torch.equal(block, first)
    assert (given.next_frame, given.block_index, given.at_boundary) == (1, 1, True)
    for stream in (denoised, given):
        stream.steer(*night)
    for _ in range(3):
        assert torch.equal(next(denoised), next(given))


def test_shares_a_batch_and_has_a_snapshot_before_its_first_block() -> None:
    _, net = make_nets(authors=True)
    text = make_text(1)
    image = torch.randn(1, 4, 1, H, W, generator=torch.Generator().manual_seed(3))
    alone = make_stream(net, text, image=image)
    expected = [next(alone) for _ in range(3)]
    other = make_stream(net, text)
    one = make_stream(net, text, image=image, guidance_scale=1.0)
    two = make_stream(net, text, image=torch.zeros_like(image))
    two.restore(unpack(pack(one.snapshot())))
    first, nothing = advance([two, other])
    assert first is not None
    assert nothing is None
    assert torch.equal(first, image)
    assert all(torch.equal(a, b) for a, b in zip([first, next(two), next(two)], expected, strict=True))
    assert "image" not in two.snapshot()


def test_guidance_goes_on_from_the_picture_too() -> None:
    _, net = make_nets(authors=True)
    text, negative = make_text(1), make_text(2)
    options = {"guidance_scale": 2.0, "negative_text": negative[0], "negative_mask": negative[1]}
    first = next(denoised := make_stream(net, text, **options))
    given = make_stream(net, text, image=first, **options)
    assert torch.equal(next(given), first)
    assert torch.equal(next(denoised), next(given))


@pytest.mark.parametrize("shape", [(1, 4, 2, H, W), (1, 3, 1, H, W), (4, 1, H, W)])
def test_a_latent_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    _, net = make_nets(authors=True)
    with pytest.raises(ValueError, match="image must be a latent"):
        make_stream(net, make_text(1), image=torch.zeros(shape))


def test_the_first_picture_is_the_vaes_own_of_it(checkpoint: Checkpoint) -> None:
    picture = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    stream = VideoStream(checkpoint, prompt="the sea", seed=3, image=picture)
    latent = checkpoint.vae.encode(picture[None])
    expected = checkpoint.vae.decode(latent, checkpoint.vae.new_state())
    pictures = [next(stream) for _ in range(5)]
    assert torch.equal(pictures[0], expected)
    assert [len(p) for p in pictures] == [1, 4, 4, 4, 4]
    other = VideoStream(checkpoint, prompt="the sea", seed=3, image=255 - picture)
    assert not torch.equal([next(other) for _ in range(5)][4], pictures[4])
    with pytest.raises(ValueError, match="image: must be uint8"):
        VideoStream(checkpoint, prompt="the sea", image=picture[:32])


def test_pil_pictures_are_turned_flattened_cut_and_resized() -> None:
    tall = Image.new("RGBA", (40, 120), (0, 0, 0, 0))
    tall.paste((200, 100, 50, 255), (10, 50, 30, 70))
    fitted = picture_tensor(tall, 32, 64)
    assert tuple(fitted.shape) == (1, 32, 64, 3)
    assert fitted[0, 16, 32].tolist() == [200, 100, 50]
    assert fitted[0, 0, 0].tolist() == [255, 255, 255]
    turned = Image.new("RGB", (8, 4), (255, 0, 0))
    turned.paste((0, 0, 255), (0, 0, 4, 4))
    turned.getexif()[0x0112] = 3  # upside down
    assert picture_tensor(turned, 4, 8)[0, 0, 0].tolist() == [255, 0, 0]
