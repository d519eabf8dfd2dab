"""Self-attention over sequences that lie in one row, without padding: only attention sees them as a table.

A block adds to its input what attention and a feed-forward layer make of it, normalised before ("pre", the default) or
normalises the sums ("post", as BERT does):

    x += attention(norm(x)); x += feed_forward(norm(x))          or          x = norm(x + attention(x)); ...

Dropout is on what each layer adds, not on attention weights, so that fused attention kernels apply.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesserec.data.sequences import Sequences
from tesserec.errors import ConfigError
from tesserec.functional.dropout import Dropout

ROUND = 64  # tokens: a CPU's bfloat16 kernels are compiled for every new size, half a millisecond each


@dataclass(frozen=True, kw_only=True)
class SequenceSettings:
    """The transformer over a history; a method's configuration adds its own fields, the width among them."""

    n_layers: int = 2
    n_heads: int = 2
    ff_width: int | None = None  # of the feed-forward layers; None: 4 times the width
    norm: Literal["pre", "post"] = "pre"  # where blocks normalise: their inputs, or what they add up
    dropout: float = 0.5
    max_length: int = 50  # latest items of a history that are looked at

    def __post_init__(self) -> None:
        for name in ("n_layers", "n_heads", "max_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use 1 or more.")
        if self.ff_width is not None and self.ff_width < 1:
            raise ConfigError(f"ff_width is {self.ff_width}. Use 1 or more, or none.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}. Use 0 or more, and less than 1.")

    def check_heads(self, width: int) -> None:
        """Raise a ConfigError unless the heads can share the width."""
        if width < 1 or width % self.n_heads:
            raise ConfigError(f"width {width} cannot be shared by {self.n_heads} heads. Use a multiple.")


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


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, filled: Tensor | None = None) -> Tensor:
    """q (B, H, S, D), k and v (B, H, T, D) -> (B, H, S, D).

    In float32 on a CPU: its bfloat16 kernel takes two to twenty times as long.

    Args:
        filled: (B, 1, S, T) bool, the places that each can look at, or (B, 1, 1, T), that all can; None: all.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=filled, is_causal=causal)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=filled, is_causal=causal)


class SelfAttention(nn.Module):
    """Each token looks at itself and the earlier ones of its sequence, or without `causal` at all of its sequence."""

    def __init__(self, width: int, n_heads: int, *, causal: bool = True) -> None:
        super().__init__()
        self.n_heads, self.causal = n_heads, causal
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
        filled = None
        if not self.causal:
            filled = torch.zeros(n_places + 1, dtype=torch.bool, device=x.device).index_fill(0, slots, True)
            filled = filled[:n_places].view(n_rows, 1, 1, length)
        seen = attend(q, k, v, causal=self.causal, filled=filled)
        return self.out(seen.transpose(1, 2).reshape(-1, width).index_select(0, slots.clamp(max=n_places - 1)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and a feed-forward layer, each added to what comes in."""

    def __init__(self, width: int, settings: SequenceSettings, *, causal: bool = True) -> None:
        super().__init__()
        ff_width = settings.ff_width or 4 * width
        self.norm = settings.norm
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, settings.n_heads, causal=causal)
        self.feed_forward = nn.Sequential(nn.Linear(width, ff_width), nn.GELU(), nn.Linear(ff_width, width))
        self.dropout = Dropout(settings.dropout)

    def forward(self, x: Tensor, slots: Tensor, shape: tuple[int, int]) -> Tensor:
        """(P, D) -> (P, D)."""
        if self.norm == "post":
            x = self.attention_norm(x + self.dropout(self.attention(x, slots, shape)))
            return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))  # type: ignore[no-any-return]
        x = x + self.dropout(self.attention(self.attention_norm(x), slots, shape))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))  # type: ignore[no-any-return]


class SequenceEncoder(nn.Module):
    """Vectors of the items of histories -> a state after each item; positions count from the start of a history."""

    def __init__(self, width: int, settings: SequenceSettings, *, causal: bool = True, input_norm: bool = True) -> None:
        super().__init__()
        self.width, self.max_length = width, settings.max_length
        self.positions = nn.Embedding(settings.max_length, width)
        self.input_norm = nn.LayerNorm(width) if input_norm else nn.Identity()
        self.dropout = Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(width, settings, causal=causal) for _ in range(settings.n_layers))
        self.output_norm = nn.LayerNorm(width) if settings.norm == "pre" else nn.Identity()

    def forward(self, packed: Packed, vectors: Tensor) -> Tensor:
        """(P, D) states, from the vectors (P, D) of the tokens."""
        x = self.dropout(self.input_norm(vectors + self.positions(packed.slots % packed.shape[1])))
        for block in self.blocks:
            x = block(x, packed.slots, packed.shape)
        return self.output_norm(x)  # type: ignore[no-any-return]


def small_weights(*modules: nn.Module) -> None:
    """Draw all matrices and tables of these modules from N(0, 0.02), as BERT and the SASRec of most libraries do."""
    for module in modules:
        for parameter in module.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
