"""T5's attention with its gradient written out: packed projections in, packed gradients back.

On a CPU the products of attention are cheap and everything around them is not: the copies that split a packed
projection into heads, the concatenation of its gradients, a graph node for each. Here a forward pass splits once, a
backward pass merges once, and the dropout mask is drawn by `tesserec.functional.dropout`. PyTorch's fused attention
takes neither a learned bias nor dropout on a CPU, and for a few dozen positions it is slower than the plain products.
"""

from typing import Any

import torch
from torch import Tensor

from tesserec.functional.dropout import keep_mask


def split_heads(packed: Tensor, n_parts: int, n_heads: int) -> Tensor:
    """(B, T, parts * heads * d) -> (parts, B, heads, T, d), contiguous."""
    parts = packed.view(*packed.shape[:2], n_parts, n_heads, -1)
    return parts.permute(2, 0, 3, 1, 4).contiguous()


def merge_heads(parts: Tensor) -> Tensor:
    """(parts, B, heads, T, d) -> (B, T, parts * heads * d): the inverse of `split_heads`."""
    return parts.permute(1, 3, 0, 2, 4).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q k^T + bias) v without dropout, unscaled as in T5.

    Args:
        q: (B, heads, Tq, d). k, v: (B, heads, Tk, d).
        bias: broadcast to (B, heads, Tq, Tk), -inf where attention is forbidden; None: everything is visible.
    """
    return _forward(q, k, v, bias, 0.0)[0]


def self_attention(qkv: Tensor, bias: Tensor, n_heads: int, p: float) -> Tensor:
    """Attention among the T positions of each row, with dropout p of the attention weights.

    Args:
        qkv: (B, T, 3 * heads * d) queries, keys and values, packed in this order.
        bias: (heads, T, T) or (B, heads, T, T).

    Returns:
        (B, T, heads * d).
    """
    if not torch.is_grad_enabled():
        q, k, v = split_heads(qkv, 3, n_heads)
        return merge_heads(attend(q, k, v, bias)[None])
    out: Tensor = _SelfAttention.apply(qkv, bias, n_heads, p)  # type: ignore[no-untyped-call]
    return out


def cross_attention(q: Tensor, kv: Tensor, bias: Tensor | None, p: float) -> Tensor:
    """Attention from P query positions to S others, with dropout p of the attention weights.

    Args:
        q: (B, P, heads * d).
        kv: (2, B, heads, S, d) keys and values, as `split_heads` lays them out.
        bias: broadcast to (B, heads, P, S), without a gradient; None: everything is visible.

    Returns:
        (B, P, heads * d).
    """
    n_heads = kv.shape[2]
    if not torch.is_grad_enabled():
        return merge_heads(attend(split_heads(q, 1, n_heads)[0], kv[0], kv[1], bias)[None])
    out: Tensor = _CrossAttention.apply(q, kv, bias, n_heads, p)  # type: ignore[no-untyped-call]
    return out


def _forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, p: float) -> tuple[Tensor, Tensor, Tensor | None]:
    """The output (B, heads, Tq, d), the attention weights, and their dropout mask."""
    scores = q @ k.transpose(-1, -2)
    if bias is not None:
        scores += bias.to(scores.dtype)
    weights = torch.softmax(scores, dim=-1)
    mask = keep_mask(weights, p) if p > 0 else None
    return (weights if mask is None else weights * mask) @ v, weights, mask


def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Tensor,
    mask: Tensor | None,
    into: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    """Write the gradients of q, k and v into given tensors; return that of the scores."""
    dq, dk, dv = (tensor.flatten(0, 1) for tensor in into)
    dropped = weights if mask is None else weights * mask
    torch.bmm(dropped.flatten(0, 1).transpose(1, 2), grad.flatten(0, 1), out=dv)
    d_weights = grad @ v.transpose(-1, -2)
    if mask is not None:
        d_weights *= mask
    d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
    torch.bmm(d_scores.flatten(0, 1), k.flatten(0, 1), out=dq)
    torch.bmm(d_scores.flatten(0, 1).transpose(1, 2), q.flatten(0, 1), out=dk)
    return d_scores


class _SelfAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor, n_heads: int, p: float) -> Tensor:
        parts = split_heads(qkv, 3, n_heads)
        q, k, v = parts
        out, weights, mask = _forward(q, k, v, bias, p)
        ctx.save_for_backward(parts, weights, mask)
        ctx.batched_bias = bias.ndim == 4
        return merge_heads(out[None])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        parts, weights, mask = ctx.saved_tensors
        grad = split_heads(grads[0], 1, parts.shape[2])[0]
        d_parts = torch.empty_like(parts)
        q, k, v = parts
        d_scores = _backward(grad, q, k, v, weights, mask, (d_parts[0], d_parts[1], d_parts[2]))
        d_bias = d_scores if ctx.batched_bias else d_scores.sum(dim=0, dtype=torch.float32)
        return merge_heads(d_parts), d_bias, None, None


class _CrossAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, kv: Tensor, bias: Tensor | None, n_heads: int, p: float) -> Tensor:
        q = split_heads(q, 1, n_heads)
        out, weights, mask = _forward(q[0], kv[0], kv[1], bias, p)
        ctx.save_for_backward(q, kv, weights, mask)
        return merge_heads(out[None])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        q, kv, weights, mask = ctx.saved_tensors
        grad = split_heads(grads[0], 1, kv.shape[2])[0]
        dq, d_kv = torch.empty_like(q), torch.empty_like(kv)
        _backward(grad, q[0], kv[0], kv[1], weights, mask, (dq[0], d_kv[0], d_kv[1]))
        return merge_heads(dq), d_kv, None, None, None
