"""Intervals and tests over users, on numbers that are known."""

from itertools import product

import numpy as np
import pytest

from tesserec.errors import ConfigError
from tesserec.evaluation.slices import FEW_USERS
from tesserec.functional.statistics import bootstrap_means, holm, percentile_interval, sign_flip_p_values

N_USERS, N_SAMPLES = 300, 1000


def share_of_intervals_with_the_truth(level: float) -> float:
    """Of intervals of a paired difference whose truth is 0.06, in samples of users who mostly decide both alike."""
    random = np.random.default_rng(0)
    held = 0
    for sample in range(N_SAMPLES):
        luck, other = random.random((2, N_USERS))
        other = np.where(random.random(N_USERS) < 0.2, other, luck)
        better, worse = (luck < 0.31).astype(float), (other < 0.25).astype(float)
        means = bootstrap_means(np.stack([better, worse], axis=1), n_resamples=400, seed=sample)
        low, high = percentile_interval(means[:, :1] - means[:, 1:], level)
        held += bool(low[0] <= 0.06 <= high[0])
    return held / N_SAMPLES


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_intervals_of_paired_differences_hold_the_truth_as_often_as_they_say(level):
    spread = np.sqrt(level * (1 - level) / N_SAMPLES)
    assert share_of_intervals_with_the_truth(level) == pytest.approx(level, abs=3 * spread)


def test_intervals_over_few_users_are_too_narrow_which_is_why_small_slices_show_none():
    def held(n_users: int) -> float:
        hits = np.random.default_rng(n_users).random((1000, n_users)) < 0.2
        ends = [percentile_interval(bootstrap_means(row[:, None].astype(float), n_resamples=400, seed=n), 0.95)
                for n, row in enumerate(hits)]  # fmt: skip
        return float(np.mean([low[0] <= 0.2 <= high[0] for low, high in ends]))

    assert held(5) < 0.75
    assert held(10) < 0.92
    assert held(2 * FEW_USERS) > 0.92


def test_bootstrap_means_have_the_mean_and_the_standard_error_of_the_sample():
    values = np.zeros((500, 2))
    values[:60, 0], values[40:70, 1] = 1.0, 0.5
    means = bootstrap_means(values, n_resamples=20_000, seed=0)
    assert means.mean(axis=0) == pytest.approx(values.mean(axis=0), rel=0.01)
    assert means.std(axis=0) == pytest.approx(values.std(axis=0) / np.sqrt(500), rel=0.02)
    covariance = np.cov(values.T, ddof=0)[0, 1] / 500
    assert np.cov(means.T)[0, 1] == pytest.approx(covariance, rel=0.05)  # columns stay paired


def test_users_without_a_hit_count_though_they_are_not_drawn_one_by_one():
    none = bootstrap_means(np.zeros((10, 1)), n_resamples=50, seed=0)
    assert (none == 0).all()
    every = bootstrap_means(np.ones((10, 1)), n_resamples=50, seed=0)
    assert (every == 1).all()


@pytest.mark.parametrize(
    "differences", [[1, 1, 1, 1, 1, 0, 0], [1, -1, 0.5, 0.25, 1, 0.7, 0.7], [2, 1, 1, -1, 0, 0, 0]]
)
def test_sign_flips_agree_with_all_of_them(differences):
    flips = [abs(np.dot(signs, differences)) for signs in product([-1, 1], repeat=len(differences))]
    truth = np.mean(np.array(flips) >= abs(sum(differences)) - 1e-9)
    found = sign_flip_p_values(np.array(differences, dtype=float)[:, None], n_flips=40_000, seed=0)
    assert found[0] == pytest.approx(truth, abs=0.01)


def test_a_method_against_itself_is_never_told_apart_and_no_p_value_is_0():
    columns = np.stack([np.zeros(200), np.ones(200)], axis=1)
    assert sign_flip_p_values(columns, n_flips=999, seed=0).tolist() == [1.0, 0.001]


def test_under_the_null_p_values_reject_as_often_as_they_say():
    differences = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], p=[0.1, 0.8, 0.1], size=(400, 1000))
    rejected = (sign_flip_p_values(differences, n_flips=1000, seed=0) <= 0.05).mean()
    assert rejected == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 1000))


def test_holm_of_values_worked_by_hand():
    # sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04; no value below the one before it
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]
    assert holm(np.array([0.02])).tolist() == [0.02]
    assert holm(np.zeros(0)).tolist() == []


def test_senseless_numbers_are_refused():
    with pytest.raises(ConfigError, match="0 users"):
        bootstrap_means(np.zeros((0, 1)), n_resamples=5, seed=0)
    with pytest.raises(ConfigError, match="n_flips is 0"):
        sign_flip_p_values(np.zeros((3, 1)), n_flips=0, seed=0)
    with pytest.raises(ConfigError, match=r"level is 95"):
        percentile_interval(np.zeros((3, 1)), 95)
