"""Whitening by principal components: fewer, uncorrelated dimensions of variance one."""

import numpy as np

from tesserec.types import FloatArray

NO_VARIANCE = 1e-10  # of the largest: dimensions with less are rounding, and scaling would blow it up


def fit_whitening(x: FloatArray, width: int) -> tuple[FloatArray, FloatArray]:
    """The mean and the scaled principal axes of each of A attributes.

    Args:
        x: (N, A, D) vectors.
        width: W at most, >= 1; less where D or N - 1 is smaller.

    Returns:
        Means (A, D) and axes (A, D, W), float32: (x - mean) @ axes has variance one (over N - 1, as scikit-learn has
        it), in the order of the variance that the dimensions had. Dimensions without any, such as all of an attribute
        that is equal for all items, become zeros. Of an axis and its opposite, the one whose largest entry is
        positive.

    Source: scikit-learn's PCA(whiten=True), as CCFRec uses it (arXiv 2503.12183).
    """
    n_items, n_attributes, full = x.shape
    width = max(1, min(width, full, n_items - 1))
    means, axes = np.empty((n_attributes, full), np.float32), np.zeros((n_attributes, full, width), np.float32)
    for attribute in range(n_attributes):
        vectors = np.asarray(x[:, attribute], dtype=np.float64)
        means[attribute] = vectors.mean(axis=0)
        centred = vectors - vectors.mean(axis=0)
        variances, directions = np.linalg.eigh(centred.T @ centred / max(n_items - 1, 1))  # ascending
        variances, directions = variances[::-1][:width], directions[:, ::-1][:, :width]
        largest = np.abs(directions).argmax(axis=0)
        directions = directions * np.sign(directions[largest, np.arange(width)])
        kept = variances > max(NO_VARIANCE * variances[0], np.finfo(np.float32).tiny)
        axes[attribute][:, kept] = directions[:, kept] / np.sqrt(variances[kept])
    return means, axes


def whiten(x: FloatArray, means: FloatArray, axes: FloatArray) -> FloatArray:
    """(N, A, D) -> (N, A, W) float64."""
    white: FloatArray = np.einsum("nad,adw->naw", np.asarray(x, dtype=np.float64) - means, axes, optimize=True)
    return white


def unwhiten(white: FloatArray, means: FloatArray, axes: FloatArray) -> FloatArray:
    """(N, A, W) -> (N, A, D): the vectors in the span of the axes that `whiten` turns into these."""
    inverse = np.linalg.pinv(axes.astype(np.float64))  # (A, W, D)
    x: FloatArray = np.einsum("naw,awd->nad", white, inverse, optimize=True) + means
    return x
