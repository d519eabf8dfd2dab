"""Six items with codes and histories that can be judged by hand."""

import numpy as np
import polars as pl

from tesserec.data.catalogue import Catalogue
from tesserec.data.dataset import Dataset
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split, leave_one_out
from tesserec.tokenizers.semantic_ids import SemanticIds

NAMES = ["a", "b", "c", "d", "e", "f"]
CATALOGUE = Catalogue(NAMES)
#          a       b       c       d       e       f
CODES = [[0, 0], [0, 0], [0, 1], [1, 0], [1, 0], [1, 0]]
IDS = SemanticIds(CATALOGUE, np.array(CODES), (4, 2))


def split_of(sequences: list[list[int]], targets: tuple[int, int] = (0, 0)) -> Split:
    """A split whose training parts are these sequences; `targets` validate and test, the same for all users."""
    events = Sequences.from_lists([[*row, *targets] for row in sequences])
    users = tuple(f"u{row}" for row in range(len(sequences)))
    return leave_one_out(Dataset(pl.DataFrame({"item_id": NAMES}), users, events))
