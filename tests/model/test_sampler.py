"""Sigmas and steps against hand-computed values of LongSANA's schedule."""

from __future__ import annotations

import pytest
import torch

from model.sampler import (
    Commit,
    Denoise,
    adams_bashforth,
    block_steps,
    clean_estimate,
    euler,
    renoise,
    sigma_of,
    sigma_table,
)


@pytest.mark.parametrize(
    ("timestep", "sigma"), [(1000, 1.0), (960, 0.9599574), (889, 0.8891532), (727, 0.7274097), (0, 0.00696)]
)
def test_sigmas_of_longsana(timestep: float, sigma: float) -> None:
    assert sigma_of(timestep, 7.0) == pytest.approx(sigma, abs=5e-6)


def test_the_table_falls_from_one() -> None:
    table = sigma_table(3.0)
    assert table.shape == (1000,)
    assert table.dtype == torch.float32
    assert table[0] == 1
    assert (table.diff() < 0).all()
    assert sigma_of(750, 3.0) == pytest.approx(0.75, abs=1e-3)


def test_without_shift_the_table_is_even() -> None:
    assert torch.allclose(sigma_table(1.0), 1 - torch.arange(1000) / 1000)


def test_the_steps_of_a_block() -> None:
    steps = block_steps((1000, 500), 1.0, commit=True)
    assert steps == [Commit(), Denoise(0, 1000.0, 1.0, 0.5), Denoise(1, 500.0, 0.5, 0.0)]
    assert block_steps((1000, 500), 1.0, commit=False) == steps[1:]


def test_one_pass_with_the_true_flow_finds_the_clean_latents() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 1, 4, 2, 3, 3, generator=generator)
    noisy, flow = renoise(clean, noise, 0.7), noise - clean
    assert torch.allclose(clean_estimate(noisy, flow, 0.7), clean, atol=1e-6)
    assert torch.allclose(euler(noisy, flow, 0.7, 0.0), clean, atol=1e-6)
    assert torch.allclose(euler(noisy, flow, 0.7, 0.2), renoise(clean, noise, 0.2), atol=1e-6)


def test_adams_bashforth_is_exact_where_the_flow_changes_evenly() -> None:
    """dx/dsigma = a + b sigma, so x = a sigma + b sigma^2 / 2 + c."""
    a, b, c = torch.randn(3, 1, 4, 2, 3, 3, generator=torch.Generator().manual_seed(0))

    def x(sigma: float) -> torch.Tensor:
        return a * sigma + b * sigma**2 / 2 + c

    found = adams_bashforth(x(0.7), a + b * 0.7, a + b * 0.9, 0.9, 0.7, 0.1)
    assert torch.allclose(found, x(0.1), atol=1e-6)
    assert not torch.allclose(euler(x(0.7), a + b * 0.7, 0.7, 0.1), x(0.1), atol=1e-2)
