"""The peak of a piece of work is that of the work, not of what was before it."""

import numpy as np

from tesserec.memory import MemoryMeter

SIZE = 200_000_000


def test_the_peak_counts_what_was_held_and_given_back_meanwhile():
    meter = MemoryMeter()
    before = meter.peak()
    np.ones(SIZE, dtype=np.uint8)
    after = meter.peak()
    assert after.process_bytes is not None
    assert before.process_bytes is not None
    assert after.process_bytes - before.process_bytes > 0.9 * SIZE
    later = MemoryMeter().peak()
    assert later.process_bytes is not None
    if later.since == "the work began":
        assert later.process_bytes < after.process_bytes - 0.9 * SIZE
    else:
        assert later.process_bytes >= after.process_bytes
