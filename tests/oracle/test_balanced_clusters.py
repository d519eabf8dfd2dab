"""Balanced clusters of code vectors against k-means-constrained, which the reference of LETTER uses."""

import numpy as np
import pytest

from tesserec.functional.kmeans import balanced_clusters, bounded_assignment
from tesserec.tokenizers.letter import cluster_bounds

constrained = pytest.importorskip("k_means_constrained")


def theirs(x, n_clusters, size_min, size_max, **settings):
    return constrained.KMeansConstrained(
        n_clusters, size_min=size_min, size_max=size_max, max_iter=10, n_jobs=1, random_state=0, **settings
    ).fit(x)


@pytest.mark.parametrize(("n_codewords", "clumps"), [(256, 3), (256, 0), (64, 2), (100, 1)])
def test_sizes_and_cost_are_those_of_the_oracle(n_codewords: int, clumps: int) -> None:
    random = np.random.default_rng(n_codewords + clumps)
    x = random.normal(size=(n_codewords, 32))
    x[: n_codewords * 2 // 3] *= 0.05 if clumps else 1
    x += random.normal(size=(max(clumps, 1), 32))[random.integers(max(clumps, 1), size=n_codewords)] * 3
    n_clusters, size_min, size_max = cluster_bounds(n_codewords, 10)
    clusters, centres = balanced_clusters(x, n_clusters, size_min=size_min, size_max=size_max, seed=0)
    sizes = np.bincount(clusters, minlength=n_clusters)
    assert size_min <= sizes.min()
    assert sizes.max() <= size_max
    cost = ((x - centres[clusters]) ** 2).sum()
    assert cost <= 1.03 * theirs(x, n_clusters, size_min, size_max, n_init=10).inertia_


def test_from_the_same_centres_both_find_the_same_clusters() -> None:
    random = np.random.default_rng(0)
    means = random.normal(size=(10, 32)) * 3
    x = means[random.integers(10, size=256) ** 2 // 9] + random.normal(size=(256, 32))  # clumps of unequal sizes
    oracle = theirs(x, 10, 10, 60, init=means, n_init=1)
    clusters, _ = balanced_clusters(x, 10, size_min=10, size_max=60, centres=means, n_iterations=10)
    assert (clusters == oracle.labels_).mean() > 0.95


def test_one_assignment_costs_as_little_as_the_oracles() -> None:
    """The oracle adds up distances, not their squares, within an assignment."""
    random = np.random.default_rng(1)
    x, centres = random.normal(size=(90, 5)), random.normal(size=(6, 5)) * 3
    distances = np.linalg.norm(x[:, None] - centres, axis=2)
    found = bounded_assignment(distances, 10, 20)
    sizes = np.bincount(found, minlength=6)
    assert sizes.min() == 10 or sizes.max() == 20, "the bounds must bind, or this tests nothing"
    oracle = theirs(x, 6, 10, 20, n_init=1)
    oracle.cluster_centers_ = centres
    expected = oracle.predict(x, size_min=10, size_max=20)
    rows = np.arange(90)
    np.testing.assert_allclose(distances[rows, found].sum(), distances[rows, expected].sum(), rtol=1e-4)
