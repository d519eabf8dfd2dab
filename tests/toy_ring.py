"""Users walk through a ring of 30 items: after item i comes item i + 1."""

import numpy as np

from tesserec.data.catalogue import Catalogue
from tesserec.data.sequences import Sequences
from tesserec.tokenizers.semantic_ids import SemanticIds

N_ITEMS = 30
ITEM_IDS = [f"item-{row}" for row in range(N_ITEMS)]


def walks(n_users: int) -> tuple[tuple[str, ...], Sequences]:
    """User ids, and 7 to 11 items of each."""
    random = np.random.default_rng(0)
    rows = [(random.integers(N_ITEMS) + np.arange(random.integers(7, 12))) % N_ITEMS for _ in range(n_users)]
    return tuple(f"user-{row}" for row in range(n_users)), Sequences.from_lists(rows)


def ring_ids() -> SemanticIds:
    """Two levels; items 28 and 29 share an ID."""
    row = np.arange(N_ITEMS)
    codes = np.stack([row // 6, row % 6], axis=1)
    codes[29] = codes[28]
    return SemanticIds(Catalogue(ITEM_IDS), codes, (5, 6))
