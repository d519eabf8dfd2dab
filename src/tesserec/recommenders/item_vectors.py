"""What recommenders share that make item vectors from what is known of the items, and rank by inner products with them.

A network turns features (text embeddings, codes) into item vectors, reads the vectors of a history, and compares the
state after it with those of all items. In training, vectors are computed once per step for the items that the step
needs; for evaluation and serving once for the whole catalogue. A method brings its item encoder and its settings, and
changes what is special to it: the objective, the stages of training, more losses.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesserec.artifacts import read_manifest
from tesserec.config import build, to_dict
from tesserec.data.catalogue import Catalogue
from tesserec.data.join import item_domains
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split
from tesserec.errors import ArtifactError, ConfigError, DataError
from tesserec.functional.losses import in_batch_softmax
from tesserec.networks.transformer import Packed, SequenceEncoder, pack
from tesserec.progress import Progress
from tesserec.recommenders.base import ScoringRecommender
from tesserec.recommenders.next_item import NextItemSettings, NextItemSteps, Part, last_states
from tesserec.recommenders.validation import train_by_validation
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.training.config import TrainingConfig
from tesserec.training.devices import n_processes, resolve_device
from tesserec.training.loop import Objective, Step, TrainingLog
from tesserec.training.saving import read_network, write_network
from tesserec.training.seeds import seeded
from tesserec.types import FloatArray, IntArray, PathLike

ITEMS_AT_A_TIME = 8192  # when the vectors of a whole catalogue are made
VECTORS = "item_vectors.npy"
MOVED = 0.01  # of the spread of item vectors: more than rounding makes of equal features
CODE_SPACE = "codebooks"  # name of the source that says what codes mean
SOURCES = ("embeddings", "semantic_ids", CODE_SPACE, "pretrained")  # of what, beside the data set, a model may be made


@dataclass(frozen=True, kw_only=True)
class ItemVectorSettings(NextItemSettings):
    """The transformer over a history, how states and items are compared, and what training starts from."""

    loss: Literal["softmax", "sampled-softmax", "bce", "in-batch"] = "softmax"  # type: ignore[assignment]  # one more
    temperature: float | None = None  # scores are cosines divided by it; None: plain inner products
    pretrained: str = ""  # a run, or its recommender folder, of the same method on other items to start from
    zero_shot: bool = False  # recommend with the weights of `pretrained` as they are, without training
    domains: Literal["natural", "balanced"] = "natural"  # "balanced": as many sequences of each domain per epoch

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature is not None and not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature}. Use a value above 0 such as 0.07, or none.")
        if self.zero_shot and not self.pretrained:
            raise ConfigError("zero_shot is set but pretrained is not. Set pretrained to the run whose weights to use.")


# -- network -----------------------------------------------------------------------------------------------------------


class Output(NamedTuple):
    """What a training step needs."""

    states: Tensor  # (n, D) after each token, ready for inner products with the vectors
    vectors: Tensor  # (U, D) of the items asked for; rows after those are negatives, one for each state (in-batch)
    loss: Tensor  # () what the method adds to the loss, a mean


class ItemVectorNetwork(nn.Module):
    """Features -> item vectors; vectors of a history -> a state after each of its items.

    Args:
        items: called with item rows (U,) and their features, gives vectors (U, D).
        encoder: of histories.
        temperature: see `ItemVectorSettings`.
    """

    def __init__(self, items: nn.Module, encoder: SequenceEncoder, temperature: float | None = None) -> None:
        super().__init__()
        self.items, self.encoder, self.temperature = items, encoder, temperature

    def forward(self, parts: Sequence[Part], items: Tensor, features: Sequence[Tensor]) -> Output:
        """States of all parts, one after the other.

        Args:
            items: (U,) rows of the items whose vectors are needed, ascending, those of `parts` among them: their
                vectors are computed once, however often they occur.
            features: (U, ...) what is known of them.
        """
        vectors, loss = self.vectors(items, features)
        states = self.states(parts, items, vectors)
        return Output(self.query(states), self.key(vectors), loss)

    def vectors(self, items: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Vectors (U, D), and what making them adds to the loss, a mean over the items."""
        vectors: Tensor = self.items(items, *features)
        return vectors, vectors.new_zeros(())

    def states(self, parts: Sequence[Part], items: Tensor, vectors: Tensor) -> Tensor:
        """(n, D) after each token of the parts, from the vectors (U, D) of ascending item rows (U,)."""
        places = [torch.searchsorted(items, part.inputs.items) for part in parts]
        return torch.cat([
            self.encode(part.inputs, F.embedding(place, vectors))[: len(part.targets)]
            for part, place in zip(parts, places)
        ])  # fmt: skip

    def encode(self, packed: Packed, vectors: Tensor) -> Tensor:
        """(P, width) states after each token of histories, from the vectors (P, D) of the tokens."""
        states: Tensor = self.encoder(packed, vectors)
        return states

    def query(self, states: Tensor) -> Tensor:
        """States as they are multiplied with `key` of the vectors."""
        return states if self.temperature is None else F.normalize(states.float(), dim=-1) / self.temperature

    def key(self, vectors: Tensor) -> Tensor:
        """Item vectors as `query` of the states is multiplied with them."""
        return vectors if self.temperature is None else F.normalize(vectors.float(), dim=-1)

    @torch.no_grad()
    def catalogue(self, features: Sequence[Tensor], n_items: int) -> Tensor:
        """(N, D) vectors of all items, as `score` takes them; in evaluation mode."""
        device = next(self.parameters()).device
        blocks = torch.split(torch.arange(n_items), ITEMS_AT_A_TIME)
        return torch.cat(
            [self.items(rows.to(device), *(table[rows].to(device) for table in features)) for rows in blocks]
        )


