"""What lists of recommended items are like apart from their hits: how many items they reach, which, and how alike."""

import numpy as np

from tesserec.functional.id_statistics import gini
from tesserec.types import FloatArray, IntArray

CELLS = 1 << 24  # numbers gathered at a time, for the vectors of many lists


def mid_percentiles(counts: IntArray) -> FloatArray:
    """(N,) the share of items with fewer events, and half of those with as many: .5 on average, whatever the counts.

    >>> mid_percentiles(np.array([0, 7, 7, 9])).tolist()
    [0.125, 0.5, 0.5, 0.875]
    """
    _, place, n_items = np.unique(counts, return_inverse=True, return_counts=True)  # rising counts
    middle: FloatArray = ((np.cumsum(n_items) - n_items / 2) / len(counts))[place]
    return middle


def list_means(lists: IntArray, values: FloatArray) -> FloatArray:
    """(M,) the mean of a value of the items of each list; NaN for an empty list.

    Args:
        lists: (M, k) item rows; -1 where there is no item.
        values: (N,) of each item.
    """
    filled = lists >= 0
    sums = np.where(filled, values[lists], 0.0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        means: FloatArray = sums / filled.sum(axis=1)
    return means


def coverage(lists: IntArray, n_items: int) -> float:
    """The share of the catalogue that is in any list.

    >>> coverage(np.array([[0, 1], [1, -1]]), 4)
    0.5
    """
    return len(np.unique(lists[lists >= 0])) / n_items


def exposure_gini(lists: IntArray, n_items: int) -> float:
    """How unevenly the catalogue shares the places of the lists: 0 evenly, towards 1 all by one item.

    Items in no list count here, which `gini` leaves out: with a share s of items in some list it is 1 - s (1 - gini).

    >>> exposure_gini(np.array([[0, 1], [0, 1]]), 4)
    0.5
    """
    times = np.bincount(lists[lists >= 0], minlength=n_items)
    return 1 - coverage(lists, n_items) * (1 - gini(times)) if times.any() else float("nan")


def mean_distances(lists: IntArray, vectors: FloatArray) -> FloatArray:
    """(M,) the mean cosine distance of the pairs within each list: 0 for lists of one text; NaN without a pair.

    Args:
        lists: (M, k) distinct item rows in a list; -1 where there is no item.
        vectors: (N, D); a vector of zeros says nothing, so its item is passed over.

    The sum over pairs follows from the length of the summed unit vectors u: |sum u|^2 = n + 2 x sum of pairs.
    """
    lengths = np.linalg.norm(vectors, axis=1)
    units = vectors / np.where(lengths > 0, lengths, 1.0)[:, None]
    counted = (lists >= 0) & (lengths[lists] > 0)
    sums = np.zeros((len(lists), vectors.shape[1]))
    size = max(1, CELLS // max(lists.shape[1] * vectors.shape[1], 1))
    for start in range(0, len(lists), size):
        block = slice(start, start + size)
        sums[block] = (units[lists[block]] * counted[block, :, None]).sum(axis=1)
    n = counted.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 1, 1 - ((sums**2).sum(axis=1) - n) / (n * (n - 1)), np.nan)
