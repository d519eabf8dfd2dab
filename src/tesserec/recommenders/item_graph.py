"""Item graph: recommend what others took next after the latest two items, and nothing is trained.

Consecutive items of the training sequences are the edges of a graph. The list begins with five successors of the
latest item and one item two steps away, then three and one for the item before it; successors are ordered by text
similarity plus how often the transition occurred. It beats many published models, so it belongs in every table.

Paper: the training-free graph heuristic TGH, in its variant TGH-2 (arXiv 2605.07125).

Differences from the paper, each with its reason:

- Similarity is the cosine of TF-IDF vectors instead of a language model's: no download, and seconds to make.
- Under-full lists go on with further blocks of the same quotas, then with all other items by similarity, never with
  random items: the same question gets the same answer, and every item has a rank. Equal scores: the more popular first.
- Only TGH-2; TGH-1, which looks at the latest item alone, was below it on every data set.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tesserec.data.dataset import Dataset
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split
from tesserec.errors import ConfigError
from tesserec.progress import Progress
from tesserec.recommenders.base import ScoringRecommender
from tesserec.types import FloatArray, IntArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

COUNT_WEIGHT = 0.5  # of the transition count beside the cosine, as published
# A block of ten places: (how far back the source item is, its ring, first place in the block, places).
QUOTAS = ((0, 0, 0, 5), (0, 1, 5, 1), (1, 0, 6, 3), (1, 1, 9, 1))
BLOCK_PLACES = 10


@dataclass(frozen=True, kw_only=True)
class ItemGraphConfig:
    """What decides the order of successors beside their counts."""

    features: Literal["tf-idf", "none"] = "tf-idf"  # of the items' texts; items without text are similar to none


def transition_counts(train: Sequences, n_items: int) -> "csr_array":
    """(N, N) sparse: how often item b directly follows item a in the training sequences; repeats (a = b) left out."""
    from scipy.sparse import csr_array

    users, index = train.positions()
    later = index > train.starts[users]
    before, after = train.values[index[later] - 1], train.values[index[later]]
    moved = before != after
    ones = np.ones(int(moved.sum()), dtype=np.float32)
    counts = csr_array((ones, (before[moved], after[moved])), shape=(n_items, n_items))
    counts.sum_duplicates()
    return counts


def text_features(dataset: Dataset) -> "csr_array":
    """(N, words) TF-IDF vectors of length 1; empty rows for items without text."""
    from scipy.sparse import csr_array
    from sklearn.feature_extraction.text import TfidfVectorizer

    from tesserec.text.templates import render

    texts = render(dataset.items)
    if not any(re.search(r"\w\w", text) for text in texts):  # what TF-IDF takes for a word
        return csr_array((len(texts), 1), dtype=np.float32)
    return csr_array(TfidfVectorizer(dtype=np.float32).fit_transform(texts))


def rings(counts: "csr_array", features: "csr_array", popularity: IntArray) -> tuple[Sequences, Sequences]:
    """The items at distance one and two of every item, best first.

    Distance one is scored by cosine + 0.5 log(1 + c) / max log(1 + c), distance two by cosine; equal scores are broken
    by popularity, then by item row.
    """
    edges = (counts > 0).astype(np.float32)
    two_steps = (edges @ edges).tocsr()
    two_steps.setdiag(0)
    two_steps = (two_steps - two_steps.multiply(edges)).tocsr()  # the rest of those at distance one
    two_steps.eliminate_zeros()

    sources, successors = counts.nonzero()
    logs = np.log1p(counts.tocsr()[sources, successors])
    most = np.zeros(counts.shape[0])
    np.maximum.at(most, sources, logs)
    first = _cosines(features, sources, successors) + COUNT_WEIGHT * logs / most[sources]
    second_sources, second = two_steps.nonzero()
    return (
        _ranked(sources, successors, first, popularity),
        _ranked(second_sources, second, _cosines(features, second_sources, second), popularity),
    )


def _cosines(features: "csr_array", rows: IntArray, others: IntArray, block: int = 1 << 16) -> FloatArray:
    """(E,) cosine of each pair of unit rows."""
    cosines = np.zeros(len(rows), dtype=np.float32)
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        cosines[part] = features[rows[part]].multiply(features[others[part]]).sum(axis=1)
    return cosines


def _ranked(sources: IntArray, items: IntArray, scores: FloatArray, popularity: IntArray) -> Sequences:
    """Each source's items in order of score."""
    order = np.lexsort((items, -popularity[items], -scores, sources))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=len(popularity)))])
    return Sequences.from_offsets(items[order].astype(np.int32), offsets)


