"""What to do about items that share all their codes."""

from dataclasses import replace

import numpy as np

from tesserec.errors import DataError
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.types import IntArray


def rank_in_group(ids: SemanticIds) -> IntArray:
    """(N,) place of each item among the items of its semantic ID, 0-based, in catalogue order.

    Appending items to the catalogue never changes the places of earlier ones.
    """
    groups = ids.group_of_item
    order = np.argsort(groups, kind="stable")
    starts = np.cumsum(ids.group_sizes) - ids.group_sizes
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[order] = np.arange(len(groups)) - starts[groups[order]]
    return ranks


def with_extra_level(ids: SemanticIds, size: int) -> SemanticIds:
    """Tell colliding items apart by a last level: the item's place in its group, 0 for items that collide with none.

    Args:
        size: codewords of the extra level. Fixed beforehand, not taken from the largest group, so that the
            vocabulary stays the same when the catalogue grows.

    Raises:
        DataError: a group is larger than `size`.

    Source: Rajput et al. 2023 (TIGER, arXiv 2305.05065), section 3.1.
    """
    largest = int(ids.group_sizes.max())
    if largest > size:
        row = int(np.flatnonzero(ids.group_of_item == ids.group_sizes.argmax())[0])
        raise DataError(
            f"{largest} items, one of them {ids.catalogue.item_ids[row]!r}, share the codes {ids.codes[row].tolist()}, "
            f"but the extra level can name {size}. Set extra_level_size to {largest} or more, use more levels or a "
            "larger codebook_size, or set collisions = 'share'. Items with identical text always collide."
        )
    codes = np.concatenate([ids.codes, rank_in_group(ids)[:, None]], axis=1)
    return replace(ids, codes=codes, codebook_sizes=(*ids.codebook_sizes, size), collision_policy="extra-level")
