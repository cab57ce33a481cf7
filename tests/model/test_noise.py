"""Philox against Random123's known answers, and the normals made of it."""

from __future__ import annotations

import pytest
import torch

from model.noise import philox4x32, philox_normal

# philox4x32-10 lines of kat_vectors in Random123 1.14: counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    words = [torch.tensor([word]) for word in counter]
    result = philox4x32((words[0], words[1], words[2], words[3]), key)
    assert tuple(int(word) for word in result) == expected


def test_normals_are_normal() -> None:
    x = philox_normal(1, 2, 3, (16, 200, 200))
    assert x.dtype == torch.float32
    assert x.isfinite().all()
    assert abs(float(x.mean())) < 5e-3
    assert abs(float(x.std()) - 1) < 5e-3
    assert abs(float((x**4).mean()) - 3) < 0.05
    inside = [float((x.abs() < k).float().mean()) for k in (1, 2, 3)]
    assert inside == pytest.approx([0.6827, 0.9545, 0.9973], abs=2e-3)
    flat = x.flatten()
    for lag in (1, 2, 4, 200):
        assert abs(float((flat[:-lag] * flat[lag:]).mean())) < 5e-3


def test_every_part_of_the_key_counts() -> None:
    shape = (4, 6, 5)
    seeds = [0, 1, 2**32, 2**63]
    frames = [0, 1, 2**32, 2**40]
    made = [philox_normal(s, f, p, shape) for s in seeds for f in frames for p in (0, 1)]
    for i, a in enumerate(made):
        for b in made[:i]:
            assert float((a - b).abs().mean()) > 0.5


def test_the_same_key_gives_the_same_bits() -> None:
    first = philox_normal(2**64 - 1, 10**6, 3, (3, 7, 5))
    torch.randn(4)
    assert torch.equal(first, philox_normal(2**64 - 1, 10**6, 3, (3, 7, 5)))
    assert torch.equal(first, philox_normal(-1, 10**6, 3, (3, 7, 5)))
