"""Whitening by principal components."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tesserec.functional.whitening import fit_whitening, unwhiten, whiten

RANDOM = np.random.default_rng(0)
X = (RANDOM.normal(size=(60, 2, 9)) * np.linspace(1, 5, 9) @ RANDOM.normal(size=(9, 9)) + 3).astype(np.float32)


def test_whitened_dimensions_have_mean_zero_variance_one_and_no_correlation():
    white = whiten(X, *fit_whitening(X, 4))
    assert white.shape == (60, 2, 4)
    assert_allclose(white.mean(axis=0), 0, atol=1e-5)
    for attribute in range(2):
        assert_allclose(np.cov(white[:, attribute].T), np.eye(4), atol=1e-4)


def test_it_is_scikit_learns_whitening_up_to_signs():
    from sklearn.decomposition import PCA

    white = whiten(X, *fit_whitening(X, 5))
    for attribute in range(2):
        theirs = PCA(5, whiten=True, svd_solver="full").fit_transform(X[:, attribute].astype(np.float64))
        assert_allclose(np.abs(white[:, attribute]), np.abs(theirs), atol=1e-4)


@pytest.mark.parametrize(("n_items", "asked", "kept"), [(60, 4, 4), (60, 128, 9), (5, 128, 4), (1, 3, 1)])
def test_there_are_never_more_dimensions_than_the_vectors_or_the_items_allow(n_items, asked, kept):
    means, axes = fit_whitening(X[:n_items], asked)
    assert axes.shape == (2, 9, kept)
    assert np.isfinite(whiten(X, means, axes)).all()


def test_dimensions_without_variance_become_zeros():
    flat = X.copy()
    flat[:, 1] = 2.5  # an attribute that is equal for all items
    flat[:, 0, 3:] = 0.1
    white = whiten(flat, *fit_whitening(flat, 6))
    assert not white[:, 1].any()
    assert_allclose(white[:, 0].std(axis=0, ddof=1), [1, 1, 1, 0, 0, 0], atol=1e-5)


def test_unwhitening_gives_the_vectors_back_where_no_dimension_is_left_out():
    whitening = fit_whitening(X, 9)
    assert_allclose(unwhiten(whiten(X, *whitening), *whitening), X, atol=1e-3)
