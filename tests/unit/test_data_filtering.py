"""Filtering and ordering, on logs small enough to check by hand."""

import numpy as np
import pytest

from tesserec.data.filtering import Log, counts_events, in_order, k_core, renumbered, without_repeats


def log(users, items, times=None):
    return Log(
        np.array(users, dtype=np.int32),
        np.array(items, dtype=np.int32),
        None if times is None else np.array(times, dtype=np.float64),
    )


def test_k_core_drops_what_falls_below_only_after_the_first_round():
    # User 2 has two events, but one of them is on item 9, which nobody else has; without it user 2 falls below 2.
    users, items = np.array([0, 0, 1, 1, 2, 2]), np.array([5, 6, 5, 6, 5, 9])
    assert k_core(users, items, 2).tolist() == [0, 1, 2, 3]


def test_k_core_of_a_log_without_one_is_empty():
    assert len(k_core(np.array([0, 1]), np.array([0, 1]), 2)) == 0


def test_ties_stay_in_the_order_of_the_file():
    ordered = in_order(log([1, 0, 1, 1, 0], [10, 20, 11, 12, 21], [5, 1, 5, 4, 1]), ties="file", seed=0)
    assert ordered.users.tolist() == [0, 0, 1, 1, 1]
    assert ordered.items.tolist() == [20, 21, 12, 10, 11]


def test_without_times_the_file_gives_the_order():
    ordered = in_order(log([1, 0, 1], [10, 20, 11]), ties="file", seed=0)
    assert ordered.items.tolist() == [20, 10, 11]


def test_shuffled_ties_move_within_equal_times_only_and_depend_on_the_seed():
    many = log([0] * 200, range(200), [0] * 100 + [1] * 100)
    first, again, other = (in_order(many, ties="shuffled", seed=seed).items.tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first[:100]) == list(range(100)) != first[:100]


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("exact", [0, 1, 3, 4]), ("first", [0, 1]), ("last", [1, 4])],
)
def test_repeats(policy, kept):
    ordered = log([0, 0, 0, 0, 0], [7, 8, 7, 7, 7], [1, 1, 1, 2, 3])
    assert np.flatnonzero(without_repeats(ordered, policy)).tolist() == kept


def test_without_times_no_event_is_an_exact_repeat():
    assert without_repeats(log([0, 0], [7, 7]), "exact").all()


@pytest.mark.parametrize(
    ("times", "expected"),
    [([0, 1, 2, 0, 1], True), ([1, 2, 3, 1, 2], True), ([0, 1, 3, 0, 1], False), ([0, 1, 2, 1, 2], False)],
)
def test_times_that_number_the_events_are_known_as_such(times, expected):
    assert counts_events(log([0, 0, 0, 1, 1], [1, 2, 3, 4, 5], times)) is expected


def test_renumbering_closes_gaps_and_keeps_the_order():
    numbers, old = renumbered(np.array([7, 2, 7, 5]))
    assert numbers.tolist() == [2, 0, 2, 1]
    assert old.tolist() == [2, 5, 7]
