"""What is kept of a log and in which order: pure functions on integer arrays."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from tesserec.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Log:
    """E events. Users and items are numbered; a number may have no event left."""

    users: IntArray  # (E,) int32
    items: IntArray  # (E,) int32
    times: FloatArray | None = None  # (E,) seconds
    ratings: FloatArray | None = None  # (E,)

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: IntArray | BoolArray) -> Self:
        """The chosen events, by row numbers or by a mask."""
        times, ratings = (None if array is None else array[rows] for array in (self.times, self.ratings))
        return type(self)(self.users[rows], self.items[rows], times, ratings)

    def counts(self) -> dict[str, int]:
        """How many users, items and interactions there are."""
        return {
            "users": int(np.count_nonzero(np.bincount(self.users))),
            "items": int(np.count_nonzero(np.bincount(self.items))),
            "interactions": len(self),
        }


def in_order(log: Log, *, ties: Literal["file", "shuffled"], seed: int) -> Log:
    """User after user, each user's events by time.

    Events of one user with equal times stay in the order of the file, or are shuffled by `seed`. Without times, the
    order of the file is the order of events.
    """
    import polars as pl

    keys: dict[str, IntArray | FloatArray] = {"user": log.users}
    if log.times is not None:
        keys["time"] = log.times
        if ties == "shuffled":
            keys["tie"] = np.random.default_rng(seed).random(len(log))
    rows = pl.DataFrame(keys).with_row_index("row").sort(*keys, maintain_order=True)["row"]
    return log.take(rows.to_numpy())


def counts_events(log: Log) -> bool:
    """Whether the times of an ordered log are no times, but every user's events numbered from 0, or from 1."""
    if log.times is None or not len(log):
        return False
    firsts = np.flatnonzero(np.diff(log.users, prepend=-1))
    places = np.arange(len(log)) - np.repeat(firsts, np.diff(firsts, append=len(log)))
    return bool((log.times == places).all() or (log.times == places + 1).all())


def without_repeats(log: Log, policy: Literal["exact", "first", "last"]) -> BoolArray:
    """Mask over an ordered log that leaves one event of those with the same user and item.

    `exact` treats only events at the same time as repeats; `first` and `last` say which event of a user and item stays.
    """
    import polars as pl

    pair = log.users.astype(np.int64) << 32 | log.items
    if policy != "exact":
        pairs = pl.Series(pair)
        return (pairs.is_first_distinct() if policy == "first" else pairs.is_last_distinct()).to_numpy()
    if log.times is None:
        return np.ones(len(log), dtype=np.bool_)
    # Repeats at one time stand among the user's events of that time: only those few need to be compared.
    tied = (np.diff(log.users) == 0) & (np.diff(log.times) == 0)
    among = np.flatnonzero(np.append(tied, False) | np.append(False, tied))
    events = pl.struct(pl.Series("pair", pair[among]), pl.Series("time", log.times[among]), eager=True)
    mask = np.ones(len(log), dtype=np.bool_)
    mask[among] = events.is_first_distinct().to_numpy()
    return mask


def k_core(users: IntArray, items: IntArray, k: int) -> IntArray:
    """Rows of the largest part of a log in which every user and every item has `k` events or more.

    Args:
        users, items: (E,) numbers of the user and the item of each event.

    Returns:
        Row numbers, ascending; none if no such part exists. Dropping items takes events from users and the other way
        round, so both are dropped in turn until nothing changes; the result does not depend on the order.
    """
    rows = np.arange(len(users))
    while len(rows):
        enough_users = np.bincount(users[rows]) >= k
        enough_items = np.bincount(items[rows]) >= k
        kept = enough_users[users[rows]] & enough_items[items[rows]]
        if kept.all():
            break
        rows = rows[kept]
    return rows


def renumbered(numbers: IntArray) -> tuple[IntArray, IntArray]:
    """Close the gaps in a numbering.

    Returns:
        numbers (E,) int32 in [0, n), in the same order, and (n,) the old number of each new one.
    """
    used = np.bincount(numbers) > 0
    return (np.cumsum(used) - 1)[numbers].astype(np.int32), np.flatnonzero(used)
