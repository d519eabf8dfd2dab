"""Causal self-attention over sequences that lie in one row, without padding: only attention sees them as a table.

A block is pre-norm: x += attention(norm(x)); x += feed_forward(norm(x)), with dropout on what each layer adds.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesserec.data.sequences import Sequences
from tesserec.functional.dropout import Dropout

ROUND = 64  # tokens: a CPU's bfloat16 kernels are compiled for every new size, half a millisecond each


class Packed(NamedTuple):
    """B sequences of n items in all, one after the other, and where they lie in a (B, T) table.

    Fillers at the end make the number of tokens P a multiple of ROUND; what comes out for them is not used.
    """

    items: Tensor  # (P,) int64 item rows; 0 for fillers
    slots: Tensor  # (P,) int64, b * T + t; B * T for fillers
    shape: tuple[int, int]  # B, T = the longest length

    def to(self, device: torch.device) -> "Packed":
        return Packed(self.items.to(device), self.slots.to(device), self.shape)


def pack(sequences: Sequences) -> Packed:
    """Sequences, all their items, as one row."""
    rows, index = sequences.positions()
    shape = (len(sequences), int(sequences.lengths.max(initial=1)))
    n_fillers = -len(rows) % ROUND
    items = np.pad(sequences.values[index].astype(np.int64), (0, n_fillers))
    slots = rows * shape[1] + index - sequences.starts[rows]
    slots = np.pad(slots, (0, n_fillers), constant_values=shape[0] * shape[1])
    return Packed(torch.from_numpy(items), torch.from_numpy(slots), shape)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, H, T, D) -> (B, H, T, D). In float32 on a CPU: its bfloat16 kernel takes two to twenty times as long."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)


class CausalAttention(nn.Module):
    """Each token looks at itself and at the earlier ones of its sequence."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, slots: Tensor, shape: tuple[int, int]) -> Tensor:
        """(P, D) -> (P, D)."""
        (n_rows, length), width = shape, x.shape[1]
        n_places = n_rows * length
        qkv = self.qkv(x)  # (P, 3D)
        table = qkv.new_zeros(n_places + 1, 3 * width).index_copy(0, slots, qkv)  # empty places come last in a row
        q, k, v = (
            table[:n_places].view(n_rows, length, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        )  # 3 x (B, H, T, D / H)
        seen = causal_attention(q, k, v)
        return self.out(seen.transpose(1, 2).reshape(-1, width).index_select(0, slots.clamp(max=n_places - 1)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """x += attention(norm(x)); x += feed_forward(norm(x))."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CausalAttention(width, n_heads)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, slots: Tensor, shape: tuple[int, int]) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), slots, shape))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))  # type: ignore[no-any-return]
