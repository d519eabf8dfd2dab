"""The training samples of models that predict one next item from a prefix of a sequence."""

from dataclasses import dataclass
from typing import Self

from tesserec.data.sequences import Sequences
from tesserec.errors import DataError
from tesserec.types import IntArray


@dataclass(frozen=True, eq=False)
class Samples:
    """Every (history, next item) pair of the training part, as places in its values array."""

    values: IntArray  # (E,) item rows
    starts: IntArray  # (S,) where the sample's user starts
    targets: IntArray  # (S,) where the next item stands; the history is all before it
    users: IntArray  # (S,) row of the user

    @classmethod
    def of(cls, train: Sequences) -> Self:
        users, index = train.positions()
        later = index > train.starts[users]
        users, index = users[later], index[later]
        if not len(users):
            raise DataError("No user has two items to train on. Prepare the data with a larger k-core.")
        return cls(train.values, train.starts[users], index, users)
