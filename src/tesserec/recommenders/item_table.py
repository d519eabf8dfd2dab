"""What recommenders share that learn one vector per item, by which it is read and scored: SASRec, BERT4Rec, S3-Rec."""

import math
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from tesserec.config import build, to_dict
from tesserec.data.sequences import Sequences
from tesserec.networks.transformer import Packed, SequenceEncoder, small_weights
from tesserec.recommenders.base import ScoringRecommender
from tesserec.recommenders.next_item import NextItemSettings, NextItemSteps, Part, last_states
from tesserec.training.config import TrainingConfig
from tesserec.training.devices import resolve_device
from tesserec.training.loop import TrainingLog
from tesserec.training.saving import read_network, write_network
from tesserec.types import FloatArray


class ItemTableNetwork(nn.Module):
    """Histories -> a state for each of their items, to be multiplied with the item vectors.

    Args:
        settings: of a method, with its `width`.
        causal: whether a state depends on its item and the earlier ones alone.
        input_norm: items and positions weigh the same and their sum is normalised, as in BERT. Without, item vectors
            are scaled by the square root of their width: the small ones that suit the output are then as large as what
            the layers add to them, and larger than positions.
    """

    def __init__(self, n_items: int, settings: Any, *, causal: bool = True, input_norm: bool = False) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items, settings.width)
        self.scale = 1.0 if input_norm else math.sqrt(settings.width)
        self.encoder = SequenceEncoder(settings.width, settings, causal=causal, input_norm=input_norm)
        small_weights(self.items, self.encoder)

    def forward(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """States (P, D) of the tokens, and item vectors (N, D); scores are their inner products."""
        return self.states(packed), self.vectors

    def states(self, packed: Packed) -> Tensor:
        """(P, D)."""
        return self.encoder(packed, self.embed(packed.items) * self.scale)  # type: ignore[no-any-return]

    def embed(self, items: Tensor) -> Tensor:
        """(P, D) vectors of item rows (P,)."""
        return self.items(items)  # type: ignore[no-any-return]

    @property
    def vectors(self) -> Tensor:
        """(N, D) item vectors as they are scored."""
        return self.items.weight


class NextItem(NextItemSteps):
    """Objective: every item of a sequence predicts the one after it; a batch is a random set of sequences."""

    def __init__(self, sequences: Sequences, config: NextItemSettings, training: TrainingConfig) -> None:
        super().__init__(sequences, config.max_length, training)
        self.config = config

    def loss(self, model: nn.Module, part: Part, device: torch.device) -> Tensor:
        targets = part.targets.to(device)
        states, vectors = model(part.inputs.to(device))
        negatives = self.config.draw(targets, len(vectors))
        return self.config.of(states[: len(targets)], vectors, targets, negatives)


class ItemTableRecommender(ScoringRecommender):
    """A recommender over such a network: scoring and saving; a method brings its settings and `_fit`."""

    config_class: ClassVar[type[Any]]
    is_trained = True
    network: ItemTableNetwork | None = None

    def __init__(self, config: Any = None, training: TrainingConfig | None = None) -> None:
        super().__init__(config or self.config_class())
        self.training = training or TrainingConfig()
        self.log = TrainingLog()

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters()) if self.network else 0

    def _make_network(self, n_items: int) -> ItemTableNetwork:
        """The untrained network."""
        return ItemTableNetwork(n_items, self.config)

    def _inputs(self, histories: Sequences) -> Sequences:
        """What the network reads of histories; the state of its last token is that of the next item."""
        return histories.last(self.config.max_length)

    @torch.inference_mode()
    def score(self, histories: Sequences) -> FloatArray:
        network = self._fitted_network
        vectors = network.vectors
        states = last_states(
            self._inputs(histories), lambda packed: network(packed)[0], width=vectors.shape[1], device=vectors.device
        )
        scores: FloatArray = (states @ vectors.T).cpu().numpy()
        return scores

    @property
    def item_vectors(self) -> FloatArray:
        """(N, width) float32 the table by which items are read and scored; rows in catalogue order."""
        vectors: FloatArray = self._fitted_network.items.weight.detach().cpu().numpy().copy()
        return vectors

    @property
    def _fitted_network(self) -> ItemTableNetwork:
        return self._fitted(self.network)

    # -- saving --------------------------------------------------------------------------------------------------------

    def _extra_config(self) -> dict[str, Any]:
        return {"training": to_dict(self.training)}

    @classmethod
    def _from_manifest(cls, folder: Path, config: dict[str, Any]) -> Self:
        return cls(
            build(cls.config_class, config["recommender"], where=f"{folder}, recommender"),
            build(TrainingConfig, config["training"], where=f"{folder}, training"),
        )

    def _write(self, folder: Path) -> None:
        write_network(folder, self._fitted_network, self.log)

    def _read(self, folder: Path) -> None:
        self.network = self._make_network(len(self.fitted_catalogue))
        self.log = read_network(folder, self.network)
        self.network.to(resolve_device())
