"""What every recommender answers, and the parts that all of them share.

`recommend` checks and resolves what users pass (ids, item sets, empty histories) once, here; a method implements
`_recommend` and `rank` on item rows. Methods that score the whole catalogue derive from `ScoringRecommender` and
implement only `score`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch

from tesserec.artifacts import open_artifact, require_same, write_artifact
from tesserec.config import build, to_dict
from tesserec.data.catalogue import Catalogue
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Cases, Split
from tesserec.errors import ArtifactError, ConfigError, DataError
from tesserec.progress import SILENT, Progress
from tesserec.training.loop import TrainingLog
from tesserec.types import BoolArray, FloatArray, IntArray, PathLike

BLOCK = 1024  # histories scored at a time: bounds the (BLOCK, N) score matrix

Histories = Sequences | Sequence[Sequence[str]]
ItemSet = Iterable[str] | BoolArray
Fitted = TypeVar("Fitted")


@dataclass(frozen=True, eq=False)
class Recommendations:
    """The k best items for each of M histories, best first."""

    catalogue: Catalogue
    items: IntArray  # (M, k) item rows; -1 where fewer than k items could be recommended
    scores: FloatArray  # (M, k) float32, larger is better; -inf there
    by_popularity: BoolArray | None = None  # (M,) True: no item of the history is known, these are the most popular

    def ids(self) -> list[list[str]]:
        """Item ids per history; rows may be shorter than k."""
        return [[self.catalogue.item_ids[item] for item in row if item >= 0] for row in self.items.tolist()]


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where the target of each of M cases stands among the candidate items.

    Items with equal scores share their place: metrics take the expectation over all orders of a tie, so no order of
    item ids can help or harm (tesserec.functional.metrics).
    """

    found: BoolArray  # (M,) False: unranked, because no beam reached it or it was no candidate; counts as a miss
    ahead: IntArray  # (M,) items scored above the target
    tied: IntArray  # (M,) items with the target's score, itself included; for generative models, the items of its ID
    id_rank: IntArray  # (M,) place, from 1, of the target's semantic ID (without IDs: of its score): the papers' way
    exact: BoolArray | None = None  # (M,) for beams: True where the beam's list is proven equal to exact ranking
    lists: IntArray | None = None  # (M, k) item rows of the k best, best first, if asked for; -1 where there are fewer

    def take(self, rows: IntArray) -> "Ranks":
        """Those of some of the cases."""
        return Ranks(**{name: column[rows] for name, column in vars(self).items() if column is not None})


@dataclass(frozen=True, eq=False)
class Candidates:
    """Which items may be recommended to each of M histories."""

    allowed: BoolArray | None = None  # (N,) for all histories, or (M, N); None: the whole catalogue
    denied: Sequences | None = None  # M sequences of item rows, such as the histories themselves

    def take(self, rows: slice) -> "Candidates":
        """The part for some of the histories."""
        allowed = self.allowed[rows] if self.allowed is not None and self.allowed.ndim == 2 else self.allowed
        index = np.arange(len(self.denied))[rows] if self.denied is not None else None
        return Candidates(allowed, self.denied.take(index) if self.denied is not None and index is not None else None)

    def mask(self, scores: FloatArray) -> None:
        """Set the scores (M, N) of items that are not candidates to -inf, in place."""
        if self.allowed is not None:
            np.copyto(scores, -np.inf, where=~np.broadcast_to(self.allowed, scores.shape))
        if self.denied is not None:
            rows, index = self.denied.positions()
            scores[rows, self.denied.values[index]] = -np.inf


