"""Batches whose cost follows the real tokens: long sequences are cut, rows of similar length computed together."""

import numpy as np

from tesserec.data.sequences import Sequences
from tesserec.types import IntArray

PART_OVERHEAD = 192  # what a further part costs, in tokens: the fixed time of a forward and backward pass on 2 cores


def parts_by_length(
    lengths: IntArray, *, max_tokens: int, overhead: int = PART_OVERHEAD, multiple: int = 1
) -> list[IntArray]:
    """Divide the rows of a batch into parts to be padded each to its own longest row, at the least total cost.

    The cost of a part is (longest length x rows) + overhead; the optimum over cuts of the sorted lengths is found by
    dynamic programming over the distinct lengths. Parts of more than `max_tokens` are then cut further: small parts
    stay in the cache.

    Args:
        lengths: (B,) tokens per row, >= 1.
        max_tokens: padded tokens per part, about; a single longer row (or `multiple` of them) is a part of its own.
        multiple: rows come in groups of so many, as far as B allows. Few different shapes matter on a CPU, whose
            bfloat16 kernels are compiled for every new shape, at the price of a product or two.

    Returns:
        Row numbers of each part, shortest parts first; every row occurs once.
    """
    order = np.argsort(lengths, kind="stable")
    last_of_group = np.minimum((np.arange(len(lengths)) // multiple + 1) * multiple, len(lengths)) - 1
    distinct, counts = np.unique(lengths[order][last_of_group], return_counts=True)
    ends = np.cumsum(counts)
    best, cut = np.zeros(len(distinct) + 1), np.zeros(len(distinct) + 1, dtype=np.int64)
    for last in range(1, len(distinct) + 1):  # best[i]: least cost of the i shortest distinct lengths
        rows = ends[last - 1] - np.concatenate([[0], ends[: last - 1]])
        costs = best[:last] + rows * distinct[last - 1] + overhead
        cut[last] = int(costs.argmin())
        best[last] = costs[cut[last]]
    parts: list[IntArray] = []
    last = len(distinct)
    while last:
        first = cut[last]
        rows = order[(ends[first - 1] if first else 0) : ends[last - 1]]
        size = max(max_tokens // int(distinct[last - 1]) // multiple, 1) * multiple
        parts.extend(rows[start : start + size] for start in range(0, len(rows), size)[::-1])
        last = first
    return parts[::-1]


def balanced_order(domains: IntArray, random: np.random.Generator) -> IntArray:
    """Rows in random order, as many of each domain: about as many in all as there are.

    A domain with more rows than its share gives a random subset, one with fewer repeats all of its rows in turn.

    Args:
        domains: (S,) the domain of each row, S >= 1.

    Returns:
        (n,) row numbers, n = (number of domains) * ceil(S / number of domains).
    """
    names = np.unique(domains)
    share = -(-len(domains) // len(names))
    drawn = list[IntArray]()
    for name in names:
        rows = np.flatnonzero(domains == name)
        rounds = [random.permutation(rows) for _ in range(-(-share // len(rows)))]
        drawn.append(np.concatenate(rounds)[:share])
    return random.permutation(np.concatenate(drawn))


def windows(sequences: Sequences, n_targets: int) -> Sequences:
    """Cut sequences so that every item but the first of each is the target of exactly one window.

    A window is an item to start from and up to `n_targets` items to predict, one after the other; neighbouring windows
    share one item. Counted from the end, all windows of a sequence but its first are full. Sequences of fewer than two
    items have none.
    """
    n_windows = np.maximum(-(-(sequences.lengths - 1) // n_targets), 0)
    rows = np.repeat(np.arange(len(sequences)), n_windows)
    before = np.arange(len(rows)) - (np.cumsum(n_windows) - n_windows)[rows]  # windows of the same sequence before this
    later = n_windows[rows] - 1 - before
    stops = sequences.stops[rows] - later * n_targets
    starts = np.maximum(sequences.starts[rows], stops - n_targets - 1)
    return Sequences(sequences.values, starts, stops, sequences.times)
