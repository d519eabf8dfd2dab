"""SASRec: a causal transformer over the items of a history, whose state at each item predicts the next one.

Item and position embeddings enter blocks of causal self-attention and a feed-forward layer; scores are inner products
of the state with the very item embeddings that came in. One pass over a user's sequence trains all its positions.

Paper: Kang & McAuley, Self-Attentive Sequential Recommendation, ICDM 2018 (arXiv 1808.09781).

Differences from the paper, each with its reason:

- The loss is cross-entropy over all items; one negative per target (the paper's, `loss="bce"`) reaches two thirds of
  the recall on Amazon Beauty (docs/methods/sasrec.md).
- Blocks normalise their input and add to an unnormalised stream (pre-LN), with a final norm; dropout is on embeddings
  and on what each layer adds, not on attention weights, so that fused attention kernels apply.
- Positions count from the start of the window, so that the state after an item does not depend on what follows:
  training one pass per user and scoring a prefix alone see the same numbers.
- Histories of any length train: longer ones are cut into windows that predict every item once.

Tokens of all sequences lie in one row, without padding; only attention sees them as a table of sequences by places.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from tesserec.config import build, to_dict
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split
from tesserec.networks.transformer import Packed, SequenceEncoder, small_weights
from tesserec.progress import Progress
from tesserec.recommenders.base import ScoringRecommender
from tesserec.recommenders.next_item import NextItemSettings, NextItemSteps, Part, last_states
from tesserec.recommenders.validation import train_by_validation
from tesserec.training.config import TrainingConfig
from tesserec.training.devices import resolve_device
from tesserec.training.loop import TrainingLog
from tesserec.training.saving import read_network, write_network
from tesserec.training.seeds import seeded
from tesserec.types import FloatArray


@dataclass(frozen=True, kw_only=True)
class SASRecConfig(NextItemSettings):
    """The network and its loss."""

    width: int = 128  # of item embeddings and states

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads(self.width)


# -- network -----------------------------------------------------------------------------------------------------------


class SASRecNetwork(nn.Module):
    """Histories -> a state after each of their items, to be multiplied with the item vectors."""

    def __init__(self, n_items: int, config: SASRecConfig) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items, config.width)
        self.encoder = SequenceEncoder(config.width, config, input_norm=False)
        small_weights(self.items, self.encoder)

    def forward(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """States (P, D) after each token, and item vectors (N, D)."""
        # Scaled, the small embeddings that suit the output are as large as what the layers add to them.
        items = self.items(packed.items) * math.sqrt(self.items.embedding_dim)
        return self.encoder(packed, items), self.items.weight


# -- training ----------------------------------------------------------------------------------------------------------


class NextItem(NextItemSteps):
    """Objective: every item of a sequence predicts the one after it; a batch is a random set of sequences."""

    def __init__(self, sequences: Sequences, config: SASRecConfig, training: TrainingConfig) -> None:
        super().__init__(sequences, config.max_length, training)
        self.config = config

    def loss(self, model: nn.Module, part: Part, device: torch.device) -> Tensor:
        targets = part.targets.to(device)
        states, vectors = model(part.inputs.to(device))
        negatives = self.config.draw(targets, len(vectors))
        return self.config.of(states[: len(targets)], vectors, targets, negatives)


# -- recommender -------------------------------------------------------------------------------------------------------


class SASRec(ScoringRecommender):
    """Next items by a causal transformer over item embeddings."""

    method = "sasrec"
    config_class = SASRecConfig
    is_trained = True

    def __init__(self, config: SASRecConfig | None = None, training: TrainingConfig | None = None) -> None:
        super().__init__(config or SASRecConfig())
        self.training = training or TrainingConfig()
        self.network: SASRecNetwork | None = None
        self.log = TrainingLog()

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters()) if self.network else 0

    def _fit(self, split: Split, checkpoints: Path | None, progress: Progress) -> None:
        training = self.training
        objective = NextItem(split.train, self.config, training)
        with seeded(training.seed):
            self.network = SASRecNetwork(split.n_items, self.config)

        self.log = train_by_validation(
            self, self.network, objective, split, training, checkpoints=checkpoints, progress=progress
        )

    @torch.inference_mode()
    def score(self, histories: Sequences) -> FloatArray:
        network, recent = self._fitted_network, histories.last(self.config.max_length)
        vectors = network.items.weight
        states = last_states(recent, lambda packed: network(packed)[0], width=self.config.width, device=vectors.device)
        scores: FloatArray = (states @ vectors.T).cpu().numpy()
        return scores

    @property
    def item_vectors(self) -> FloatArray:
        """(N, width) float32 the table by which items are read and scored; rows in catalogue order."""
        vectors: FloatArray = self._fitted_network.items.weight.detach().cpu().numpy().copy()
        return vectors

    @property
    def _fitted_network(self) -> SASRecNetwork:
        return self._fitted(self.network)

    # -- saving --------------------------------------------------------------------------------------------------------

    def _extra_config(self) -> dict[str, Any]:
        return {"training": to_dict(self.training)}

    @classmethod
    def _from_manifest(cls, folder: Path, config: dict[str, Any]) -> Self:
        return cls(
            build(SASRecConfig, config["recommender"], where=f"{folder}, recommender"),
            build(TrainingConfig, config["training"], where=f"{folder}, training"),
        )

    def _write(self, folder: Path) -> None:
        write_network(folder, self._fitted_network, self.log)

    def _read(self, folder: Path) -> None:
        self.network = SASRecNetwork(len(self.fitted_catalogue), self.config)
        self.log = read_network(folder, self.network)
        self.network.to(resolve_device())
