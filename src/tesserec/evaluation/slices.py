"""Groups of cases that are looked at apart: by the target's popularity, the history's length, and repeats."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tesserec.data.splits import Cases, Split
from tesserec.functional.id_statistics import popularity_thirds
from tesserec.types import BoolArray, IntArray

NEVER = 3  # after the thirds: no event in training
FEW_USERS = 30  # of a slice: below it a bootstrap interval is far too narrow, and is not shown
POPULARITY = ("head", "mid", "tail", "never trained")  # names of 0, 1, 2 and NEVER
LENGTHS: tuple[tuple[int, int | None], ...] = ((0, 4), (5, 9), (10, 19), (20, None))  # items of the history


@dataclass(frozen=True, eq=False)
class Slice:
    """Some of the cases of a report."""

    group: str  # what the cases are told apart by: "popularity", "history" or "repeat"
    name: str
    rows: IntArray  # of the cases

    @property
    def label(self) -> str:
        return f"{self.group}: {self.name}"


def target_popularity(split: Split, cases: Cases) -> IntArray:
    """(M,) 0 head, 1 mid, 2 tail, 3 never trained: the third of the training events that each target's item is in."""
    of_items = np.where(split.train_counts > 0, popularity_thirds(split.train_counts), NEVER)
    return of_items[cases.targets]


def is_repeat(cases: Cases) -> BoolArray:
    """(M,) whether the target is in the case's own history."""
    rows, index = cases.histories.positions()
    repeat = np.zeros(len(cases), dtype=np.bool_)
    repeat[rows[cases.histories.values[index] == cases.targets[rows]]] = True
    return repeat


def slices_of(cases: Mapping[str, npt.NDArray[Any]]) -> list[Slice]:
    """The slices that hold any case.

    Args:
        cases: `Report.cases`. Reports of older versions say neither `target_popularity` nor `repeat`; such slices are
            left out.
    """
    found = list[Slice]()

    def add(group: str, name: str, chosen: BoolArray) -> None:
        if chosen.any():
            found.append(Slice(group, name, np.flatnonzero(chosen)))

    if "target_popularity" in cases:
        for number, name in reversed(list(enumerate(POPULARITY))):
            add("popularity", name, cases["target_popularity"] == number)
    lengths = cases["history_length"]
    for first, last in LENGTHS:
        name = f"{first} items or more" if last is None else f"{first} to {last} items"
        add("history", name, (lengths >= first) & (lengths <= (np.inf if last is None else last)))
    if "repeat" in cases:
        add("repeat", "taken before", cases["repeat"])
        add("repeat", "new to the user", ~cases["repeat"])
    return found
