"""BSARec: self-attention beside a filter that keeps the slow changes of a history and rescales the fast ones.

A history is a signal over 50 slots. Each layer averages two views of it: causal self-attention, which smooths, and the
signal itself with its high frequencies multiplied by a learned number per channel, which attention would lose.

    F(X)    = low + beta^2 (X - low),   low = X with all but its lowest frequencies removed, along the slots
    layer   = norm(Z + feed_forward(Z)),   Z = alpha norm(X + F(X)) + (1 - alpha) norm(X + attention(X))

Paper: Shin et al. 2024, An Attentive Inductive Bias for Sequential Recommendation beyond the Self-Attention (AAAI 2024,
arXiv 2312.10325).

**The filter is not causal, and padding is part of the model.** Low frequencies of a slot are weighted sums over all 50
slots, later ones and empty ones included: what a slot holds changes with every further item. So, unlike SASRec,

- a history lies right-aligned in a table of `max_length` slots, and another length is another model;
- every target needs a row of its own, which ends before it: one pass over a user's sequence would show each state the
  items it is to predict. Only the last slot of a row is read, so the last layer computes nothing but that slot;
- nothing can be kept from one item of a user to the next.

Differences from the paper (its public code where the paper is silent), each with its reason:

- Empty slots hold their position embedding alone, as in the public code, but look at nothing but themselves: there they
  look at all slots, later items included, because the mask of a slot without any visible one cancels.
- No target has an empty history (the public code asks for each user's first item, too), and empty slots are no class of
  the loss: neither can be recommended.
- Items of the history are ranked, or left out (`exclude_seen`), never scored 0: cross-entropy knows no such zero.
- Dropout is not on attention weights, so that fused attention kernels apply.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split
from tesserec.errors import ConfigError
from tesserec.functional.dropout import Dropout
from tesserec.networks.transformer import attend, small_weights
from tesserec.recommenders.base import blocks
from tesserec.recommenders.item_table import ItemTable, ItemTableRecommender, ItemTableSettings, NextItem
from tesserec.training.config import TrainingConfig
from tesserec.training.loop import Step
from tesserec.types import FloatArray, IntArray

EMPTY = -1  # an item row: nothing is in this slot
SLOTS_AT_A_TIME = 51200  # when scoring


@dataclass(frozen=True, kw_only=True)
class BSARecConfig(ItemTableSettings):
    """The network and its loss."""

    norm: Literal["post"] = "post"  # the only order there is
    alpha: float = 0.7  # share of the filter in a layer; the rest is attention
    cutoff: int = 5  # frequencies kept as low ones, both signs counted: the mean and (cutoff - 1) / 2 waves

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha is {self.alpha}. Use a share of the filter, from 0 to 1.")
        if self.cutoff % 2 == 0 or not 1 <= self.cutoff <= self.max_length:
            raise ConfigError(
                f"cutoff is {self.cutoff} for max_length = {self.max_length}. Use an odd number up to that length: the "
                "mean and one frequency or more, each with its negative."
            )


# -- network -----------------------------------------------------------------------------------------------------------


def low_pass(n_slots: int, cutoff: int) -> Tensor:
    """(T, T) float64 matrix that removes all but the lowest `cutoff` frequencies of a signal over T slots.

    Frequencies are counted with their negatives, so that `cutoff` (odd) is also the rank of the matrix. It is circular:
    the first slot and the last are neighbours.
    """
    spectrum = torch.fft.rfft(torch.eye(n_slots, dtype=torch.float64), dim=0, norm="ortho")
    spectrum[cutoff // 2 + 1 :] = 0
    filtered: Tensor = torch.fft.irfft(spectrum, n=n_slots, dim=0, norm="ortho")
    return filtered


class SlotAttention(nn.Module):
    """Self-attention over tables of slots."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, asking: Tensor, x: Tensor, visible: Tensor) -> Tensor:
        """(B, S, D) what slots (B, S, D) find among all slots x (B, T, D); visible: (B, 1, S, T) bool."""
        parts = (self.q(asking), *self.kv(x).chunk(2, dim=-1))
        q, k, v = (
            part.view(*part.shape[:2], self.n_heads, -1).transpose(1, 2) for part in parts
        )  # (B, H, S or T, D / H)
        return self.out(attend(q, k, v, causal=False, filled=visible).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class BSALayer(nn.Module):
    """Filter and attention side by side, then a feed-forward layer."""

    low_pass: Tensor

    def __init__(self, config: BSARecConfig) -> None:
        super().__init__()
        width, ff_width = config.width, config.ff_width or 4 * config.width
        self.alpha = config.alpha
        self.register_buffer("low_pass", low_pass(config.max_length, config.cutoff).float(), persistent=False)
        self.beta = nn.Parameter(torch.randn(width))  # its square scales the high frequencies of each channel
        self.attention = SlotAttention(width, config.n_heads)
        self.feed_forward = nn.Sequential(nn.Linear(width, ff_width), nn.GELU(), nn.Linear(ff_width, width))
        self.filter_norm, self.attention_norm, self.feed_forward_norm = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, visible: Tensor, slots: slice) -> Tensor:
        """(B, T, D) -> (B, S, D), of some of the slots; visible: (B, 1, T, T) bool."""
        here = x[:, slots]
        low = self.low_pass[slots] @ x
        filtered = low + self.beta.square() * (here - low)
        seen = self.attention(here, x, visible[:, :, slots])
        by_filter = self.filter_norm(here + self.dropout(filtered))
        by_attention = self.attention_norm(here + self.dropout(seen))
        mixed = self.alpha * by_filter + (1 - self.alpha) * by_attention
        return self.feed_forward_norm(mixed + self.dropout(self.feed_forward(mixed)))  # type: ignore[no-any-return]


