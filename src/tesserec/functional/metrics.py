"""Ranking metrics with one target per case, in expectation over the order of tied items.

A target has `ahead` items strictly before it and shares its place with `tied` items, itself included: items of exactly
equal score, or the items of one semantic ID. Every order of a tie is taken to be equally likely, so the target stands
on each of the places ahead + 1 ... ahead + tied with probability 1 / tied. A metric gives each place a gain and is 0
after the cut-off; its expected value is then a difference of two entries of the gains' running sum, over `tied`.
Nothing is sampled, and no order of item ids can help or harm.

Source of the tie rule for shared IDs: arXiv 2605.25330 (item-level scoring of semantic IDs).
"""

from collections.abc import Callable

import numpy as np

from tesserec.config import choose
from tesserec.errors import ConfigError
from tesserec.types import BoolArray, FloatArray, IntArray

GAINS: dict[str, Callable[[FloatArray], FloatArray]] = {  # of places 1, 2, 3, ...
    "recall": np.ones_like,  # with one target per case: the hit rate
    "ndcg": lambda place: 1 / np.log2(place + 1),
    "mrr": lambda place: 1 / place,
}


def expected_metric(name: str, found: BoolArray, ahead: IntArray, tied: IntArray) -> FloatArray:
    """A metric of every case, in expectation over all orders of tied items.

    Args:
        name: `recall@K`, `ndcg@K` or `mrr@K` with K >= 1.
        found: (M,) False: the target is unranked, which counts 0.
        ahead: (M,) items scored above the target.
        tied: (M,) >= 1, items with the target's score or semantic ID, itself included.

    Returns:
        (M,) float64 in [0, 1].

    Raises:
        ConfigError: there is no metric of this name.

    Three items share the places 9, 10 and 11, so two of the three orders put the target into the top 10:

        >>> import numpy as np
        >>> one = (np.array([True]), np.array([8]), np.array([3]))
        >>> expected_metric("recall@10", *one).round(4).tolist()
        [0.6667]
        >>> expected_metric("mrr@10", *one).round(4).tolist()  # (1/9 + 1/10 + 0) / 3
        [0.0704]
    """
    gain, cutoff = parse_metric(name)
    cutoff = min(cutoff, int((ahead + tied).max(initial=0)))  # no target stands further behind
    places = np.arange(1.0, cutoff + 1)
    total = np.concatenate(
        [np.zeros(1), np.cumsum(GAINS[gain](places))]
    )  # total[r]: gains of places 1..r      (K + 1,)
    first, last = np.minimum(ahead, cutoff), np.minimum(ahead + tied, cutoff)
    return np.where(found, (total[last] - total[first]) / tied, 0.0)


def id_metric(name: str, found: BoolArray, id_rank: IntArray) -> FloatArray:
    """A metric of every case as most papers count it: any item with the target's semantic ID is a hit.

    It equals the expected metric where no IDs are shared, and is larger where some are. Never mix the two in a table.

    Args:
        name: `id_recall@K`, `id_ndcg@K` or `id_mrr@K` with K >= 1.
        found: (M,) False: no beam reached the target's ID, which counts 0.
        id_rank: (M,) place of the target's ID among the distinct IDs, from 1.

    Returns:
        (M,) float64 in [0, 1].

        >>> import numpy as np
        >>> id_metric("id_ndcg@10", np.array([True, True, False]), np.array([1, 3, 1])).round(4).tolist()
        [1.0, 0.5, 0.0]
    """
    return expected_metric(name.removeprefix("id_"), found, id_rank - 1, np.ones_like(id_rank))


def parse_metric(name: str) -> tuple[str, int]:
    """`ndcg@10` -> ("ndcg", 10).

    Raises:
        ConfigError: no such metric, or no whole number >= 1 after the @.
    """
    gain, _, cutoff = name.partition("@")
    choose(gain, GAINS, what="metric")
    if not cutoff.isdecimal() or int(cutoff) < 1:
        raise ConfigError(f"{name!r} has no cut-off. Write the metric as in {gain}@10.")
    return gain, int(cutoff)
