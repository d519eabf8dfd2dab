"""Statistics over users: bootstrap means, a paired randomisation test, and Holm's correction.

All take per-user values, one row for each user and a column for whatever is compared, so that columns stay paired:
a resample or a flip of signs is the same for every column.
"""

from collections.abc import Iterator

import numpy as np

from tesserec.errors import ConfigError
from tesserec.types import FloatArray

CELLS = 1 << 23  # of a block of resamples: bounds memory at some hundred megabytes


def bootstrap_means(values: FloatArray, *, n_resamples: int, seed: int) -> FloatArray:
    """Means of every column in resamples of the users, with replacement, as many as there are.

    Users whose row is 0 add nothing to a sum; how many of them a resample holds is all that matters, and that is
    binomial. On rankings this leaves out most users.

    Args:
        values: (M, C) a row per user, M >= 1.
        n_resamples: R >= 1.
        seed: of the resamples: the same for the same M, R and rows that are 0.

    Returns:
        (R, C) float64.

    Raises:
        ConfigError: there are no users, or no resamples.

    Source: Efron 1979, the bootstrap; columns are resampled together, which keeps their pairs.
    """
    if not len(values) or n_resamples < 1:
        raise ConfigError(f"{len(values)} users and {n_resamples} resamples. Give 1 or more of both.")
    live = values[np.any(values != 0, axis=1)].astype(np.float64)  # (M', C)
    random = np.random.default_rng(seed)
    n_drawn = random.binomial(len(values), len(live) / len(values), size=n_resamples)
    sums = np.zeros((n_resamples, values.shape[1]))
    for block in _blocks(n_resamples, len(live)):
        drawn = n_drawn[block]
        users = random.integers(len(live), size=drawn.sum()) if len(live) else np.zeros(0, dtype=np.int64)
        cell = np.repeat(np.arange(len(drawn)), drawn) * len(live) + users
        times = np.bincount(cell, minlength=len(drawn) * len(live)).reshape(len(drawn), len(live))
        sums[block] = times.astype(np.float64) @ live
    return sums / len(values)


def percentile_interval(means: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
    """The interval that holds the middle share `level` of resampled means.

    Args:
        means: (R, C).
        level: between 0 and 1, such as 0.95.

    Returns:
        The lower and the upper ends, (C,) each.

    Raises:
        ConfigError: `level` is out of range.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}. Use a share between 0 and 1, such as 0.95.")
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def sign_flip_p_values(differences: FloatArray, *, n_flips: int, seed: int) -> FloatArray:
    """Two-sided p-values of mean differences, by flipping the signs of users at random.

    Were two methods alike, each user's difference would be as likely with the other sign. The p-value is the share of
    flips whose mean is at least as far from 0, the observed one counted among them, so it is never 0 and never below
    1 / (n_flips + 1). Nothing is assumed of the shape of the differences, most of which are 0; on hits it is the exact
    McNemar test up to the random flips.

    Args:
        differences: (M, C) a row per user.
        n_flips: >= 1.
        seed: of the flips.

    Returns:
        (C,) p-values; 1 where all differences are 0.

    Raises:
        ConfigError: there are no flips.

    Source: Fisher's randomisation test for pairs, with the count of Phipson and Smyth 2010.
    """
    if n_flips < 1:
        raise ConfigError(f"n_flips is {n_flips}. Use 1 or more.")
    live = differences[np.any(differences != 0, axis=1)].astype(np.float64)  # (M', C)
    total = live.sum(axis=0)
    reach = np.abs(total) - 1e-12 * np.abs(live).sum(axis=0)  # equal sums in another order of summation count as equal
    random = np.random.default_rng(seed)
    as_far = np.zeros(differences.shape[1], dtype=np.int64)
    n_bytes = -(-len(live) // 8)
    for block in _blocks(n_flips, len(live)):
        coins = random.integers(256, size=(block.stop - block.start, n_bytes), dtype=np.uint8)
        plus = np.unpackbits(coins, axis=1)[:, : len(live)].astype(np.float64)
        as_far += (np.abs(2 * (plus @ live) - total) >= reach).sum(axis=0)
    return (as_far + 1) / (n_flips + 1)


def holm(p_values: FloatArray) -> FloatArray:
    """p-values that hold for the whole family: reject those at most alpha, and any wrong rejection has at most alpha.

    Args:
        p_values: (F,) of all tests of the family.

    Returns:
        (F,) adjusted, at most 1, in the same order.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    >>> holm(np.array([0.01, 0.04, 0.03])).round(4).tolist()  # 3 x 0.01; 2 x 0.03; not below the one before
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return adjusted


def _blocks(n_rows: int, width: int) -> Iterator[slice]:
    """Slices that cover n_rows, each of at most CELLS cells of this width."""
    size = max(1, CELLS // max(width, 1))
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))
