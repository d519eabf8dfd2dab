"""How much of the semantic IDs stays when they are made again: with another seed, or after the catalogue changed."""

from dataclasses import dataclass

import numpy as np

from tesserec.errors import DataError
from tesserec.evaluation.tearsheet import semantic_levels
from tesserec.functional.id_statistics import prefix_groups
from tesserec.functional.partitions import adjusted_rand, relabelled
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.types import IntArray

SHOWN_ITEMS = 3  # in an error


@dataclass(frozen=True)
class Stability:
    """Two sets of semantic IDs on the items that both have; entry d of a tuple is about the first d + 1 codes.

    Codes of an extra level, which only number colliding items, are left aside except in `changed`; of two numbers of
    levels the smaller one counts.
    """

    items: int  # that both have
    added: int  # items of the second alone
    removed: int  # items of the first alone
    changed: float  # share of the items whose whole ID, an extra level included, is another one
    churn: tuple[float, ...]  # share of the items whose first codes are others
    churn_relabelled: tuple[float, ...]  # the same after renaming the second's codes, level by level, to match best
    rand: tuple[float, ...]  # adjusted Rand index of the two groupings by first codes: 1 the same, 0 chance


def stability(first: SemanticIds, second: SemanticIds) -> Stability:
    """Compare two sets of semantic IDs, matched by item id.

    Raw churn asks whether published IDs stay. Relabelled churn and the Rand index ask whether two fits found the same
    structure: k-means from another seed may number the same clusters differently.

    Raises:
        DataError: no item is in both.

    Source: probe D6 of SIDInspector (arXiv 2606.10375) for raw churn; the rest is ours (docs/tokenizers.md).
    """
    of_first, of_second = first.catalogue, second.catalogue
    shared = [item_id for item_id in of_first.item_ids if item_id in of_second]
    if not shared:
        raise DataError(
            f"None of the {len(of_first)} items of the first semantic IDs (such as "
            f"{list(of_first.item_ids[:SHOWN_ITEMS])}) is among the {len(of_second)} of the second (such as "
            f"{list(of_second.item_ids[:SHOWN_ITEMS])}). Compare IDs of one shop."
        )
    old, new = first.codes[of_first.known(shared)], second.codes[of_second.known(shared)]
    changed = np.ones(len(shared), dtype=np.bool_) if old.shape != new.shape else (old != new).any(axis=1)
    depth = min(semantic_levels(first), semantic_levels(second))
    old, new = old[:, :depth], new[:, :depth]
    renamed = np.stack([relabelled(codes, reference) for codes, reference in zip(new.T, old.T)], axis=1)
    return Stability(
        items=len(shared),
        added=len(of_second) - len(shared),
        removed=len(of_first) - len(shared),
        changed=float(changed.mean()),
        churn=_churn(old, new),
        churn_relabelled=_churn(old, renamed),
        rand=tuple(adjusted_rand(a, b) for a, b in zip(prefix_groups(old), prefix_groups(new))),
    )


def _churn(old: IntArray, new: IntArray) -> tuple[float, ...]:
    """Share of rows of (N, L) codes whose first 1, 2, ... codes differ."""
    differs = np.logical_or.accumulate(old != new, axis=1)
    return tuple(differs.mean(axis=0).tolist())