class Recommender(ABC):
    """Next-item recommendation from a history of items.

    Class attributes:
        method: the name in recipes and manifests.
        config_class: the frozen dataclass of its settings.
        is_trained: whether the constructor takes `training: TrainingConfig`.
        needs_semantic_ids: whether it takes `semantic_ids: SemanticIds`.
        needs_embeddings: whether it takes `embeddings: Embeddings`.
        is_generative: whether it ranks by beam search, or exactly where that is asked for; it then has
            `beam_width: int` and `exact: bool`, which may be changed at any time.
    """

    method: ClassVar[str]
    config_class: ClassVar[type[Any]]
    is_trained: ClassVar[bool] = False
    needs_semantic_ids: ClassVar[bool] = False
    needs_embeddings: ClassVar[bool] = False
    is_generative: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        self.config = config
        self.catalogue: Catalogue | None = None  # set by fit and load
        self.train_counts: IntArray = np.zeros(0, dtype=np.int64)  # (N,) events per item in training
        self.dataset_fingerprint = ""

    # -- fitting ---------------------------------------------------------------------------------------------------

    def fit(self, split: Split, *, checkpoints: PathLike | None = None, progress: Progress = SILENT) -> Self:
        """Learn from the training part; the validation part may only be used to decide when to stop.

        Args:
            split: the data.
            checkpoints: a folder for checkpoints. If it holds one of an interrupted run of this very
                configuration and data, training goes on from there and ends with the same weights.
            progress: who listens.

        Raises:
            DataError, ConfigError: data and configuration do not fit.
            TrainingError: the loss became non-finite.
        """
        self.catalogue = split.dataset.catalogue
        self.train_counts = split.train_counts
        self.dataset_fingerprint = split.dataset.fingerprint
        self._fit(split, Path(checkpoints) if checkpoints is not None else None, progress)
        return self

    @abstractmethod
    def _fit(self, split: Split, checkpoints: Path | None, progress: Progress) -> None: ...

    @property
    def fitted_catalogue(self) -> Catalogue:
        """The catalogue, once fitted or loaded."""
        return self._fitted(self.catalogue)

    def _fitted(self, part: Fitted | None) -> Fitted:
        """What fit and load set, once they have."""
        if part is None:
            raise ConfigError(
                f"This {self.method} recommender has not been fitted. Call fit(split), or load a trained one."
            )
        return part

    @property
    def n_parameters(self) -> int:
        """Trained numbers; 0 for methods without any."""
        return 0

    @property
    def training_logs(self) -> list[TrainingLog]:
        """Of every training that made it, in their order; none of methods that are not trained.

        Whatever a method calls the attributes that it keeps them in, none is forgotten.
        """
        return [part for part in vars(self).values() if isinstance(part, TrainingLog) and part.rows]

    @property
    def sizes(self) -> dict[str, float]:
        """What else a method has to say about its size, for the protocol card."""
        return {}

    @classmethod
    def makes_semantic_ids(cls, config: Any) -> bool:
        """Whether one of this configuration learns IDs of its own: once fitted it has the property `semantic_ids`."""
        return False

    @classmethod
    def told(cls, config: Any) -> str:
        """What `rank` is told of a target beyond its history, in words; "": nothing.

        It stands in the protocol of the reports, which are then compared with none that were told nothing.
        """
        return ""

    @classmethod
    def reads(cls, config: Any) -> tuple[str, ...]:
        """Paths that training reads under this configuration: a run is repeated when what they hold changes.

        Raises:
            ConfigError: the configuration needs a path that is not set.
        """
        return ()

    # -- answering -------------------------------------------------------------------------------------------------

    def recommend(
        self,
        histories: Histories,
        k: int = 10,
        *,
        allow: ItemSet | None = None,
        deny: ItemSet | None = None,
        exclude_seen: bool = False,
    ) -> Recommendations:
        """The k items that each history's user most likely takes next.

        Args:
            histories: M histories, oldest item first: lists of item ids, or `Sequences` of item rows. Ids that the
                catalogue does not have are passed over. A history that is empty (then) gets the most popular items of
                the training part, scored by their counts; the answer's `by_popularity` says which do.
            k: >= 1. Where fewer items can be recommended, the rest of the row is -1 with score -inf.
            allow: only these items, as ids or as a mask (N,) or (M, N).
            deny: none of these items, in the same forms.
            exclude_seen: nothing that is in the history.

        Raises:
            ConfigError: k < 1, or the recommender has not been fitted.
            DataError: an id in `allow` or `deny` is unknown, or a mask has the wrong shape.
        """
        catalogue = self.fitted_catalogue
        if k < 1:
            raise ConfigError(f"k is {k}. Ask for 1 item or more.")
        rows = (
            histories
            if isinstance(histories, Sequences)
            else Sequences.from_lists([catalogue.known(h) for h in histories])
        )
        allowed = self._mask(allow, "allow")
        if deny is not None:
            kept = ~np.asarray(self._mask(deny, "deny"))
            allowed = kept if allowed is None else allowed & kept
        candidates = Candidates(allowed, rows if exclude_seen else None)
        items = np.full((len(rows), k), -1, dtype=np.int64)
        scores = np.full((len(rows), k), -np.inf, dtype=np.float32)
        for block in blocks(len(rows)):
            part = rows.take(np.arange(len(rows))[block])
            empty = part.lengths == 0
            if empty.any():
                popularity = np.tile(self.train_counts.astype(np.float32), (len(part), 1))
                candidates.take(block).mask(popularity)
                items[block], scores[block] = top_k(popularity, k)
            if not empty.all():
                answer = self._recommend(part, k, candidates.take(block))
                items[block][~empty], scores[block][~empty] = answer.items[~empty], answer.scores[~empty]
        return Recommendations(catalogue, items, scores, rows.lengths == 0)

    @abstractmethod
    def _recommend(self, histories: Sequences, k: int, candidates: Candidates) -> Recommendations:
        """As `recommend`, on at most BLOCK histories of item rows; what it says of an empty history is ignored."""

    @property
    def ranking(self) -> str:
        """How `rank` finds the places, in words for the protocol card."""
        return "exact, every item scored"

    @abstractmethod
    def rank(
        self, cases: Cases, *, exclude_seen: bool = False, list_length: int = 0, progress: Progress = SILENT
    ) -> Ranks:
        """Rank every case's target against the whole catalogue (less the history, if `exclude_seen`).

        Args:
            cases: of the data that the recommender was fitted on.
            exclude_seen: items of the history are no candidates.
            list_length: also keep so many of the best items of every case; 0: keep none.
            progress: who listens.
        """

    def score(self, histories: Sequences) -> FloatArray:
        """(M, N) float32 scores of all items; not every method can.

        Raises:
            ConfigError: this method cannot score all items.
        """
        raise ConfigError(
            f"{self.method} generates items and does not score the whole catalogue. Use recommend or rank."
        )

    def _mask(self, items: ItemSet | None, name: str) -> BoolArray | None:
        n_items = len(self.fitted_catalogue)
        if items is None:
            return None
        if isinstance(items, np.ndarray):
            if items.dtype != np.bool_ or items.shape[-1] != n_items or items.ndim > 2:
                raise DataError(
                    f"{name} is an array {items.dtype}{items.shape}. "
                    f"Give a mask of bool ({n_items},) or (M, {n_items})."
                )
            return items
        mask = np.zeros(n_items, dtype=np.bool_)
        mask[[self.fitted_catalogue.index_of(item) for item in items]] = True
        return mask

    # -- saving ----------------------------------------------------------------------------------------------------

    @property
    def full_config(self) -> dict[str, Any]:
        """The method and all its settings, as manifests and protocol cards record them."""
        return {"method": self.method, "recommender": to_dict(self.config), **self._extra_config()}

    @property
    def sources(self) -> dict[str, str]:
        """Fingerprints of what the recommender was made from."""
        catalogue = self.fitted_catalogue.fingerprint
        return {"dataset": self.dataset_fingerprint, "catalogue": catalogue, **self._extra_sources()}

    def save(self, folder: PathLike) -> None:
        """Write as an artefact of kind `recommender`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        catalogue = self.fitted_catalogue
        sizes = {"items": len(catalogue), "parameters": self.n_parameters}
        with write_artifact(
            folder, kind="recommender", config=self.full_config, sizes=sizes, sources=self.sources
        ) as staging:
            items = pa.table({"item_id": list(catalogue.item_ids), "train_count": self.train_counts})
            pq.write_table(items, staging / "items.parquet")
            self._write(staging)

    @classmethod
    def load(cls, folder: PathLike) -> Self:
        """Open a trained recommender; it recommends exactly what it did before.

        Raises:
            ArtifactError: the folder holds no recommender, one of another method, or damaged files.
        """
        import pyarrow.parquet as pq

        with open_artifact(folder, kind="recommender") as (path, manifest):
            if manifest.config["method"] != cls.method:
                raise ArtifactError(
                    f"{path} holds a {manifest.config['method']} recommender, not a {cls.method}. "
                    f"Give a {cls.method} one, or load it with load_recommender."
                )
            recommender = cls._from_manifest(path, manifest.config)
            items = pq.read_table(path / "items.parquet")
            recommender.catalogue = Catalogue(items["item_id"].to_pylist())
            recommender.train_counts = items["train_count"].to_numpy()
            recommender.dataset_fingerprint = manifest.sources["dataset"]
            found, expected = recommender.catalogue.fingerprint, manifest.sources["catalogue"]
            require_same("items.parquet", found, "the manifest", expected, remedy="Train the recommender again.")
            recommender._read(path)
        return recommender

    @classmethod
    def _from_manifest(cls, folder: Path, config: dict[str, Any]) -> Self:
        """An unfitted instance as the manifest describes it; methods with more inputs than a config override this."""
        return cls(build(cls.config_class, config["recommender"], where=f"{folder}, recommender"))

    def _extra_config(self) -> dict[str, Any]:
        """More for the manifest's config, such as the training configuration."""
        return {}

    def _extra_sources(self) -> dict[str, str]:
        """More artefacts that this one was made from."""
        return {}

    @abstractmethod
    def _write(self, folder: Path) -> None:
        """Write what was learned."""

    @abstractmethod
    def _read(self, folder: Path) -> None:
        """Read what `_write` wrote; the catalogue and the training counts are there already."""


