"""What recommenders share that learn one vector per item, by which it is read and scored: SASRec and its relatives."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from tesserec.artifacts import read_json, write_json
from tesserec.config import build, to_dict
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split
from tesserec.networks.transformer import Packed, SequenceEncoder, SequenceSettings, pack, small_weights
from tesserec.progress import Progress
from tesserec.recommenders.base import ScoringRecommender
from tesserec.recommenders.item_loss import ItemLoss
from tesserec.recommenders.next_item import NextItemSteps, Part, last_states
from tesserec.recommenders.validation import train_by_validation
from tesserec.training.config import TrainingConfig
from tesserec.training.devices import resolve_device
from tesserec.training.loop import Objective, TrainingLog
from tesserec.training.saving import read_network, write_network
from tesserec.training.seeds import seeded
from tesserec.types import FloatArray, IntArray

PRETRAINING_LOG = "pretraining_log.json"


@dataclass(frozen=True, kw_only=True)
class ItemTableSettings(ItemLoss, SequenceSettings):
    """The transformer over a history, and against which items the next one is to win."""

    width: int = 128  # of item embeddings and states

    def __post_init__(self) -> None:
        SequenceSettings.__post_init__(self)
        ItemLoss.__post_init__(self)
        self.check_heads(self.width)


class ItemTable(nn.Module):
    """A network with a vector of each item, by which it is read and scored."""

    def __init__(self, n_items: int, width: int) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items, width)

    @property
    def vectors(self) -> Tensor:
        """(N, D) item vectors as they are scored."""
        return self.items.weight


class ItemTableNetwork(ItemTable):
    """Histories -> a state for each of their items, to be multiplied with the item vectors.

    Args:
        settings: of a method, with its `width`.
        causal: whether a state depends on its item and the earlier ones alone.
        input_norm: items and positions weigh the same and their sum is normalised, as in BERT. Without, item vectors
            are scaled by the square root of their width: the small ones that suit the output are then as large as what
            the layers add to them, and larger than positions.
    """

    def __init__(self, n_items: int, settings: Any, *, causal: bool = True, input_norm: bool = False) -> None:
        super().__init__(n_items, settings.width)
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


class NextItem(NextItemSteps):
    """Objective: every item of a sequence predicts the one after it; a batch is a random set of sequences."""

    def __init__(
        self, sequences: Sequences, config: Any, training: TrainingConfig, *, item_domains: IntArray | None = None
    ) -> None:
        """
        Args:
            config: of a method, an `ItemLoss` with a `max_length`.
            item_domains: see `NextItemSteps`.
        """
        super().__init__(sequences, config.max_length, training, item_domains=item_domains)
        self.config: ItemLoss = config
        self.events = torch.from_numpy(sequences.flat()[0].astype(np.int64))
        self.proposal = torch.zeros(0)  # (N,) of the negatives, on the device of the training

    def loss(self, model: nn.Module, part: Part, device: torch.device) -> Tensor:
        targets = part.targets.to(device)
        states, vectors = model(part.inputs.to(device))
        return self.of(states[: len(targets)], vectors, targets)

    def of(self, states: Tensor, vectors: Tensor, targets: Tensor) -> Tensor:
        """The summed loss of states (n, D) whose targets (n,) are rows of the vectors (N, D) of all items."""
        if not len(self.proposal):
            self.proposal = self.config.proposal(self.events.bincount(minlength=len(vectors))).to(vectors.device)
        return self.config.against_catalogue(states, vectors, targets, self.proposal)


class ItemTableRecommender(ScoringRecommender):
    """A recommender over such a network: training, scoring and saving; a method brings its settings and network."""

    config_class: ClassVar[type[Any]]
    is_trained = True
    network: ItemTable | None = None

    def __init__(self, config: Any = None, training: TrainingConfig | None = None) -> None:
        super().__init__(config or self.config_class())
        self.training = training or TrainingConfig()
        self.log = TrainingLog()

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters()) if self.network else 0

    def _make_network(self, n_items: int) -> ItemTable:
        """The untrained network."""
        return ItemTableNetwork(n_items, self.config)

    def _objective(self, split: Split) -> Objective:
        """What the network learns."""
        return NextItem(split.train, self.config, self.training)

    def _fit(self, split: Split, checkpoints: Path | None, progress: Progress) -> None:
        objective, training = self._objective(split), self.training
        with seeded(training.seed):
            self.network = self._make_network(split.n_items)
        self.log = train_by_validation(
            self, self.network, objective, split, training, checkpoints=checkpoints, progress=progress
        )

    def _inputs(self, histories: Sequences) -> Sequences:
        """What the network reads of histories; the state of its last token is that of the next item."""
        return histories.last(self.config.max_length)

    @torch.inference_mode()
    def score(self, histories: Sequences) -> FloatArray:
        network = self._fitted_network
        vectors = network.vectors
        states = last_states(
            self._inputs(histories),
            lambda some: network(pack(some).to(vectors.device))[0],
            width=vectors.shape[1],
            device=vectors.device,
        )
        scores: FloatArray = (states @ vectors.T).cpu().numpy()
        return scores

    @property
    def item_vectors(self) -> FloatArray:
        """(N, width) float32 the table by which items are read and scored; rows in catalogue order."""
        vectors: FloatArray = self._fitted_network.items.weight.detach().cpu().numpy().copy()
        return vectors

    @property
    def _fitted_network(self) -> ItemTable:
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


class PretrainedItemTable(ItemTableRecommender):
    """One whose network learns something else first, for `pretrain_epochs` of its configuration."""

    def __init__(self, config: Any = None, training: TrainingConfig | None = None) -> None:
        super().__init__(config, training)
        self.pretraining_log = TrainingLog()

    def _pretrain(self, split: Split, checkpoints: Path | None, progress: Progress) -> None:
        """Leave the network as pre-training does, and its log."""
        raise NotImplementedError

    def _fit(self, split: Split, checkpoints: Path | None, progress: Progress) -> None:
        objective, training = self._objective(split), self.training
        with seeded(training.seed):
            self.network = self._make_network(split.n_items)
        if self.config.pretrain_epochs:
            self._pretrain(split, checkpoints / "pretraining" if checkpoints else None, progress)
        self.log = train_by_validation(
            self,
            self.network,
            objective,
            split,
            training,
            checkpoints=checkpoints / "fine-tuning" if checkpoints else None,
            progress=progress,
        )

    def _write(self, folder: Path) -> None:
        super()._write(folder)
        write_json(folder / PRETRAINING_LOG, asdict(self.pretraining_log))

    def _read(self, folder: Path) -> None:
        super()._read(folder)
        self.pretraining_log = TrainingLog(**read_json(folder / PRETRAINING_LOG))
