"""What holds for every log."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tesserec.data import Sequences
from tesserec.data.cleaning import clean
from tesserec.data.filtering import Log, in_order, k_core, without_repeats

events = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 3)), max_size=60)
lists = st.lists(st.lists(st.integers(0, 9), max_size=7), max_size=8)


def arrays(rows):
    columns = np.array(rows, dtype=np.int32).reshape(-1, 3)
    return columns[:, 0], columns[:, 1], columns[:, 2].astype(np.float64)


def slow_k_core(rows, k):
    """One event at a time, in another order than ours."""
    kept = list(enumerate(rows))
    while True:
        users, items = Counter(row[0] for _, row in kept), Counter(row[1] for _, row in kept)
        weak = next((entry for entry in kept if users[entry[1][0]] < k or items[entry[1][1]] < k), None)
        if weak is None:
            return [number for number, _ in kept]
        kept.remove(weak)


@given(events, st.integers(1, 4))
def test_k_core_equals_dropping_one_event_at_a_time(rows, k):
    users, items, _ = arrays(rows)
    assert k_core(users, items, k).tolist() == slow_k_core(rows, k)


@given(events)
def test_ordering_equals_pythons_stable_sort(rows):
    ordered = in_order(Log(*arrays(rows)), ties="file", seed=0)
    expected = sorted(rows, key=lambda row: (row[0], row[2]))
    assert list(zip(ordered.users.tolist(), ordered.items.tolist(), ordered.times.tolist())) == expected


@given(events)
def test_without_exact_repeats_every_event_is_left_once(rows):
    log = in_order(Log(*arrays(rows)), ties="file", seed=0)
    left = log.take(without_repeats(log, "exact"))
    triples = list(zip(left.users.tolist(), left.items.tolist(), left.times.tolist()))
    assert Counter(triples) == Counter(dict.fromkeys(rows, 1))


@given(lists)
def test_sequences_give_back_their_lists(rows):
    sequences = Sequences.from_lists(rows)
    values, offsets = sequences.flat()
    assert [list(row) for row in sequences] == rows
    assert [list(row) for row in Sequences.from_offsets(values, offsets)] == rows


@given(lists, st.integers(1, 9))
def test_padding_and_cutting_agree_with_lists(rows, length):
    sequences = Sequences.from_lists(rows)
    assert [list(row) for row in sequences.last(length)] == [row[-length:] for row in rows]
    expected = [[-1] * max(0, length - len(row)) + row[-length:] for row in rows]
    assert sequences.padded(length, pad=-1).tolist() == expected


@given(st.recursive(st.none() | st.text(max_size=20) | st.floats() | st.integers(), st.lists, max_leaves=8))
def test_cleaned_text_has_no_tags_and_no_surplus_white_space(value):
    text = clean(value)
    assert text == " ".join(text.split())
    assert "</" not in text or not text.split("</")[1][:1].isalpha()
