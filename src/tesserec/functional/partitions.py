"""Two ways of grouping the same items, compared: up to the names of the groups, and against chance."""

import numpy as np

from tesserec.types import IntArray


def relabelled(codes: IntArray, reference: IntArray) -> IntArray:
    """Rename codes one to one, so that as many items as possible have their code of the reference.

    Args:
        codes: (N,) a code per item.
        reference: (N,) another one per item.

    Returns:
        (N,) codes of the reference; -1 for codes that got none, as the reference has fewer.

    Source: linear assignment on the table of counts (Kuhn 1955), as scipy solves it.

    >>> relabelled(np.array([7, 7, 3, 3]), np.array([0, 0, 1, 0])).tolist()
    [0, 0, 1, 1]
    """
    from scipy.optimize import linear_sum_assignment

    names, wanted = np.unique(reference, return_inverse=True)
    old_names, old = np.unique(codes, return_inverse=True)
    shape = len(old_names), len(names)
    shared = np.bincount(old * shape[1] + wanted, minlength=shape[0] * shape[1]).reshape(shape)  # items with both
    rows, columns = linear_sum_assignment(shared, maximize=True)
    new = np.full(len(old_names), -1, dtype=np.int64)
    new[rows] = names[columns]
    return new[old]


def adjusted_rand(groups: IntArray, others: IntArray) -> float:
    """How far two groupings agree on which pairs of items belong together: 1 fully, 0 as chance would have it.

    Args:
        groups: (N,) number of each item's group, from 0; others: (N,) of its group in the other grouping.

    Source: Hubert and Arabie 1985, "Comparing partitions", equation 5, on the counts of shared items.

    >>> adjusted_rand(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]))
    1.0
    """
    shared = np.unique(groups * (int(others.max()) + 1) + others, return_counts=True)[1]
    both = _pairs(shared)  # together in both
    one, other = _pairs(np.bincount(groups)), _pairs(np.bincount(others))
    every = len(groups) * (len(groups) - 1) / 2
    expected = one * other / every if every else 0.0
    most = (one + other) / 2
    return 1.0 if most == expected else float((both - expected) / (most - expected))


def _pairs(sizes: IntArray) -> float:
    """Pairs of items within groups of these sizes."""
    counts = sizes.astype(np.float64)
    return float((counts * (counts - 1) / 2).sum())
