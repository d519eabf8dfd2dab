"""Many item sequences in one array: values, and where each sequence starts and stops."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from tesserec.errors import DataError
from tesserec.types import IntArray


@dataclass(frozen=True, eq=False)
class Sequences:
    """U sequences of item rows, oldest first, as views into one values array (which may be memory-mapped).

    Training parts and histories of a split share the values array of their data set; only starts and stops differ.
    """

    values: IntArray  # (E,) int32 item rows, sequence after sequence
    starts: IntArray  # (U,) int64
    stops: IntArray  # (U,) int64, sequence u is values[starts[u]:stops[u]]
    times: IntArray | None = None  # (E,) int64 event times in seconds (or ranks), where the data has them

    @classmethod
    def from_offsets(cls, values: IntArray, offsets: IntArray, times: IntArray | None = None) -> Self:
        """From U + 1 offsets: sequence u is values[offsets[u]:offsets[u + 1]]."""
        return cls(values, offsets[:-1], offsets[1:], times)

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int] | IntArray]) -> Self:
        """From one list of item rows per sequence; lists may be empty."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        parts = [np.asarray(row, dtype=np.int32) for row in rows if len(row)]
        values = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
        return cls.from_offsets(values, offsets)

    def check(self, n_items: int) -> None:
        """See to it that every sequence lies within `values` and every value is the row of one of `n_items` items.

        Raises:
            DataError: what is wrong, and where first.
        """
        for name, array in (("item rows", self.values), ("starts", self.starts), ("stops", self.stops)):
            if array.ndim != 1 or array.dtype.kind not in "iu":
                raise DataError(f"The {name} are {array.dtype} of shape {array.shape}. Give one row of whole numbers.")
        outside = (self.starts < 0) | (self.stops < self.starts) | (self.stops > len(self.values))
        if outside.any():
            user = int(np.argmax(outside))
            raise DataError(
                f"Sequence {user} goes from {self.starts[user]} to {self.stops[user]} of {len(self.values)} events. "
                "Starts and stops must not go down or leave the events."
            )
        if len(self.values) and not (self.values.min() >= 0 and self.values.max() < n_items):
            event = int(np.argmax((self.values < 0) | (self.values >= n_items)))
            raise DataError(f"Event {event} is of item row {self.values[event]}, but there are {n_items} items.")
        if self.times is not None and (self.times.shape != self.values.shape or self.times.dtype.kind not in "iuf"):
            raise DataError(
                f"The times are {self.times.dtype} of shape {self.times.shape}, the events {self.values.shape}. Give "
                "one number per event."
            )

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> IntArray:
        return self.values[self.starts[index] : self.stops[index]]

    def __iter__(self) -> Iterator[IntArray]:
        return (self[index] for index in range(len(self)))

    @property
    def lengths(self) -> IntArray:
        """(U,) number of items of each sequence."""
        return self.stops - self.starts

    def take(self, rows: IntArray) -> "Sequences":
        """The chosen sequences, in the chosen order; no values are copied."""
        return Sequences(self.values, self.starts[rows], self.stops[rows], self.times)

    def last(self, n_items: int) -> "Sequences":
        """Every sequence cut to its latest `n_items` items; no values are copied."""
        return Sequences(self.values, np.maximum(self.starts, self.stops - n_items), self.stops, self.times)

    def positions(self) -> tuple[IntArray, IntArray]:
        """For every item of every sequence, in order: (row of its sequence, index into `values`)."""
        lengths = self.lengths
        rows = np.repeat(np.arange(len(self)), lengths)
        firsts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)[:-1]]) if len(self) else lengths
        return rows, np.arange(len(rows)) - firsts[rows] + self.starts[rows]

    def flat(self) -> tuple[IntArray, IntArray]:
        """(values, offsets) of these sequences alone, closed up: what is written to disk."""
        _, index = self.positions()
        return self.values[index], np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.lengths)])

    def padded(self, length: int, *, pad: int) -> IntArray:
        """(U, length) int64, the latest `length` items of each, right-aligned, `pad` on the left."""
        out = np.full((len(self), length), pad, dtype=np.int64)
        recent = self.last(length)
        rows, index = recent.positions()
        out[rows, length - (recent.stops[rows] - index)] = self.values[index]
        return out