class ItemGraph(ScoringRecommender):
    """Next items by the transitions of the latest two items."""

    method = "item-graph"
    config_class = ItemGraphConfig

    def __init__(self, config: ItemGraphConfig | None = None) -> None:
        super().__init__(config or ItemGraphConfig())
        self.rings: tuple[Sequences, ...] = ()  # items at distance 1 and 2 of every item, best first
        self.features: Any = None  # csr_array (N, words)

    def _fit(self, split: Split, checkpoints: Path | None, progress: Progress) -> None:
        from scipy.sparse import csr_array

        try:
            wanted = self.config.features == "tf-idf"
            self.features = text_features(split.dataset) if wanted else csr_array((split.n_items, 1), dtype=np.float32)
        except ConfigError:
            progress.say("the items have no text: transitions and popularity alone decide")
            self.features = csr_array((split.n_items, 1), dtype=np.float32)
        counts = transition_counts(split.train, split.n_items)
        self.rings = rings(counts, self.features, self.train_counts)
        progress.say(f"item graph of {counts.nnz} edges")

    def score(self, histories: Sequences) -> FloatArray:
        """(M, N): places in the list as whole numbers above 2; below them similarity to the latest item, in [0, 2)."""
        scores = np.tile(self.train_counts / (1 + self.train_counts.max()), (len(histories), 1)).astype(np.float32)
        scores *= 1e-3  # a tie-break
        filled = np.flatnonzero(histories.lengths)
        latest = histories.values[histories.stops[filled] - 1]
        scores[filled] += (self.features[latest] @ self.features.T).toarray()
        n_places = 2 + BLOCK_PLACES * (1 + max(int(ring.lengths.max(initial=0)) for ring in self.rings))
        for back, ring, first_place, n_in_block in QUOTAS:
            users = np.flatnonzero(histories.lengths > back)
            sources = histories.values[histories.stops[users] - 1 - back]
            listed = self.rings[ring].take(sources)
            rows, index = listed.positions()
            rank = index - listed.starts[rows]
            place = rank // n_in_block * BLOCK_PLACES + first_place + rank % n_in_block
            at = users[rows], listed.values[index]  # each pair once, as a ring lists an item once
            scores[at] = np.maximum(scores[at], (n_places - place).astype(np.float32))
        return scores

    def _write(self, folder: Path) -> None:
        for number, ring in enumerate(self.rings, start=1):
            values, offsets = ring.flat()
            np.save(folder / f"ring_{number}_values.npy", values)
            np.save(folder / f"ring_{number}_offsets.npy", offsets)
        for part in ("data", "indices", "indptr"):
            np.save(folder / f"features_{part}.npy", getattr(self.features, part))
        np.save(folder / "features_shape.npy", np.array(self.features.shape))

    def _read(self, folder: Path) -> None:
        from scipy.sparse import csr_array

        self.rings = tuple(
            Sequences.from_offsets(
                np.load(folder / f"ring_{number}_values.npy"), np.load(folder / f"ring_{number}_offsets.npy")
            )
            for number in (1, 2)
        )
        data, indices, indptr = (np.load(folder / f"features_{part}.npy") for part in ("data", "indices", "indptr"))
        self.features = csr_array((data, indices, indptr), shape=tuple(np.load(folder / "features_shape.npy")))
