"""What to do about items that share all their codes.

`share` leaves them as they are and `extra-level` adds a code. `sinkhorn` and `assignment` give some items another last
code than their nearest; they need residual codes, whose last level is the finest. With these two, an item's ID depends
on the other items that are encoded with it, and items may still collide: `remaining` counts them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tesserec.errors import DataError
from tesserec.functional.kmeans import balanced_codes
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.types import FloatArray, IntArray

CollisionPolicy = Literal["extra-level", "share", "sinkhorn", "assignment"]
ROWS_AT_A_TIME = 16_384  # items whose last residuals are computed together
MAX_ROUNDS = 20  # of the loop of `separate_by_sinkhorn`

# Of some item rows: what the last level compares in L2, residuals (n, d) and its codewords (K, d)
LastLevel = Callable[[IntArray], tuple[FloatArray, FloatArray]]


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


# -- by assignment -----------------------------------------------------------------------------------------------------


def separate_by_assignment(codes: IntArray, vectors: FloatArray, last_level: LastLevel) -> IntArray:
    """Where items of a prefix collide, all items of that prefix share out the last codewords at the least distance.

    No item collides while its prefix (all codes but the last) has at most K items. A larger prefix gives every codeword
    at most ceil(n / K) of its n items. Items with identical vectors get the codes that fall to them nearest first, in
    catalogue order. Prefixes without collisions are left alone.

    Args:
        codes: (N, L), not modified.
        vectors: (N, D) that were encoded.
        last_level: residuals and codewords.

    Returns:
        (N, L) with other last codes.
    """
    codes = codes.copy()
    prefix = _groups(codes[:, :-1])
    id_group = _groups(codes)
    collides = np.bincount(id_group)[id_group] > 1
    affected = np.isin(prefix, prefix[collides])
    for block in _blocks(_members(prefix, np.flatnonzero(affected))):
        residuals, codebook = last_level(np.concatenate(block))
        for rows, group in zip(block, np.split(residuals, np.cumsum([len(rows) for rows in block])[:-1])):
            codes[rows, -1] = _share_out(group, codebook, vectors[rows])
    return codes


def _share_out(residuals: FloatArray, codebook: FloatArray, vectors: FloatArray) -> IntArray:
    """(n,) codewords for the items of one prefix."""
    from scipy.optimize import linear_sum_assignment

    capacity = -(-len(residuals) // len(codebook))
    if capacity > 1:
        chosen = balanced_codes(residuals, codebook, capacity)
    else:
        _, chosen = linear_sum_assignment(_squared_distances(residuals, codebook))
    for same in _members(_identical(vectors)):
        if len(same) > 1:
            distances = _squared_distances(residuals[same[:1]], codebook)[0, chosen[same]]
            chosen[same] = chosen[same][np.lexsort((chosen[same], distances))]
    return chosen


# -- by Sinkhorn -------------------------------------------------------------------------------------------------------


def separate_by_sinkhorn(
    codes: IntArray, vectors: FloatArray, last_level: LastLevel, *, temperature: float = 0.003, n_iters: int = 50
) -> IntArray:
    """LC-Rec's loop: the items of an ID share out the last codewords by a balanced plan among themselves.

    Up to MAX_ROUNDS times, as new last codes may collide anew. Groups are small against the codebook, so what an item
    gets has little to do with nearness (functional.sinkhorn.uniform_codes); items with identical vectors always stay
    together. `assignment` does better at both: this is here to compare with published systems.

    Source: Zheng et al. 2024 (LC-Rec, arXiv 2311.09049), section III-B; MAX_ROUNDS and the constants of its code.
    """
    import torch

    from tesserec.functional.sinkhorn import uniform_codes

    codes = codes.copy()
    done = set[bytes]()  # groups that a round has been through: another would give them the same codes
    for _ in range(MAX_ROUNDS):
        groups = [rows for rows in _members(_groups(codes)) if len(rows) > 1 and rows.tobytes() not in done]
        if not groups:
            break
        for block in _blocks(groups):
            residuals, codebook = last_level(np.concatenate(block))
            table = torch.from_numpy(codebook).double()
            for rows, group in zip(block, np.split(residuals, np.cumsum([len(rows) for rows in block])[:-1])):
                x = torch.from_numpy(group).double()
                chosen = uniform_codes(x, table, temperature=temperature, n_iters=n_iters).numpy()
                same = _identical(
                    vectors[rows]
                )  # their plans are equal, but for rounding: the first one speaks for all
                codes[rows, -1] = chosen[np.unique(same, return_index=True)[1][same]]
        done.update(rows.tobytes() for rows in groups)
    return codes


# -- what is left ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Remaining:
    """Items that share their ID with another one."""

    items: int
    identical: int  # of them, those whose vector is that of another item of their ID, byte by byte

    def __str__(self) -> str:
        return (
            f"{self.items} items share their semantic ID with another one; {self.identical} of them have a vector "
            "identical to another's, such as items with the same text"
        )


def remaining(codes: IntArray, vectors: FloatArray) -> Remaining:
    """What still collides among (N, L) codes of (N, D) vectors."""
    groups = [rows for rows in _members(_groups(codes)) if len(rows) > 1]
    identical = 0
    for rows in groups:
        sizes = np.bincount(_identical(vectors[rows]))
        identical += int(sizes[sizes > 1].sum())
    return Remaining(sum(map(len, groups)), identical)


# -- groups of rows ----------------------------------------------------------------------------------------------------


def _groups(codes: IntArray) -> IntArray:
    """(N,) number of each row's group of equal codes; one group for (N, 0)."""
    if not codes.shape[1]:
        return np.zeros(len(codes), dtype=np.int64)
    _, inverse = np.unique(codes, axis=0, return_inverse=True)
    return np.asarray(inverse).reshape(-1)


def _identical(vectors: FloatArray) -> IntArray:
    """(n,) number of each vector among those that differ."""
    numbers = dict[bytes, int]()
    return np.array([numbers.setdefault(vector.tobytes(), len(numbers)) for vector in np.ascontiguousarray(vectors)])


def _members(groups: IntArray, rows: IntArray | None = None) -> list[IntArray]:
    """The rows of every group, each in ascending order; of these rows only, if they are given."""
    rows = np.arange(len(groups)) if rows is None else rows
    order = rows[np.argsort(groups[rows], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(order) else []


def _blocks(groups: list[IntArray]) -> Iterator[list[IntArray]]:
    """Whole groups, as many at a time as have ROWS_AT_A_TIME rows; larger groups one by one."""
    block, n_rows = list[IntArray](), 0
    for rows in groups:
        if block and n_rows + len(rows) > ROWS_AT_A_TIME:
            yield block
            block, n_rows = [], 0
        block.append(rows)
        n_rows += len(rows)
    if block:
        yield block


def _squared_distances(x: FloatArray, codebook: FloatArray) -> FloatArray:
    """(n, K)"""
    distances: FloatArray = (x**2).sum(axis=1, keepdims=True) + (codebook**2).sum(axis=1) - 2 * (x @ codebook.T)
    return distances
