"""A gate on the way back: what flows through it forward is unchanged, and its gradient is weighted.

It stands where positions, colors and texels leave their parameters. So the pull of a loss can be held to a part of the
surface, in front of the smoothing of displacements and of every optimizer's momentum.
"""

from __future__ import annotations

import torch
from torch import Tensor


class GradientGate:
    """`weights` are broadcast against gradients; they count in backward passes, of what went through while some were set."""

    def __init__(self) -> None:
        self.weights: Tensor | None = None

    def __call__(self, values: Tensor) -> Tensor:
        """`values`, bit for bit."""
        return values if self.weights is None else _Weighted.apply(values, self)


class _Weighted(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, gate: GradientGate) -> Tensor:
        ctx.gate = gate
        return values.view_as(values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        weights = ctx.gate.weights
        return gradient if weights is None else gradient * weights, None