class ScoringRecommender(Recommender):
    """A recommender that scores the whole catalogue: implement `score` (and `_fit`, `_write`, `_read`)."""

    @abstractmethod
    def score(self, histories: Sequences) -> FloatArray:
        """(M, N) float32, larger is better, -inf for items that cannot be recommended. The array is the caller's."""

    def _score_cases(self, cases: Cases) -> FloatArray:
        """What `rank` goes by; a method that is to know more of a case than its history says so in its settings."""
        return self.score(cases.histories)

    def _recommend(self, histories: Sequences, k: int, candidates: Candidates) -> Recommendations:
        scores = self.score(histories)
        candidates.mask(scores)
        return Recommendations(self.fitted_catalogue, *top_k(scores, k))

    def rank(
        self, cases: Cases, *, exclude_seen: bool = False, list_length: int = 0, progress: Progress = SILENT
    ) -> Ranks:
        found = np.zeros(len(cases), dtype=np.bool_)
        ahead, tied = np.zeros(len(cases), dtype=np.int64), np.ones(len(cases), dtype=np.int64)
        id_rank = np.zeros(len(cases), dtype=np.int64)
        lists = np.full((len(cases), list_length), -1, dtype=np.int64)
        with progress.task("ranking", len(cases)) as task:
            for block in blocks(len(cases)):
                part = cases.take(np.arange(len(cases))[block])
                scores = self._score_cases(part)
                Candidates(denied=part.histories if exclude_seen else None).mask(scores)
                target = scores[np.arange(len(part)), part.targets][:, None]
                found[block] = np.isfinite(target[:, 0])
                ahead[block] = (scores > target).sum(axis=1)
                tied[block] = np.maximum((scores == target).sum(axis=1), 1)
                id_rank[block] = ahead[block] + 1
                if list_length:
                    lists[block] = top_k(scores, list_length)[0]
                task.advance(len(part))
        return Ranks(found, ahead, tied, id_rank, lists=lists if list_length else None)


