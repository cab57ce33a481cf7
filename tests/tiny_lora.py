"""Adapters for the tiny checkpoint, with random factors."""

from __future__ import annotations

from pathlib import Path

LAYERS = {"attn1.to_q": (48, 48), "attn2.to_k": (48, 48), "attn2.to_out.0": (48, 48), "ff.conv_point": (120, 48)}
"""Of every block: inputs and outputs."""


def save_tiny_lora(folder: Path, seed: int = 1, rank: int = 2) -> Path:
    """Save an adapter in diffusers' form under `folder`, strong enough to be seen. The same seed, the same bytes."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for block in (0, 1):
        for layer, (inputs, outputs) in LAYERS.items():
            name = f"transformer.transformer_blocks.{block}.{layer}"
            factors[f"{name}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) / inputs**0.5
            factors[f"{name}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(factors, folder / "pytorch_lora_weights.safetensors")
    return folder
