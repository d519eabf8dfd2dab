"""Splitting: what may be trained on, and the cases that validation and test ask about."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tesserec.data.dataset import Dataset
from tesserec.data.sequences import Sequences
from tesserec.errors import DataError
from tesserec.types import IntArray


@dataclass(frozen=True, eq=False)
class Cases:
    """M questions of an evaluation: after this history, what does the user take next?"""

    users: IntArray  # (M,) row of the user in the data set
    histories: Sequences  # M histories, oldest item first
    targets: IntArray  # (M,) item row of the answer

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: IntArray) -> "Cases":
        return Cases(self.users[rows], self.histories.take(rows), self.targets[rows])


@dataclass(frozen=True, eq=False)
class Split:
    """One way of cutting a data set; all three parts are views into its sequences."""

    name: str  # how it was cut, for the protocol card: "leave-one-out", "by-time(...)"
    dataset: Dataset
    train: Sequences  # one sequence per user (possibly empty): all that training may see
    validation: Cases
    test: Cases

    @property
    def n_items(self) -> int:
        return len(self.dataset.catalogue)

    @cached_property
    def train_counts(self) -> IntArray:
        """(N,) how often each item occurs in the training part."""
        values, _ = self.train.flat()
        return np.bincount(values, minlength=self.n_items)


def leave_one_out(dataset: Dataset) -> Split:
    """Of each user the last item tests, the one before validates, the rest trains.

    Users with fewer than three events are trained on and not evaluated. Ties in time were resolved when the data was
    prepared.

    Raises:
        DataError: no user has three events.
    """
    every = dataset.sequences
    users = np.flatnonzero(every.lengths >= 3)
    if not len(users):
        raise DataError(
            f"None of the {len(every)} users has 3 events or more, so nothing is left to validate and test on. "
            "Give a longer log, filter less of it (min_rating and repeats take events from users), or split by time "
            "(split.method=by-time), for which two events are enough."
        )
    train_stops = every.stops.copy()
    train_stops[users] -= 2
    starts, stops = every.starts[users], every.stops[users]

    def cases(stop: IntArray) -> Cases:
        return Cases(users, Sequences(every.values, starts, stop, every.times), every.values[stop].astype(np.int64))

    train = Sequences(every.values, every.starts, train_stops, every.times)
    return Split("leave-one-out", dataset, train, validation=cases(stops - 2), test=cases(stops - 1))


def by_time(dataset: Dataset, *, validation_from: int, test_from: int) -> Split:
    """Events before `validation_from` train; each user's first event of the two later periods is a case.

    Args:
        dataset: with event times.
        validation_from: first second (or rank, as in the data) of the validation period.
        test_from: first second of the test period, later than `validation_from`.

    Raises:
        DataError: the data set has no times, the dates are out of order, or a part would be empty.
    """
    every = dataset.sequences
    if every.times is None:
        raise DataError("This data set has no event times, so it cannot be split by time. Use leave-one-out.")
    if validation_from >= test_from:
        raise DataError(f"validation_from ({validation_from}) must be earlier than test_from ({test_from}).")
    rows, index = every.positions()
    times = every.times[index]

    def first_at(moment: int) -> IntArray:
        """(U,) index into values of each user's first event at or after a moment."""
        return every.starts + np.bincount(rows[times < moment], minlength=len(every))

    validation_at, test_at = first_at(validation_from), first_at(test_from)

    def cases(at: IntArray, end: IntArray) -> Cases:
        users = np.flatnonzero((at < end) & (at > every.starts))
        histories = Sequences(every.values, every.starts[users], at[users], every.times)
        return Cases(users, histories, every.values[at[users]].astype(np.int64))

    train = Sequences(every.values, every.starts, validation_at, every.times)
    name = f"by-time(validation_from={validation_from}, test_from={test_from})"
    split = Split(name, dataset, train, cases(validation_at, test_at), cases(test_at, every.stops))
    for part, count in (
        ("training", train.lengths.sum()),
        ("validation", len(split.validation)),
        ("test", len(split.test)),
    ):
        if not count:
            raise DataError(
                f"Splitting at {validation_from} and {test_from} leaves no {part} part. Choose other dates."
            )
    return split
