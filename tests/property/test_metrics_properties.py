"""What holds for every rank, tie and cut-off."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tesserec.functional.metrics import expected_metric, id_metric

aheads = st.integers(0, 60)
ties = st.integers(1, 40)
cutoffs = st.integers(1, 50)
names = st.sampled_from(["recall", "ndcg", "mrr"])

GAIN = {"recall": lambda place: 1.0, "ndcg": lambda place: 1 / math.log2(place + 1), "mrr": lambda place: 1 / place}


def metric(name: str, cutoff: int, ahead: int, tied: int) -> float:
    return float(expected_metric(f"{name}@{cutoff}", np.array([True]), np.array([ahead]), np.array([tied]))[0])


@given(names, cutoffs, aheads, ties)
def test_the_expectation_equals_the_mean_over_all_places_of_the_tie(name, cutoff, ahead, tied):
    places = range(ahead + 1, ahead + tied + 1)
    mean = sum(GAIN[name](place) for place in places if place <= cutoff) / tied
    assert math.isclose(metric(name, cutoff, ahead, tied), mean, abs_tol=1e-12)


@given(names, cutoffs, aheads, ties)
def test_the_expectation_lies_between_the_worst_and_the_best_order(name, cutoff, ahead, tied):
    worst, best = metric(name, cutoff, ahead + tied - 1, 1), metric(name, cutoff, ahead, 1)
    assert worst - 1e-12 <= metric(name, cutoff, ahead, tied) <= best + 1e-12


@given(names, cutoffs, aheads)
def test_without_ties_the_papers_way_is_the_expected_metric(name, cutoff, ahead):
    papers = id_metric(f"id_{name}@{cutoff}", np.array([True]), np.array([ahead + 1]))[0]
    assert papers == metric(name, cutoff, ahead, 1)


@given(cutoffs, ties)
def test_splitting_a_group_never_lowers_the_hits_of_a_perfect_id_list(cutoff, tied):
    assert metric("recall", cutoff, 0, tied) >= metric("recall", cutoff, 0, tied + 1)
