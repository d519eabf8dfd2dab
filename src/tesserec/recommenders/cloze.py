"""What models share that guess hidden items of a sequence from those on both sides: BERT4Rec, S3-Rec's pre-training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tesserec.data.sequences import Sequences
from tesserec.errors import ConfigError
from tesserec.recommenders.item_table import ItemTableNetwork
from tesserec.recommenders.next_item import NextItemSteps
from tesserec.training.config import TrainingConfig
from tesserec.training.loop import Step
from tesserec.types import BoolArray, IntArray


class ClozeNetwork(ItemTableNetwork):
    """A network without causal mask, for which item row N is MASK: it stands for an item that is to be guessed.

    MASK has a vector of its own, outside the item table, so that it can never be recommended.
    """

    def __init__(self, n_items: int, settings: Any, *, input_norm: bool = False) -> None:
        super().__init__(n_items, settings, causal=False, input_norm=input_norm)
        self.mask = nn.Parameter(torch.randn(1, settings.width) * 0.02)

    def embed(self, items: Tensor) -> Tensor:
        """(P, D) vectors of item rows (P,), N for MASK."""
        return nn.functional.embedding(items, torch.cat([self.items.weight, self.mask]))


class ClozeSteps(NextItemSteps):
    """The steps of an objective that hides items: a batch is a random set of sequences, hidden anew in every epoch.

    Sequences of more than `max_length` items are cut into windows, neighbours of which share an item; those of one
    item have nothing to be guessed from and are left out.
    """

    def __init__(self, sequences: Sequences, n_items: int, max_length: int, training: TrainingConfig) -> None:
        super().__init__(sequences, max_length - 1, training)
        self.mask = n_items  # the row of MASK

    def steps(self, epoch: int) -> "ClozeEpoch":
        return ClozeEpoch(self, epoch, self.order(epoch))

    def hide(self, sequences: Sequences, random: np.random.Generator) -> Step:
        """A step on these sequences."""
        raise NotImplementedError


@dataclass(frozen=True)
class ClozeEpoch:
    """The steps of one epoch, made when they are asked for: the same ones whenever that is."""

    objective: ClozeSteps
    epoch: int
    order: IntArray  # of the sequences

    def __getitem__(self, index: int, /) -> Step:
        training = self.objective.training
        rows = self.order[index * training.batch_size : (index + 1) * training.batch_size]
        random = np.random.default_rng((training.seed, self.epoch, index))
        return self.objective.hide(self.objective.sequences.take(rows), random)


def check_room(max_length: int) -> None:
    """Raise a ConfigError unless a window has room for a hidden item and one that tells of it."""
    if max_length < 2:
        raise ConfigError(f"max_length is {max_length}. Use 2 or more: a hidden item and one that tells of it.")


def closed_up(sequences: Sequences) -> Sequences:
    """The same sequences over a values array of their own, without gaps."""
    return Sequences.from_offsets(*sequences.flat())


def random_prefixes(sequences: Sequences, rows: BoolArray, random: np.random.Generator) -> Sequences:
    """Some of the sequences (rows: (B,) bool) cut to their first items: two or more, every number equally likely."""
    lengths = 2 + (random.random(len(sequences)) * (sequences.lengths - 1)).astype(np.int64)
    stops = np.where(rows, sequences.starts + lengths, sequences.stops)
    return Sequences(sequences.values, sequences.starts, stops)


def masked_places(sequences: Sequences, share: float, random: np.random.Generator) -> BoolArray:
    """(n,) which items of closed-up sequences are hidden: each with probability `share`, one where that leaves none."""
    hidden = random.random(len(sequences.values)) < share
    rows, _ = sequences.positions()
    without = np.bincount(rows[hidden], minlength=len(sequences)) == 0
    chosen = sequences.starts + (random.random(len(sequences)) * sequences.lengths).astype(np.int64)
    hidden[chosen[without]] = True
    return hidden


def covered(sequences: Sequences, hidden: BoolArray, mask: int) -> Sequences:
    """Closed-up sequences with MASK in the hidden places (n,)."""
    return Sequences(np.where(hidden, mask, sequences.values), sequences.starts, sequences.stops)


def joined(parts: Sequence[Sequences]) -> Sequences:
    """The sequences of all parts, one part after the other."""
    flat = [part.flat() for part in parts]
    lengths = np.concatenate([part.lengths for part in parts])
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    return Sequences.from_offsets(np.concatenate([values for values, _ in flat]), offsets)
