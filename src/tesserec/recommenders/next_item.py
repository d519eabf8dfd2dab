"""What causal next-item models share: one pass trains all positions of a sequence, and its last state answers.

Tokens of all sequences lie in one row, without padding (tesserec.networks.transformer).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tesserec.data.sequences import Sequences
from tesserec.errors import ConfigError, DataError
from tesserec.functional.losses import binary_cross_entropy, other_items, sampled_softmax, softmax_cross_entropy
from tesserec.networks.transformer import Packed, SequenceSettings, pack
from tesserec.training.batching import balanced_order, parts_by_length, windows
from tesserec.training.config import TrainingConfig
from tesserec.training.loop import Step, Steps, StepsOfRows
from tesserec.types import IntArray

PLACES_PER_PART = 16384  # of the attention table when scoring; training has its own bound
PART_OVERHEAD = 1024  # what a further part costs, in places of the attention table: layers on tokens know no padding


class Part(NamedTuple):
    """Inputs of some sequences and, for each of their n tokens, the item that comes next."""

    inputs: Packed
    targets: Tensor  # (n,)
    events: Tensor  # (n,) places of the targets among all events of the data: what a draw for a target is named by

    def to(self, device: torch.device) -> "Part":
        return Part(self.inputs.to(device), self.targets.to(device), self.events.to(device))


def next_items(sequences: Sequences) -> Part:
    """Inputs are all items but the last, targets all but the first."""
    inputs = Sequences(sequences.values, sequences.starts, sequences.stops - 1)
    _, index = inputs.positions()
    targets, events = np.asarray(sequences.values[index + 1], dtype=np.int64), (index + 1).astype(np.int64)
    return Part(pack(inputs), torch.from_numpy(targets), torch.from_numpy(events))


class NextItemSteps:
    """The steps of an objective in which every item of a sequence predicts the one after it.

    A batch is a random set of sequences; longer ones are cut into windows that predict every item once.
    """

    def __init__(
        self, sequences: Sequences, max_length: int, training: TrainingConfig, *, item_domains: IntArray | None = None
    ) -> None:
        """
        Args:
            item_domains: (N,) the domain of each item. An epoch then has as many sequences of each domain, the domain
                of a sequence being that of its first item. None: every sequence once.
        """
        self.sequences = windows(sequences, max_length)
        self.training = training
        if not len(self.sequences):
            raise DataError("No user of the training part has two events, so there is no next item to learn from.")
        self.domains = None if item_domains is None else item_domains[self.sequences.values[self.sequences.starts]]
        self.per_epoch = len(self.order(0))

    def n_steps(self, epoch: int) -> int:
        return -(-self.per_epoch // self.training.batch_size)

    def steps(self, epoch: int) -> Steps:
        return StepsOfRows(self.order(epoch), self.training.batch_size, lambda rows, _: self.step(rows))

    def order(self, epoch: int) -> IntArray:
        """Rows of the sequences of an epoch, one after the other: a function of (seed, epoch) alone."""
        random = np.random.default_rng((self.training.seed, epoch))
        if self.domains is not None:
            return balanced_order(self.domains, random)
        return random.permutation(len(self.sequences))

    def step(self, rows: IntArray) -> Step:
        """A step on these sequences, in parts of similar length."""
        batch = self.sequences.take(rows)
        n_inputs = batch.lengths - 1
        parts = parts_by_length(n_inputs, max_tokens=self.training.tokens_per_part, overhead=PART_OVERHEAD)
        return Step([next_items(batch.take(part)) for part in parts], int(n_inputs.sum()))


@dataclass(frozen=True, kw_only=True)
class NextItemLoss:
    """Against which items the next one is to win."""

    loss: Literal["softmax", "sampled-softmax", "bce"] = "softmax"  # all items, some for all targets, one per target
    n_negatives: int = 256  # of sampled-softmax, shared by all targets that are computed together

    def __post_init__(self) -> None:
        if self.n_negatives < 1:
            raise ConfigError(f"n_negatives is {self.n_negatives}. Use 1 or more.")

    def draw(self, targets: Tensor, n_items: int) -> Tensor | None:
        """Items to win against, (n,) one for each of the targets or (n_negatives,) for all; None: all items."""
        if self.loss == "softmax":
            return None
        if self.loss == "bce":
            return other_items(targets, n_items)
        return torch.randint(n_items, (self.n_negatives,), device=targets.device)

    def of(self, states: Tensor, vectors: Tensor, targets: Tensor, negatives: Tensor | None) -> Tensor:
        """The summed loss: states (n, D), vectors (U, D), and rows of them: targets (n,), negatives as `draw` gives."""
        if negatives is None:
            return softmax_cross_entropy(states, vectors, targets)
        against = binary_cross_entropy if self.loss == "bce" else sampled_softmax
        return against(states, vectors, targets, negatives)


@dataclass(frozen=True, kw_only=True)
class NextItemSettings(NextItemLoss, SequenceSettings):
    """The transformer over a history, and against which items the next one is to win."""

    def __post_init__(self) -> None:
        SequenceSettings.__post_init__(self)
        NextItemLoss.__post_init__(self)


def last_states(
    histories: Sequences, states_of: Callable[[Sequences], Tensor], *, width: int, device: torch.device
) -> Tensor:
    """(M, D) the state after the last item of each of M histories; zeros for an empty one, so that all items tie.

    Args:
        states_of: the states (P, D) after each token of some of them, packed.
    """
    states = torch.zeros(len(histories), width, device=device)
    filled = np.flatnonzero(histories.lengths)
    for part in parts_by_length(histories.lengths[filled], max_tokens=PLACES_PER_PART, overhead=PART_OVERHEAD):
        rows = filled[part]
        every = states_of(histories.take(rows))
        last = np.cumsum(histories.lengths[rows]) - 1
        states[torch.from_numpy(rows).to(device)] = every[torch.from_numpy(last).to(device)]
    return states
