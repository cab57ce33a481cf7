"""The fused FFN middle equals the plain one, values and gradients; Triton's interpreter runs the kernels."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

triton = pytest.importorskip("triton")

CHECK = """
import torch
from model.training import depthwise

torch.manual_seed(0)
for rows, height, width, half, dtype, worst in (
    (5, 3, 4, 24, torch.float32, 1e-4), (3, 4, 2, 40, torch.float32, 1e-4), (6, 1, 3, 8, torch.bfloat16, 2e-2),
):
    hidden = torch.randn(rows, height, width, 2 * half).to(dtype)
    rest = [torch.randn(shape) for shape in ((2 * half,), (2 * half, 1, 3, 3), (2 * half,))]
    gradient = torch.randn(rows, height, width, half).to(dtype)
    found = []
    for form in (depthwise.silu_depthwise_glu, depthwise.plain):
        args = [t.clone().requires_grad_() for t in (hidden, *rest)]
        out = form(*args)
        out.backward(gradient)
        found.append([out.detach(), *(t.grad for t in args)])
    for fused, plain in zip(*found, strict=True):
        assert fused.shape == plain.shape and fused.dtype == plain.dtype
        error = float((fused.float() - plain.float()).norm() / plain.float().norm())
        assert error < worst, (rows, height, width, error)
"""


@pytest.mark.skipif(triton.__version__ >= "3.9", reason="Triton 3.9's interpreter fails on masks in nested loops")
@pytest.mark.skipif(torch.cuda.is_available(), reason="benchmarks/train_step.py compares them on the GPU")
def test_fused_equals_plain() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
