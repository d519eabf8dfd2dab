"""k-means by faiss, and assignments in which no codeword gets more than its share."""

from typing import Any

import numpy as np

from tesserec.types import FloatArray, IntArray

SEEDING_SAMPLE = 50  # points per codeword from which the seeds are drawn: seeding is sequential, so it is bounded


def kmeans(x: FloatArray, n_codewords: int, *, n_iterations: int, n_restarts: int, seed: int) -> FloatArray:
    """The codebook with the smallest squared error among some restarts of Lloyd's algorithm on all points.

    Args:
        x: (N, D) float32, N >= n_codewords.
        n_iterations: passes over all points per restart.
        n_restarts: runs from different seeds, >= 1.

    Returns:
        (n_codewords, D) float32. Codewords that lose all their points split a large one (faiss), so none is wasted
        unless there are fewer distinct points than codewords.
    """
    import faiss

    x = np.ascontiguousarray(x, dtype=np.float32)
    random = np.random.default_rng(seed)
    best, best_error = x[:n_codewords], np.inf
    for _ in range(n_restarts):
        run: Any = faiss.Kmeans(
            x.shape[1],
            n_codewords,
            niter=n_iterations,
            min_points_per_centroid=1,  # no warning about small catalogues
            max_points_per_centroid=len(x),  # faiss would else fit on a sample of 256 points per codeword
        )
        run.train(x, init_centroids=_seeds(x, n_codewords, random))
        error = float(run.obj[-1])
        if error < best_error:
            best, best_error = run.centroids, error
    return best


def _seeds(x: FloatArray, n_codewords: int, random: np.random.Generator) -> FloatArray:
    """(n_codewords, D) points by greedy k-means++ (scikit-learn).

    On sentence embeddings of 4,385 items its squared error after Lloyd is 9 % below that of plain k-means++ (faiss has
    that) or random seeds. One thread, as many small products in a row are many times slower with more.
    """
    from sklearn.cluster import kmeans_plusplus
    from threadpoolctl import threadpool_limits

    rows = np.sort(random.choice(len(x), min(len(x), SEEDING_SAMPLE * n_codewords), replace=False))
    with threadpool_limits(1):
        seeds, _ = kmeans_plusplus(x[rows], n_codewords, random_state=int(random.integers(2**31)))
    return np.asarray(seeds)


def balanced_codes(x: FloatArray, codebook: FloatArray, capacity: int) -> IntArray:
    """Near codewords for all rows such that none gets more than `capacity` of them.

    In rounds: every row that has no codeword yet asks for the nearest one with room, and each codeword takes the
    nearest of those who ask. A round fills a codeword or ends the work, so there are at most K rounds.

    Args:
        x: (N, D).
        codebook: (K, D) with K * capacity >= N.

    Returns:
        (N,) int64. Not the nearest codeword for rows that a full one turned away.
    """
    x, codebook = x.astype(np.float32), codebook.astype(np.float32)
    distances = (codebook**2).sum(axis=1) - 2 * (x @ codebook.T)  # (N, K)
    distances += (x**2).sum(axis=1, keepdims=True)  # rows compete for a codeword, so |x|^2 counts here
    codes = np.full(len(x), -1, dtype=np.int64)
    room = np.full(len(codebook), capacity)
    waiting = np.arange(len(x))
    while len(waiting):
        wish = distances[waiting].argmin(axis=1)
        order = np.lexsort((distances[waiting, wish], wish))  # by codeword, nearest first
        place = np.arange(len(order)) - np.searchsorted(wish[order], wish[order])
        taken = order[place < room[wish[order]]]
        codes[waiting[taken]] = wish[taken]
        room -= np.bincount(wish[taken], minlength=len(room))
        distances[:, room == 0] = np.inf
        waiting = np.delete(waiting, taken)
    return codes
