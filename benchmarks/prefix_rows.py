"""The reference libraries' layout: every prefix of a sequence a row of its own, padded to one length."""

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesserec.data.sequences import Sequences
from tesserec.training.devices import autocast


def padded_prefixes(train: Sequences, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every prefix as a row of `length` places, item rows from 1, padded with 0 on the right; lengths; next items."""
    users, index = train.positions()
    later = index > train.starts[users]
    users, at = users[later], index[later]
    starts = np.maximum(train.starts[users], at - length)
    lengths = at - starts
    places = np.arange(length)
    real = places < lengths[:, None]
    rows = np.where(real, train.values[np.where(real, starts[:, None] + places, 0)] + 1, 0)
    return (
        torch.from_numpy(rows.astype(np.int64)),
        torch.from_numpy(lengths),
        torch.from_numpy(train.values[at] + 1).long(),
    )


class PostNormBlock(nn.Module):
    """x = norm(x + attention(x)); x = norm(x + feed_forward(x)), with dropout of the attention weights."""

    def __init__(self, width: int, ff_width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, ff_width), nn.Linear(ff_width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-12) for _ in range(2))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        def heads(y: Tensor) -> Tensor:
            return y.view(*y.shape[:2], self.n_heads, -1).transpose(1, 2)

        scores = heads(self.q(x)) @ heads(self.k(x)).transpose(-1, -2) / (x.shape[2] // self.n_heads) ** 0.5 + mask
        seen = self.dropout(scores.softmax(dim=-1)) @ heads(self.v(x))
        x = self.norms[0](x + self.dropout(self.out(seen.transpose(1, 2).flatten(2))))
        wide = self.wide(x)
        wide = wide * 0.5 * (1.0 + torch.erf(wide / 2**0.5))  # RecBole spells GELU out, at the price of five operations
        return self.norms[1](x + self.dropout(self.narrow(wide)))


class PostNormEncoder(nn.Module):
    """RecBole's transformer over padded rows; matrices are to be drawn by whoever has it."""

    def __init__(self, width: int, ff_width: int, *, n_layers: int, n_heads: int, length: int) -> None:
        super().__init__()
        self.positions = nn.Embedding(length, width)
        self.norm, self.dropout = nn.LayerNorm(width, eps=1e-12), nn.Dropout(0.5)
        self.blocks = nn.ModuleList(PostNormBlock(width, ff_width, n_heads) for _ in range(n_layers))

    def forward(self, items: Tensor, rows: Tensor, lengths: Tensor) -> Tensor:
        """(B, D) the state after the last item of each row, from item vectors (B, T, D) of rows (B, T)."""
        length = rows.shape[1]
        visible = torch.ones(length, length, dtype=torch.bool).tril() & (rows > 0)[:, None, None, :]
        mask = torch.where(visible, 0.0, -10000.0)
        x = self.dropout(self.norm(items + self.positions(torch.arange(length).expand_as(rows))))
        for block in self.blocks:
            x = block(x, mask)
        return x[torch.arange(len(rows)), lengths - 1]


def fastest_step(step: Callable[[int], None], n_steps: int) -> float:
    """Seconds of the fastest of so many steps, after one to warm up."""
    seconds = []
    for number in range(n_steps + 1):
        start = time.perf_counter()
        step(number)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def epoch_seconds(
    model: nn.Module, train: Sequences, dtype: torch.dtype, *, length: int, n_rows: int, n_steps: int
) -> float:
    """Seconds of an epoch of next-item cross-entropy, from the fastest of so many steps.

    Args:
        model: called with rows (B, length) and their lengths (B,), gives logits of all items, 0 for padding.
    """
    rows, lengths, targets = padded_prefixes(train, length)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-3)

    def step(number: int) -> None:
        batch = order[number * n_rows : (number + 1) * n_rows]
        with autocast(torch.device("cpu"), dtype):
            loss = F.cross_entropy(model(rows[batch], lengths[batch]), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return fastest_step(step, n_steps) * len(targets) / n_rows
