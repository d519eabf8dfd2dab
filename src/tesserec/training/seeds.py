"""Random numbers that depend on the seed and the place in training, and on nothing else.

Every optimiser step draws (dropout, negatives) from a generator seeded by its number. A resumed run therefore needs no
saved generator state: the position *is* the state, and what validation or a callback draws in between changes nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_of(*numbers: int) -> int:
    """One well mixed 63-bit seed from several numbers such as (seed, step, process)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Torch's generators start from these numbers inside the block and go on as before after it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(*numbers))
        yield
