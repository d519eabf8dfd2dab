"""What semantic IDs show before anything is trained on them: use of codes, and which pairs of items share a prefix."""

from dataclasses import dataclass

import numpy as np

from tesserec.data.sequences import Sequences
from tesserec.types import FloatArray, IntArray

ROWS_AT_A_TIME = 256  # bounds the (rows, N) block of similarities


def entropy_bits(counts: IntArray | FloatArray) -> float:
    """Entropy of the distribution that counts (or weights) describe.

    >>> entropy_bits(np.array([5, 5, 0, 0]))
    1.0
    """
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # no -0.0


def gini(counts: IntArray) -> float:
    """Inequality of the counts above 0: 0 where all are equal, towards 1 where one has nearly everything.

    Unused codes are left out, as in SIDInspector (arXiv 2606.10375): a level of which half is dead may look even.

    >>> gini(np.array([3, 1, 0]))
    0.25
    """
    used = np.sort(counts[counts > 0]).astype(np.float64)
    n = len(used)
    return float(((2 * np.arange(1, n + 1) - n - 1) * used).sum() / (n * used.sum()))


def popularity_thirds(counts: IntArray) -> IntArray:
    """(N,) 0 head, 1 mid, 2 tail: the most popular items with a third of the events, the next ones, all others.

    Items of equal counts stay together: they are in the third that holds the middle one of all their events, so that
    item numbers decide nothing. Items without events are tail.

    Args:
        counts: (N,) events of each item.

    >>> popularity_thirds(np.array([6, 3, 3, 1, 1, 1, 1, 1, 1, 0])).tolist()
    [0, 1, 1, 2, 2, 2, 2, 2, 2, 2]
    """
    values, place, n_items = np.unique(counts, return_inverse=True, return_counts=True)  # rising counts
    events = values * n_items  # of all items with this count
    total = int(events.sum())
    if not total:
        return np.full(len(counts), 2, dtype=np.int64)
    twice_middle = 2 * (total - np.cumsum(events)) + events
    thirds: IntArray = np.minimum(3 * twice_middle // (2 * total), 2)[place]
    return thirds


def prefix_groups(codes: IntArray) -> IntArray:
    """(L, N): at depth d the number of each item's prefix of d + 1 codes, from 0, in lexicographic order."""
    groups = np.zeros((codes.shape[1], len(codes)), dtype=np.int64)
    group = np.zeros(len(codes), dtype=np.int64)
    for depth in range(codes.shape[1]):
        column = codes[:, depth]
        _, inverse = np.unique(group * (int(column.max()) + 1) + column, return_inverse=True)
        group = groups[depth] = inverse
    return groups


def chance_agreement(groups: IntArray) -> float:
    """How likely two different items, drawn at random, are in the same group.

    >>> chance_agreement(np.array([0, 0, 1, 1]))  # 2 of the 6 pairs
    0.3333333333333333
    """
    n_items, sizes = len(groups), np.bincount(groups).astype(np.float64)
    return float((sizes * (sizes - 1)).sum() / (n_items * (n_items - 1))) if n_items > 1 else 0.0


@dataclass(frozen=True, eq=False)
class Pairs:
    """Weighted pairs of items; a pair may be there in both directions."""

    left: IntArray  # (P,) item rows
    right: IntArray  # (P,)
    weights: FloatArray  # (P,)

    def agreement(self, groups: IntArray) -> float:
        """Weighted share of the pairs whose two items are in the same group; groups: (N,)."""
        return float(self.weights[groups[self.left] == groups[self.right]].sum() / self.weights.sum())


def nearest_neighbours(vectors: FloatArray, rows: IntArray, k: int) -> Pairs:
    """The k nearest items by cosine of each of some items, itself excluded.

    Args:
        vectors: (N, D), N > k.
        rows: (M,) the items to ask for.
    """
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=np.finfo(np.float32).tiny)
    found = np.empty((len(rows), k), dtype=np.int64)
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        part = rows[start : start + ROWS_AT_A_TIME]
        similarity = unit[part] @ unit.T  # (rows, N)
        similarity[np.arange(len(part)), part] = -np.inf
        found[start : start + len(part)] = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    return Pairs(np.repeat(rows, k), found.reshape(-1), np.ones(found.size))


def co_occurrences(sequences: Sequences, n_items: int, *, top: int, max_pairs: int, seed: int) -> Pairs:
    """For every item, the items that most often are in the same sequences: the `top` most frequent ones.

    Items tied for the last places share them in equal parts, so that item numbers decide nothing. Sequences count each
    item once; those with more than 200 items say little about any pair and are left out.

    Args:
        top: neighbours of an item.
        max_pairs: sequences are drawn at random until they have so many pairs.

    Source: the alignment probe of SIDInspector (arXiv 2606.10375), with fractional ties instead of item order.
    """
    from scipy.sparse import csr_array

    rows, index = sequences.positions()
    once = np.unique(rows * n_items + sequences.values[index])  # (user, item) without repeats
    users, items = np.divmod(once, n_items)
    lengths = np.bincount(users, minlength=len(sequences))
    order = np.random.default_rng(seed).permutation(np.flatnonzero((lengths >= 2) & (lengths <= 200)))
    n_pairs = np.cumsum(lengths[order].astype(np.int64) * (lengths[order] - 1) // 2)
    kept = np.zeros(len(sequences), dtype=np.bool_)
    kept[order[: np.searchsorted(n_pairs, max_pairs) + 1]] = True
    users, items = users[kept[users]], items[kept[users]]
    touched = csr_array((np.ones(len(users), dtype=np.int32), (users, items)), shape=(len(sequences), n_items))
    together = (touched.T @ touched).tocoo()
    different = together.row != together.col
    left, right, counts = together.row[different], together.col[different], together.data[different]
    by_count = np.lexsort((-counts, left))
    left, right, counts = left[by_count].astype(np.int64), right[by_count].astype(np.int64), counts[by_count]
    return Pairs(left, right, _top_with_shared_ties(left, counts, n_items, top))


def _top_with_shared_ties(left: IntArray, counts: IntArray, n_items: int, top: int) -> FloatArray:
    """(P,) weights that sum to `top` (or fewer) per item; pairs are sorted by item, then by falling count."""
    degree = np.bincount(left, minlength=n_items)
    starts = np.cumsum(degree) - degree
    full = degree >= top
    cut = np.zeros(n_items, dtype=counts.dtype)  # the count at the last place; 0 where all neighbours fit
    cut[full] = counts[starts[full] + top - 1]
    above, at = counts > cut[left], counts == cut[left]
    n_above = np.bincount(left[above], minlength=n_items)
    n_at = np.bincount(left[at], minlength=n_items)
    share = (top - n_above) / np.maximum(n_at, 1)
    weights: FloatArray = np.where(above, 1.0, np.where(at, share[left], 0.0))
    return weights
