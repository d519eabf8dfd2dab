"""What lists are like, on lists that can be judged by hand."""

import numpy as np
import pytest

from tesserec.functional.list_statistics import coverage, exposure_gini, list_means, mean_distances, mid_percentiles

LISTS = np.array([[0, 1, 2], [0, 3, -1], [2, -1, -1], [-1, -1, -1]])


def test_coverage_is_the_share_of_items_in_any_list():
    assert coverage(LISTS, 8) == 0.5


def test_exposure_is_even_when_every_item_has_as_many_places():
    assert exposure_gini(np.array([[0, 1], [2, 3]]), 4) == pytest.approx(0)
    assert exposure_gini(np.array([[0], [0]]), 4) == pytest.approx(0.75)  # 1 - 1/n: all places are one item's
    counts = np.array([5, 0, 1, 2])
    lists = np.repeat(np.arange(4), counts)[:, None]
    pairs = np.abs(counts[:, None] - counts).mean()  # Gini: mean difference over twice the mean
    assert exposure_gini(lists, 4) == pytest.approx(pairs / (2 * counts.mean()))


def test_means_of_a_list_pass_over_places_without_an_item():
    means = list_means(LISTS, np.array([1.0, 2.0, 6.0, 3.0]))
    assert means[:3].tolist() == [3.0, 2.0, 6.0]
    assert np.isnan(means[3])


def test_percentiles_are_half_on_average_whatever_the_ties():
    for counts in ([3, 3, 3], [0, 0, 9, 1], [5, 4, 3, 2]):
        assert mid_percentiles(np.array(counts)).mean() == pytest.approx(0.5)
    assert mid_percentiles(np.array([5, 4])).tolist() == [0.75, 0.25]


def test_distances_are_the_mean_over_the_pairs_of_a_list():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(20, 5))
    vectors[7] = 0  # without a text
    lists = np.stack([random.permutation(20)[:6] for _ in range(30)])
    lists[3, 4:] = -1
    lists[5, 1:] = -1
    found = mean_distances(lists, vectors)
    for row, items in enumerate(lists.tolist()):
        units = [vectors[item] / np.linalg.norm(vectors[item]) for item in items if item >= 0 and item != 7]
        pairs = [1 - one @ other for place, one in enumerate(units) for other in units[:place]]
        assert found[row] == pytest.approx(np.mean(pairs)) if pairs else np.isnan(found[row])
    assert np.isnan(found[5])