class BSARecNetwork(ItemTable):
    """Right-aligned histories -> the state of their last slot, to be multiplied with the item vectors."""

    def __init__(self, n_items: int, config: BSARecConfig) -> None:
        super().__init__(n_items, config.width)
        self.positions = nn.Parameter(torch.zeros(config.max_length, config.width))
        self.input_norm, self.dropout = nn.LayerNorm(config.width), Dropout(config.dropout)
        self.layers = nn.ModuleList(BSALayer(config) for _ in range(config.n_layers))
        small_weights(self)

    def forward(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, D) of the last slots of a table (B, T) of item rows or EMPTY, and item vectors (N, D)."""
        return self.states(table, slice(-1, None))[:, 0], self.vectors

    def states(self, table: Tensor, slots: slice) -> Tensor:
        """(B, S, D) of some of the slots after the last layer."""
        filled = table != EMPTY
        x = self.items(table.clamp(min=0)) * filled[:, :, None]
        x = self.dropout(self.input_norm(x + self.positions))
        visible = visible_slots(filled)
        for layer in self.layers[:-1]:
            x = layer(x, visible, slice(None))
        return self.layers[-1](x, visible, slots)  # type: ignore[no-any-return]


def visible_slots(filled: Tensor) -> Tensor:
    """(B, 1, T, T) whether a slot looks at another: at itself, and at items (filled: (B, T) bool) before it."""
    n_slots = filled.shape[1]
    itself = torch.eye(n_slots, dtype=torch.bool, device=filled.device)
    earlier = torch.ones_like(itself).tril()
    return ((earlier & filled[:, None, :]) | itself)[:, None]


# -- training ----------------------------------------------------------------------------------------------------------


class Rows(NamedTuple):
    """Histories, and the item that follows each."""

    table: Tensor  # (B, T) item rows, right-aligned, EMPTY on the left
    targets: Tensor  # (B,)


class PrefixRows(NextItem):
    """Objective: every item but a sequence's first is predicted from a row of those before it; a batch is of rows."""

    def __init__(self, sequences: Sequences, config: BSARecConfig, training: TrainingConfig) -> None:
        super().__init__(prefixes(sequences, config.max_length), config, training)
        self.events = torch.from_numpy(sequences.flat()[0].astype(np.int64))  # not those of the prefixes
        self.length = config.max_length

    def step(self, rows: IntArray) -> Step:
        cut = self.sequences.take(rows)
        table = Sequences(cut.values, cut.starts, cut.stops - 1).padded(self.length, pad=EMPTY)
        targets = cut.values[cut.stops - 1].astype(np.int64)
        n_rows = max(1, self.training.tokens_per_part // self.length)
        parts = zip(torch.split(torch.from_numpy(table), n_rows), torch.split(torch.from_numpy(targets), n_rows))
        return Step([Rows(*part) for part in parts], len(rows))

    def loss(self, model: nn.Module, part: Any, device: torch.device) -> Tensor:
        states, vectors = model(part.table.to(device))
        return self.of(states, vectors, part.targets.to(device))


def prefixes(sequences: Sequences, max_length: int) -> Sequences:
    """Every item but the first of each sequence, at the end of a sequence of up to `max_length` items before it."""
    rows, index = sequences.positions()
    later = index > sequences.starts[rows]
    rows, index = rows[later], index[later]
    return Sequences(sequences.values, np.maximum(sequences.starts[rows], index - max_length), index + 1)


# -- recommender -------------------------------------------------------------------------------------------------------


class BSARec(ItemTableRecommender):
    """Next items by self-attention and a frequency filter."""

    method = "bsarec"
    config_class = BSARecConfig
    network: BSARecNetwork | None

    def _make_network(self, n_items: int) -> BSARecNetwork:
        return BSARecNetwork(n_items, self.config)

    def _objective(self, split: Split) -> PrefixRows:
        return PrefixRows(split.train, self.config, self.training)

    @torch.inference_mode()
    def score(self, histories: Sequences) -> FloatArray:
        network = self._fitted_network
        vectors, length = network.vectors, self.config.max_length
        states = torch.zeros(len(histories), self.config.width, device=vectors.device)  # of empty ones: all items tie
        filled = np.flatnonzero(histories.lengths)
        for block in blocks(len(filled), max(1, SLOTS_AT_A_TIME // length)):
            table = torch.from_numpy(histories.take(filled[block]).padded(length, pad=EMPTY)).to(vectors.device)
            states[torch.from_numpy(filled[block]).to(vectors.device)] = network(table)[0]
        scores: FloatArray = (states @ vectors.T).cpu().numpy()
        return scores
