"""Root-mean-square normalisation with its gradient written out.

On a CPU `torch.nn.functional.rms_norm` is six operations, each with a node in the graph and a tensor of its own: 5 % of
a decoding and more of a training step. Here the forward pass reads `x` twice and the backward pass keeps one factor
per row.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension; x (..., D), weight (D,).

    In the type of `x`, which in training is float32 whatever the precision of products. It can be differentiated once.

    Source: Zhang & Sennrich 2019 (arXiv 1910.07467), equation 4.
    """
    if x.device.type != "cpu":
        return F.rms_norm(x, weight.shape, weight, eps)
    if not torch.is_grad_enabled():
        return (x * _scale(x, eps)).to(x.dtype).mul_(weight)
    normed: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return normed


def _scale(x: Tensor, eps: float) -> Tensor:
    """(..., D) -> (..., 1), in float32 or better: 1 / sqrt(mean(x^2) + eps)."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype)
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = _scale(x, eps)
        ctx.save_for_backward(x, scale, weight)
        return (x * scale).to(x.dtype).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, scale, weight = ctx.saved_tensors
        unit = x * scale  # u = x / rms(x)
        weighted = grad * weight
        along = (weighted * unit).mean(dim=-1, keepdim=True)
        d_weight = torch.linalg.vecdot(grad.flatten(0, -2), unit.flatten(0, -2), dim=0)
        return (weighted - unit.mul_(along)).mul_(scale), d_weight, None  # (g w - u mean(g w u)) / rms(x)
