"""Muon for matrices, AdamW for the rest, one learning-rate curve and an average of the weights.

Muon (Jordan et al., 2024): momentum, then the nearest orthogonal matrix by Newton-Schulz iterations.
Convolution kernels count as matrices (output channels, everything else). In our trials it reaches a given
loss in about a third of AdamW's steps, which is what makes a starter of half an hour possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(stack: Tensor, iterations: int = 5) -> Tensor:
    """Return the nearly orthogonal factor of each matrix.

    Args:
        stack: `(count, rows, columns)` matrices.
        iterations: Newton-Schulz iterations; 5 bring all singular values near 1.
    """
    a, b, c = NEWTON_SCHULZ
    x = stack.bfloat16() if stack.is_cuda else stack.float()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(stack.dtype)


class Muon(torch.optim.Optimizer):
    """Muon over parameters of two or more dimensions; equal shapes are orthogonalised as one batch."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure is evaluated
        """Apply one step from the gradients present."""
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows = parameter.shape[0]
                    shapes.setdefault((rows, parameter.numel() // rows), []).append(parameter)
            for (rows, columns), parameters in shapes.items():
                self._step_shape(parameters, rows, columns, group["lr"], group["momentum"])

    def _step_shape(
        self, parameters: Sequence[nn.Parameter], rows: int, columns: int, lr: float, momentum: float
    ) -> None:
        gradients, velocities = [], []
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
            velocities.append(state["momentum"])
        torch._foreach_lerp_(velocities, gradients, 1 - momentum)
        updates = torch._foreach_lerp(gradients, velocities, momentum)
        stack = orthogonalise(torch.stack([update.reshape(rows, columns) for update in updates])).contiguous()
        turned = [update.view(parameter.shape) for update, parameter in zip(stack, parameters, strict=True)]
        torch._foreach_add_(list(parameters), turned, alpha=-lr * 0.2 * max(rows, columns) ** 0.5)


class Optimisers:
    """Muon for `matrices`, AdamW for `rest`, both following one factor of their base rates."""

    def __init__(
        self,
        matrices: Sequence[nn.Parameter],
        rest: Sequence[nn.Parameter],
        *,
        muon_lr: float,
        adam_lr: float,
        clip: float = 1.0,
    ) -> None:
        fused = bool(rest) and rest[0].is_cuda
        self.muon = Muon(matrices, lr=muon_lr)
        self.adam = torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=fused)
        self._base = (muon_lr, adam_lr)
        self.parameters = [*matrices, *rest]
        self._clip = clip

    def step(self, factor: float) -> Tensor:
        """Clip, step both at `factor` times their base rates, clear the gradients; return the norm."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self._clip)
        for optimiser, base in ((self.muon, self._base[0]), (self.adam, self._base[1])):
            for group in optimiser.param_groups:
                group["lr"] = base * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Return both optimisers' states."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


class Average:
    """An exponential moving average of named tensors, short at first so that it never lags the start."""

    def __init__(self, named: dict[str, Tensor], decay: float) -> None:
        self.tensors = {name: tensor.detach().clone() for name, tensor in named.items()}
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, named: dict[str, Tensor]) -> None:
        """Move the average towards the current tensors."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        torch._foreach_lerp_(list(self.tensors.values()), [named[name].detach() for name in self.tensors], 1 - decay)


def warm_flat_linear(step: int, progress: float, *, warm_steps: int, flat_until: float, end: float) -> float:
    """Return the factor of the base rate: linear warm-up, flat, then linear to `end`.

    Args:
        step: optimiser steps done in this stage.
        progress: share of the stage's time that is spent, 0 to 1.
        warm_steps: steps of warm-up.
        flat_until: progress at which the decay begins.
        end: factor at progress 1.
    """
    warm = min(1.0, (step + 1) / warm_steps)
    if progress <= flat_until:
        return warm
    share = min(1.0, (progress - flat_until) / max(1e-9, 1 - flat_until))
    return warm * (1 + (end - 1) * share)
