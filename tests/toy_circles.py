"""Users who go round a circle of thirty items in equal strides: what comes next is known."""

import numpy as np
import polars as pl

from tesserec.data import Dataset
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split, leave_one_out
from tesserec.tokenizers.semantic_ids import SemanticIds

N_ITEMS = 30


def circle_shop(n_users: int = 120, step: int = 7) -> Dataset:
    """Every item is followed by the one `step` places on."""
    random = np.random.default_rng(0)
    starts, lengths = random.integers(N_ITEMS, size=n_users), random.integers(4, 20, size=n_users)
    rows = [((start + step * np.arange(n)) % N_ITEMS).tolist() for start, n in zip(starts, lengths, strict=True)]
    items = pl.DataFrame({"item_id": [f"item-{row}" for row in range(N_ITEMS)]})
    return Dataset(items, tuple(f"user-{row}" for row in range(n_users)), Sequences.from_lists(rows))


def circles(n_users: int = 120, step: int = 7) -> Split:
    """The shop, split."""
    return leave_one_out(circle_shop(n_users, step))


SPLIT = circles()


def codes_of(split: Split, *, distinct: int = N_ITEMS, levels: int = 6, seed: int = 1) -> SemanticIds:
    """Random codes, 8 per level, which some items share where `distinct` is smaller than their number."""
    codes = np.random.default_rng(seed).integers(8, size=(distinct, levels))
    return SemanticIds(split.dataset.catalogue, codes[np.arange(split.n_items) % distinct], (8,) * levels)


class Killed(BaseException):
    """As if the process had been killed."""


class Killer:
    """Progress that kills the `stage`-th training in the middle of its second epoch."""

    def __init__(self, stage: int = 1) -> None:
        self.stage, self.started = stage, 0

    def say(self, message: str) -> None: ...

    def task(self, label: str, total: int | None) -> "Killer":
        self.started += label == "training"
        return self

    def __enter__(self) -> "Killer":
        return self

    def __exit__(self, *_: object) -> None: ...

    def advance(self, amount: int = 1, *, note: str = "") -> None:
        if self.started == self.stage and "epoch 2" in note:
            raise Killed
