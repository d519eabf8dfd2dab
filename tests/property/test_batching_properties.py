"""Parts of similar length: nothing is lost, nothing is far from the best."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tesserec.training.batching import parts_by_length

lengths_of_batches = st.lists(st.integers(1, 30), min_size=1, max_size=40)


@given(lengths_of_batches, st.integers(1, 100), st.sampled_from([1, 4, 16]))
def test_every_row_is_in_exactly_one_part(lengths, max_tokens, multiple):
    parts = parts_by_length(np.array(lengths), max_tokens=max_tokens, multiple=multiple)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))
    assert all(len(part) for part in parts)


@given(lengths_of_batches, st.integers(1, 100), st.sampled_from([1, 4, 16]))
def test_parts_are_small_and_come_in_groups(lengths, max_tokens, multiple):
    lengths = np.array(lengths)
    parts = parts_by_length(lengths, max_tokens=max_tokens, multiple=multiple)
    for part in parts:
        assert len(part) <= multiple or len(part) * lengths[part].max() <= max_tokens
    assert sum(len(part) % multiple != 0 for part in parts) <= 1  # the rest of the batch


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(0, 10))
def test_no_other_cut_of_the_sorted_lengths_costs_less(lengths, overhead):
    lengths = np.sort(lengths)

    def cost(parts):
        return sum(len(part) * max(part) + overhead for part in parts)

    found = cost([lengths[part] for part in parts_by_length(lengths, max_tokens=10**6, overhead=overhead)])
    places = range(1, len(lengths))
    cuts = itertools.chain.from_iterable(itertools.combinations(places, n) for n in range(min(6, len(lengths))))
    assert found <= min(cost(np.split(lengths, list(cut))) for cut in cuts)
