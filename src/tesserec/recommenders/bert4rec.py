"""BERT4Rec: some items of a sequence are hidden, and a transformer that sees both sides guesses which they were.

To recommend, MASK is put behind a history and guessed. So that this is a question the model was asked in training, some
sequences have only their last item hidden.

Paper: Sun et al. 2019, BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer
(arXiv 1904.06690).

Differences from the paper (its public code where the paper is silent), each with its reason:

- Sequences of which only the last item is hidden end at a random item of the user (`prefixes`): otherwise all of a
  user's questions of this kind, in all epochs, are the same one. They are a share of the batch, `last_only`, in place
  of an additional copy of every user.
- A hidden item is always replaced by MASK, never by another item or itself: nothing else is read when recommending.
- Masks are drawn anew in every epoch instead of ten times in advance; a sequence in which none fell has one drawn.
- The state at MASK is not normalised by its length, and the output bias is one more dimension of states and items, so
  that the loss over all items never holds the table of logits.
- Blocks normalise their input and a norm ends the encoder (`norm="post"` is the paper's), as in the other recommenders.
- Dropout is on embeddings and on what each layer adds, not on attention weights, so that fused attention kernels apply.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split
from tesserec.errors import ConfigError
from tesserec.functional.losses import softmax_cross_entropy
from tesserec.networks.transformer import Packed, SequenceSettings, pack, small_weights
from tesserec.recommenders.cloze import (
    ClozeNetwork,
    ClozeSteps,
    check_room,
    closed_up,
    covered,
    masked_places,
    random_prefixes,
)
from tesserec.recommenders.item_table import ItemTableRecommender
from tesserec.recommenders.next_item import PART_OVERHEAD
from tesserec.training.batching import parts_by_length
from tesserec.training.config import TrainingConfig
from tesserec.training.loop import Step


@dataclass(frozen=True, kw_only=True)
class BERT4RecConfig(SequenceSettings):
    """The network, and which items are hidden in training."""

    width: int = 128  # of item embeddings and states
    mask_ratio: float = 0.4  # of the items of a sequence are hidden; at least one
    last_only: float = 0.5  # of the sequences have instead only their last item hidden
    prefixes: bool = True  # those end at a random item of the user, not always at the last one

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads(self.width)
        check_room(self.max_length)
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(f"mask_ratio is {self.mask_ratio}. Use more than 0 and less than 1, such as 0.4.")
        if not 0 <= self.last_only <= 1:
            raise ConfigError(f"last_only is {self.last_only}. Use a share of the sequences, from 0 to 1.")


# -- network -----------------------------------------------------------------------------------------------------------


class BERT4RecNetwork(ClozeNetwork):
    """Sequences with MASK in them -> what is compared with all items, at every place or some."""

    def __init__(self, n_items: int, config: BERT4RecConfig) -> None:
        super().__init__(n_items, config, input_norm=True)
        self.head = nn.Sequential(nn.Linear(config.width, config.width), nn.GELU(), nn.LayerNorm(config.width))
        self.bias = nn.Parameter(torch.zeros(n_items))
        small_weights(self.head)

    def forward(self, packed: Packed, places: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[head(h) ; 1] (n, D + 1) at some places (n,) of tokens, by default at all, and [e ; b] (N, D + 1)."""
        guesses = self.head(self.states(packed))  # of all tokens: a CPU compiles its products for every new number
        guesses = guesses if places is None else guesses.index_select(0, places)
        return torch.cat([guesses, guesses.new_ones(len(guesses), 1)], dim=1), self.vectors

    @property
    def vectors(self) -> Tensor:
        """(N, D + 1) item vectors, and the output bias as one more dimension."""
        return torch.cat([self.items.weight, self.bias[:, None]], dim=1)


# -- training ----------------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """Sequences with hidden items."""

    inputs: Packed
    places: Tensor  # (n,) tokens that are hidden
    targets: Tensor  # (n,) what they were

    def to(self, device: torch.device) -> "Part":
        return Part(self.inputs.to(device), self.places.to(device), self.targets.to(device))


class Cloze(ClozeSteps):
    """Objective: every hidden item is guessed from what is left of its sequence."""

    def __init__(self, sequences: Sequences, n_items: int, config: BERT4RecConfig, training: TrainingConfig) -> None:
        super().__init__(sequences, n_items, config.max_length, training)
        self.config = config

    def hide(self, sequences: Sequences, random: np.random.Generator) -> Step:
        config = self.config
        last_only = random.random(len(sequences)) < config.last_only
        if config.prefixes:
            sequences = random_prefixes(sequences, last_only, random)
        sequences = closed_up(sequences)
        rows, _ = sequences.positions()
        hidden = masked_places(sequences, config.mask_ratio, random) & ~last_only[rows]
        hidden[sequences.stops[last_only] - 1] = True
        inputs = covered(sequences, hidden, self.mask)
        parts = parts_by_length(sequences.lengths, max_tokens=self.training.tokens_per_part, overhead=PART_OVERHEAD)
        return Step([self.part(inputs.take(part), sequences.take(part)) for part in parts], int(hidden.sum()))

    def part(self, inputs: Sequences, originals: Sequences) -> Part:
        """Inputs as tensors, and what is behind their masks."""
        values, _ = originals.flat()
        packed = pack(inputs)
        places = torch.nonzero(packed.items[: len(values)] == self.mask)[:, 0]
        return Part(packed, places, torch.from_numpy(values.astype(np.int64))[places])

    def loss(self, model: nn.Module, part: Part, device: torch.device) -> Tensor:
        part = part.to(device)
        states, vectors = model(part.inputs, part.places)
        return softmax_cross_entropy(states, vectors, part.targets)


# -- recommender -------------------------------------------------------------------------------------------------------


class BERT4Rec(ItemTableRecommender):
    """Next items by a bidirectional transformer that guesses the item behind MASK."""

    method = "bert4rec"
    config_class = BERT4RecConfig
    network: BERT4RecNetwork | None

    def _make_network(self, n_items: int) -> BERT4RecNetwork:
        return BERT4RecNetwork(n_items, self.config)

    def _objective(self, split: Split) -> Cloze:
        return Cloze(split.train, split.n_items, self.config, self.training)

    def _inputs(self, histories: Sequences) -> Sequences:
        """The latest `max_length - 1` items of each history, and MASK."""
        values, offsets = histories.last(self.config.max_length - 1).flat()
        masked = np.insert(values, offsets[1:], len(self.fitted_catalogue))
        return Sequences.from_offsets(masked, offsets + np.arange(len(offsets)))