def blocks(n_rows: int, size: int = BLOCK) -> Iterator[slice]:
    """Slices that cover n_rows, `size` at a time."""
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


def top_k(scores: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """The k largest of each row, best first; equal scores in item order, so the answer is the same everywhere.

    Args:
        scores: (M, N) float32; -inf marks items that cannot be recommended.

    Returns:
        items (M, k) int64 and scores (M, k) float32; -1 and -inf where a row has fewer than k.
    """
    n_rows, n_items = scores.shape
    items = np.full((n_rows, k), -1, dtype=np.int64)
    best = np.full((n_rows, k), -np.inf, dtype=np.float32)
    width = min(k, n_items)
    # One more than wanted shows whether the last place is tied; of equal scores torch returns any, in any order.
    found = torch.from_numpy(scores).topk(min(width + 1, n_items), dim=1)
    values, columns = found.values.numpy(), found.indices.numpy()
    order = np.lexsort((columns[:, :width], -values[:, :width]))
    items[:, :width], best[:, :width] = np.take_along_axis(columns, order, axis=1), values[:, :width]
    last_tied = (values[:, width - 1] == values[:, -1]) & (n_items > width) & (values[:, -1] > -np.inf)
    if last_tied.any():
        items[last_tied, :width], best[last_tied, :width] = _in_item_order(scores[last_tied], width)
    items[~np.isfinite(best)] = -1
    return items, best


def _in_item_order(scores: FloatArray, width: int) -> tuple[IntArray, FloatArray]:
    """The `width` <= N largest of each row and their scores, the first of equal ones."""
    threshold = -np.partition(-scores, width - 1, axis=1)[:, width - 1 : width]
    rank_in_ties = np.cumsum(scores == threshold, axis=1)
    room = width - (scores > threshold).sum(axis=1, keepdims=True)
    chosen = (scores > threshold) | ((scores == threshold) & (rank_in_ties <= room))
    columns = np.nonzero(chosen)[1].reshape(len(scores), width)
    values = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)