# -- training ----------------------------------------------------------------------------------------------------------


class Bundle(NamedTuple):
    """What one process computes of a step."""

    parts: list[Part]
    candidates: Tensor  # (C,) the distinct targets of the whole step, ascending
    counts: Tensor  # (C,) how often each occurs there
    extra: tuple[Tensor, ...] = ()  # what a method adds, in the order of the parts' targets; the network gets it, too

    def to(self, device: torch.device) -> "Bundle":
        parts, extra = [part.to(device) for part in self.parts], tuple(tensor.to(device) for tensor in self.extra)
        return Bundle(parts, self.candidates.to(device), self.counts.to(device), extra)


class CatalogueNextItem(NextItemSteps):
    """Objective: every item of a sequence predicts the next one, by vectors that are made once per step."""

    def __init__(
        self,
        sequences: Sequences,
        features: Sequence[Tensor],
        n_items: int,
        config: ItemVectorSettings,
        training: TrainingConfig,
        *,
        item_domains: IntArray | None = None,
    ) -> None:
        """
        Args:
            features: tables (N, ...) of what is known of the items.
            item_domains: (N,) the domain of each item, for `domains = "balanced"`.

        Raises:
            ConfigError: `domains` is "balanced" and the items have none.
        """
        balanced = config.domains == "balanced"
        if balanced and item_domains is None:
            raise ConfigError(
                "recommender.domains is 'balanced', but the items have no column 'domain'. Join data sets with "
                "`tesserec join`, or use domains = 'natural'."
            )
        super().__init__(sequences, config.max_length, training, item_domains=item_domains if balanced else None)
        self.features, self.n_items, self.config = list(features), n_items, config

    def step(self, rows: IntArray) -> Step:
        """One bundle for each process, so that item vectors are computed once in each."""
        n = n_processes()
        shares = [super(CatalogueNextItem, self).step(rows[first::n]) for first in range(min(n, len(rows)))]
        targets = torch.cat([part.targets for share in shares for part in share.parts])
        candidates, counts = torch.unique(targets, return_counts=True)
        bundles = [Bundle(list(share.parts), candidates, counts) for share in shares]
        return Step(bundles, len(targets))

    def loss(self, model: nn.Module, part: Bundle, device: torch.device) -> Tensor:
        bundle = part.to(device)
        targets = torch.cat([part.targets for part in bundle.parts])  # (n,)
        negatives = None if self.config.loss == "in-batch" else self.config.draw(targets, self.n_items)
        items = self.items_of(bundle, targets, negatives)
        output: Output = model(bundle.parts, items, self.features_of(items), *bundle.extra)
        loss = self.next_item_loss(output, items, bundle, targets, negatives)
        total: Tensor = loss + len(targets) * output.loss  # the loop divides by the number of targets
        return total

    def items_of(self, bundle: Bundle, targets: Tensor, negatives: Tensor | None) -> Tensor:
        """(U,) ascending rows of the items whose vectors the step needs."""
        if self.config.loss == "softmax":
            return torch.arange(self.n_items, device=targets.device)
        against = bundle.candidates if negatives is None else negatives
        histories = [part.inputs.items[: len(part.targets)] for part in bundle.parts]
        fillers = targets.new_zeros(1)  # row 0 fills up packed sequences
        needed: Tensor = torch.unique(torch.cat([fillers, *histories, targets, against]))
        return needed

    def next_item_loss(
        self, output: Output, items: Tensor, bundle: Bundle, targets: Tensor, negatives: Tensor | None
    ) -> Tensor:
        """The summed loss of the targets; `output` is of the ascending rows `items`."""
        if self.config.loss == "in-batch":
            vectors = F.embedding(torch.searchsorted(items, bundle.candidates), output.vectors)
            places = torch.searchsorted(bundle.candidates, targets)
            further = output.vectors[len(items) :]
            return in_batch_softmax(output.states, vectors, places, bundle.counts, further if len(further) else None)
        places = torch.searchsorted(items, targets)
        against = None if negatives is None else torch.searchsorted(items, negatives)
        return self.config.of(output.states, output.vectors, places, against)

    def features_of(self, items: Tensor) -> list[Tensor]:
        self.features = [table.to(items.device) for table in self.features]
        return self.features if len(items) == self.n_items else [table[items] for table in self.features]


