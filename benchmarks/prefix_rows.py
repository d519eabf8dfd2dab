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
