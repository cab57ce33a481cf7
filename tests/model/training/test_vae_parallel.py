"""The whole-clip VAE pass equals diffusers' chunked one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model.training.vae_parallel import VaeParallel


@pytest.mark.parametrize("residual", [True, False])
def test_equals_diffusers(residual: bool) -> None:
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    vae: Any = AutoencoderKLWan(
        base_dim=8, decoder_base_dim=8, z_dim=4, dim_mult=[1, 2, 2], num_res_blocks=1, patch_size=2, in_channels=12,
        out_channels=12, temperal_downsample=[True, True], is_residual=residual,
    )  # fmt: skip
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    vae.eval().requires_grad_(False)
    pictures = torch.rand(2, 3, 13, 32, 48) * 2 - 1
    parallel = VaeParallel(vae)
    moments = parallel.encode(pictures)
    expected = vae.encode(pictures).latent_dist.parameters
    assert (moments - expected).abs().max() < 1e-4 * expected.std()
    latents = torch.randn(2, 4, 4, 4, 6)
    vae.decoder.conv_out.weight.mul_(0.02)
    decoded = parallel.decode(latents).clamp(-1, 1)
    assert (decoded - vae.decode(latents).sample).abs().max() < 1e-4
    assert 0.05 < decoded.std() < 0.8  # not saturated, or the comparison would mean nothing