# -- recommender -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """What is known of the items of a catalogue, apart from who took them."""

    embeddings: Embeddings | None = None
    semantic_ids: SemanticIds | None = None

    @property
    def named(self) -> dict[str, Embeddings | SemanticIds]:
        """Those that are there."""
        both = {"embeddings": self.embeddings, "semantic_ids": self.semantic_ids}
        return {name: part for name, part in both.items() if part is not None}

    @property
    def shapes(self) -> dict[str, list[int]]:
        """What a network must know of them: of one item's embeddings, and the codebook sizes of the IDs."""
        shapes = dict[str, list[int]]()
        if self.embeddings is not None:
            shapes["embeddings"] = list(self.embeddings.vectors.shape[1:])
        if self.semantic_ids is not None:
            shapes["semantic_ids"] = list(self.semantic_ids.codebook_sizes)
        return shapes


class ItemVectorRecommender(ScoringRecommender):
    """A recommender over item vectors; a method implements `_make_network` and says which features it reads.

    Features are what the class says it needs: text embeddings (`needs_embeddings`), semantic IDs
    (`needs_semantic_ids`), or both, in this order.
    """

    config_class: ClassVar[type[Any]]
    objective_class: ClassVar[type[CatalogueNextItem]] = CatalogueNextItem
    is_trained = True
    network: ItemVectorNetwork | None = None

    def __init__(
        self,
        config: Any = None,
        training: TrainingConfig | None = None,
        *,
        embeddings: Embeddings | None = None,
        semantic_ids: SemanticIds | None = None,
    ) -> None:
        """
        Args:
            embeddings, semantic_ids: of the items of the data set, if the method needs them; None only for a model
                that is loaded and not fitted again.

        Raises:
            DataError: features of a shape that the method cannot take.
        """
        super().__init__(config or self.config_class())
        self.training = training or TrainingConfig()
        self.features = ItemFeatures(embeddings, semantic_ids)
        self.feature_sources = {name: part.fingerprint for name, part in self.features.named.items()}
        if semantic_ids is not None and semantic_ids.code_space:
            self.feature_sources[CODE_SPACE] = semantic_ids.code_space
        self.feature_shapes = self.features.shapes
        self._check_features(self.features)
        self.log = TrainingLog()
        self._vectors = torch.zeros(0)  # (N, D) of the whole catalogue

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters()) if self.network else 0

    # -- what a method brings ------------------------------------------------------------------------------------------

    def _make_network(self, n_items: int) -> ItemVectorNetwork:
        """The untrained network, from the configuration, `feature_shapes` and the number of items."""
        raise NotImplementedError

    def _tables(self, features: ItemFeatures) -> list[Tensor]:
        """Tables (N, ...) as the network's item encoder reads them; by default float32 vectors, then int64 codes.

        The network is there, with the weights that it starts from.
        """
        tables = list[Tensor]()
        if features.embeddings is not None:
            tables.append(torch.from_numpy(np.array(features.embeddings.vectors, dtype=np.float32)))
        if features.semantic_ids is not None:
            tables.append(torch.from_numpy(np.array(features.semantic_ids.codes, dtype=np.int64)))
        return tables

    def _begin(self, tables: Sequence[Tensor]) -> None:
        """Set what the network takes from the features of all items; not called when it starts from another model."""

    def _objective(self, split: Split, tables: Sequence[Tensor]) -> Objective:
        return self.objective_class(
            split.train, tables, split.n_items, self.config, self.training, item_domains=self._item_domains(split)
        )

    def _item_domains(self, split: Split) -> IntArray | None:
        """(N,) numbers of the items' domains, where training asks for them and the item table has a column `domain`."""
        return None if self.config.domains == "natural" else item_domains(split.dataset)

    def _train(
        self, split: Split, tables: Sequence[Tensor], checkpoints: Path | None, progress: Progress
    ) -> TrainingLog:
        """Train the network in place; methods with several stages override this."""
        return train_by_validation(
            self,
            self._fitted_network,
            self._objective(split, tables),
            split,
            self.training,
            checkpoints=checkpoints,
            progress=progress,
            before_ranking=lambda: self._settle(tables, split.n_items),
        )

    def _check_features(self, features: ItemFeatures) -> None:
        """Raise a DataError for features of a shape that the method cannot take; by default attributes."""
        if features.embeddings is not None and features.embeddings.vectors.ndim != 2:
            raise DataError(
                f"{self.method} takes one vector per item, not {features.embeddings.vectors.shape[1]} attributes of "
                "each. Encode one text per item (text.template) instead of one per attribute."
            )

    # -- fitting -------------------------------------------------------------------------------------------------------

    def _fit(self, split: Split, checkpoints: Path | None, progress: Progress) -> None:
        self._check_catalogue(self.features, split.dataset.catalogue)
        with seeded(self.training.seed):
            self.network = self._make_network(split.n_items)
        if self.config.pretrained:
            self._start_from(self._pretrained(self.config.pretrained))
            self.feature_sources["pretrained"] = read_manifest(_recommender_in(self.config.pretrained)).fingerprint
        tables = self._tables(self.features)
        if not self.config.pretrained:
            self._begin(tables)
        if self.config.zero_shot:
            if self._item_rows():
                raise ConfigError(f"This {self.method} recommender has weights for each item, so it needs training.")
            self.network.to(resolve_device(self.training.device)).eval()
            self.log = TrainingLog(stopped="zero-shot: not trained")
        else:
            self.log = self._train(split, tables, checkpoints, progress)
        self._settle(tables, split.n_items)

    def _settle(self, tables: Sequence[Tensor], n_items: int) -> None:
        """Vectors of all items by the weights as they are now."""
        network = self._fitted_network
        was_training = network.training
        network.eval()
        self._vectors = network.catalogue(tables, n_items)
        network.train(was_training)

    def _check_catalogue(self, features: ItemFeatures, catalogue: Catalogue) -> None:
        needed = {"embeddings": self.needs_embeddings, "semantic_ids": self.needs_semantic_ids}
        for name, words in (("embeddings", "item embeddings"), ("semantic_ids", "semantic IDs")):
            part = features.named.get(name)
            if needed[name] and part is None:
                raise ConfigError(
                    f"This {self.method} recommender was loaded without the {words} that training reads. Make a new "
                    f"one with {name}=..."
                )
            if part is not None and part.catalogue.fingerprint != catalogue.fingerprint:
                raise ConfigError(
                    f"The {words} describe {len(part.catalogue)} items, the data set has {len(catalogue)} (or the same "
                    "in another order). Make them for the items of this data set."
                )

    # -- starting from another model -----------------------------------------------------------------------------------

    @classmethod
    def reads(cls, config: Any) -> tuple[str, ...]:
        return (config.pretrained,) if config.pretrained else ()

    def _pretrained(self, path: str) -> Self:
        """The recommender that training starts from.

        Raises:
            ArtifactError: there is none, or one of another method.
        """
        return self.load(_recommender_in(path))

    def _start_from(self, other: Self) -> None:
        """Take over the weights of another model of this method, less those of the items' rows.

        Raises:
            ArtifactError: its network has other shapes.
        """
        own, theirs = self._fitted_network.state_dict(), other._fitted_network.state_dict()
        of_items = self._item_rows() | other._item_rows()
        shared = {name: weight for name, weight in theirs.items() if name not in of_items}
        unlike = [name for name, weight in shared.items() if name not in own or own[name].shape != weight.shape]
        if unlike:
            raise ArtifactError(
                f"{self.config.pretrained} has another network: {unlike[0]} has shape "
                f"{tuple(shared[unlike[0]].shape)} there and "
                f"{tuple(own[unlike[0]].shape) if unlike[0] in own else 'is not there'} here. Train both with the same "
                "recommender settings and features of the same width."
            )
        self._fitted_network.load_state_dict({**own, **shared})

    def _item_rows(self) -> set[str]:
        """Names of weights that have a row for each item, which no other data set can use."""
        return set()

    # -- answering -----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def score(self, histories: Sequences) -> FloatArray:
        network, vectors = self._fitted_network, self._vectors

        def encode(some: Sequences) -> Tensor:
            packed = pack(some).to(vectors.device)
            return network.encode(packed, vectors[packed.items])

        states = last_states(
            histories.last(self.config.max_length),
            encode,
            width=network.encoder.width,
            device=vectors.device,
        )
        scores: FloatArray = (network.query(states) @ network.key(vectors).T).cpu().numpy()
        return scores

    @property
    def item_vectors(self) -> FloatArray:
        """(N, D) float32 vectors of the catalogue; rows in catalogue order."""
        vectors: FloatArray = self._vectors.cpu().numpy().copy()
        return vectors

    def with_items(self, *, embeddings: Embeddings | None = None, semantic_ids: SemanticIds | None = None) -> Self:
        """The same model over another catalogue, new items included: their vectors come from features alone.

        Args:
            embeddings, semantic_ids: of all items to be recommended, made as those of the training.

        Raises:
            ConfigError: the method has weights of its own for each item, or what it reads is missing.
            DataError: features of another shape than those of the training, or most of the items that the model knows
                have other vectors now.
        """
        features = ItemFeatures(embeddings, semantic_ids)
        if features.shapes != self.feature_shapes:
            raise DataError(
                f"The features of these items have the shapes {features.shapes}, those of the training "
                f"{self.feature_shapes}. Make them with the same encoder and tokenizer."
            )
        other = copy.copy(self)
        other.features, catalogue = features, next(iter(features.named.values())).catalogue
        other._check_catalogue(features, catalogue)
        rows = self._rows_here(catalogue)
        other._keep_rows(rows)
        other.catalogue, other.train_counts = catalogue, np.append(self.train_counts, 0)[rows]
        other._settle(other._tables(features), len(catalogue))
        self._require_unmoved(other, rows)
        return other

    def _require_unmoved(self, other: Self, rows: IntArray) -> None:
        """Refuse features that make other vectors of the items that this model knows.

        Args:
            other: this model over another catalogue.
            rows: (M,) as `_rows_here` says.
        """
        before, now = self.item_vectors, other.item_vectors
        spread = np.linalg.norm(before - before.mean(axis=0), axis=1).mean()
        moved = np.linalg.norm(before[rows[rows >= 0]] - now[rows >= 0], axis=1) > MOVED * spread
        if moved.sum() > len(moved) / 2:  # some texts may have been corrected since
            made_by = {"embeddings": "encoder", "semantic_ids": "tokenizer"}
            maker = " or ".join(made_by[name] for name in self.feature_shapes)
            raise DataError(
                f"{moved.sum()} of {len(moved)} items that this model knows have other vectors now, so these features "
                f"come from another {maker} and mean other things, or these are other items under the same ids. Make "
                "the features as those of the training, and give other items ids of their own."
            )

    def _rows_here(self, catalogue: Catalogue) -> IntArray:
        """(M,) which item of the fitted catalogue each item of another one is; -1 for new ones."""
        known = {item_id: row for row, item_id in enumerate(self.fitted_catalogue.item_ids)}
        return np.array([known.get(item_id, -1) for item_id in catalogue.item_ids])

    def _keep_rows(self, rows: IntArray) -> None:
        """Turn the weights of items into those of another catalogue (of a shallow copy, so the network is shared).

        Args:
            rows: (M,) which of the items each item of that catalogue was; -1 for new ones.

        Raises:
            ConfigError: new items need training.
        """
        if self._item_rows():
            raise ConfigError(f"This {self.method} recommender has weights for each item, so new items need training.")

    @property
    def _fitted_network(self) -> ItemVectorNetwork:
        return self._fitted(self.network)

    # -- saving --------------------------------------------------------------------------------------------------------

    def _extra_config(self) -> dict[str, Any]:
        return {"training": to_dict(self.training), "features": self.feature_shapes}

    def _extra_sources(self) -> dict[str, str]:
        return self.feature_sources

    @classmethod
    def _from_manifest(cls, folder: Path, config: dict[str, Any]) -> Self:
        recommender = cls(
            build(cls.config_class, config["recommender"], where=f"{folder}, recommender"),
            build(TrainingConfig, config["training"], where=f"{folder}, training"),
        )
        recommender.feature_shapes = config["features"]
        return recommender

    def _write(self, folder: Path) -> None:
        write_network(folder, self._fitted_network, self.log)
        np.save(folder / VECTORS, self._vectors.cpu().numpy())

    def _read(self, folder: Path) -> None:
        sources = read_manifest(folder).sources
        self.feature_sources = {name: sources[name] for name in SOURCES if name in sources}
        self.network = self._make_network(len(self.fitted_catalogue))
        self.log = read_network(folder, self.network)
        self.network.to(resolve_device())
        self._vectors = self._read_vectors(folder).to(resolve_device())

    def _read_vectors(self, folder: Path) -> Tensor:
        return torch.from_numpy(np.load(folder / VECTORS))


def _recommender_in(path: PathLike) -> Path:
    """The recommender's folder of a run, or the path itself."""
    folder = Path(path)
    return folder / "recommender" if (folder / "recommender").is_dir() else folder
