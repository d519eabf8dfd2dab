"""Product quantisation (PQ): the embedding is cut into L equal pieces, and each piece gets its own nearest codeword.

Unlike residual codes, the levels are independent: the first code is not coarser than the last. Optimised product
quantisation (OPQ) first rotates the embeddings so that the pieces share the information evenly. PQ: Jegou, Douze,
Schmid 2011; OPQ: Ge, He, Ke, Sun 2013; as item codes: Hou et al. 2023 (VQ-Rec, arXiv 2210.12316).

Of embeddings with A attributes per item, each attribute gets L / A pieces of its own, so that a code depends on one
attribute alone (Liu et al. 2025, CCFRec, arXiv 2503.12183). With `pca_width` attributes are whitened first.

faiss learns the rotation and the codewords. What is kept are plain arrays, and encoding needs no faiss.

Differences from VQ-Rec:
- No coarse centroid: with a single list it only shifts all vectors.
- Widths that L does not divide are filled up with zeros, instead of being refused.

Differences from CCFRec:
- 50 iterations of k-means on all items, from faiss's own seeds, instead of 25.
- Where an attribute has fewer than `pca_width` dimensions with variance, whitening keeps those that there are.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tesserec.errors import ConfigError
from tesserec.functional.residual import nearest
from tesserec.functional.whitening import fit_whitening, unwhiten, whiten
from tesserec.progress import Progress
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.base import ItemTokenizer, TokenizerConfig
from tesserec.types import FloatArray, IntArray

ROWS_AT_A_TIME = 16_384  # items that are encoded together: bounds the copy in double precision


@dataclass(frozen=True, kw_only=True)
class PQConfig(TokenizerConfig):
    """Four levels suit a model that generates IDs; VQ-Rec and CCFRec, which only look codes up, use 16 to 32."""

    n_levels: int = 4
    n_iterations: int = 50  # of k-means in each piece
    pca_width: int | None = None  # whiten every attribute to so many dimensions first, at most; None: as it is

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codebook_size & (self.codebook_size - 1):
            raise ConfigError(f"codebook_size is {self.codebook_size}. Product quantisation needs a power of two.")
        if self.collisions in ("sinkhorn", "assignment"):
            raise ConfigError(
                f"collisions is {self.collisions!r}, which gives items another last code. The codes of product "
                "quantisation are independent, so none is the finest. Use extra-level or share."
            )
        if self.n_iterations < 1:
            raise ConfigError(f"n_iterations is {self.n_iterations}. Use 1 or more.")
        if self.pca_width is not None and self.pca_width < 1:
            raise ConfigError(f"pca_width is {self.pca_width}. Use 1 or more, or none.")


@dataclass(frozen=True, kw_only=True)
class OPQConfig(PQConfig):
    """As for PQ, and the rotation."""

    n_rotations: int = 50  # alternations between fitting the rotation and fitting the codewords

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_rotations < 1:
            raise ConfigError(f"n_rotations is {self.n_rotations}. Use 1 or more.")


class PQ(ItemTokenizer):
    """Product quantisation without a rotation."""

    method = "pq"
    config_class = PQConfig
    config: PQConfig
    takes_attributes = True

    def _fit(self, embeddings: Embeddings, collaborative: FloatArray | None, progress: Progress) -> None:
        import faiss

        n_levels, size = self.config.n_levels, self.config.codebook_size
        if n_levels % self._n_blocks:
            raise ConfigError(
                f"n_levels is {n_levels}, but the items have {self.n_attributes} attributes "
                f"({', '.join(embeddings.attributes)}), which get equally many codes. Set n_levels to a multiple of "
                f"{self.n_attributes}, such as {4 * self.n_attributes}."
            )
        self.whitening: tuple[FloatArray, FloatArray] | None = None  # means (A, D) and axes (A, D, W)
        if self.config.pca_width is not None:
            self.whitening = fit_whitening(self._attributes(embeddings.vectors), self.config.pca_width)
        x = self._padded(embeddings.vectors).astype(np.float32)
        with progress.task("product quantisation", 2) as task:
            self.rotation = self._learn_rotation(x)  # (A * P, A * P), each attribute within itself
            task.advance(note="rotation")
            x = np.ascontiguousarray(x.reshape(len(x), -1) @ self.rotation.T)
            quantizer: Any = faiss.ProductQuantizer(x.shape[1], n_levels, size.bit_length() - 1)
            quantizer.cp.niter = self.config.n_iterations
            quantizer.cp.seed = self.config.seed
            quantizer.cp.min_points_per_centroid = 1
            quantizer.cp.max_points_per_centroid = len(x)
            quantizer.train(x)
            task.advance()
        table: FloatArray = faiss.vector_to_array(quantizer.centroids)
        self.centroids = table.reshape(n_levels, size, -1)  # (L, K, A * P / L)

    def _learn_rotation(self, x: FloatArray) -> FloatArray:
        """Of vectors (N, A, P)."""
        return np.eye(x.shape[1] * x.shape[2], dtype=np.float32)

    @property
    def _n_blocks(self) -> int:
        """A; 1 for one vector per item."""
        return max(self.n_attributes, 1)

    def _attributes(self, vectors: FloatArray) -> FloatArray:
        """(N, D) or (N, A, D) -> (N, A, D)."""
        return vectors.reshape(len(vectors), self._n_blocks, self.width)

    def _padded(self, vectors: FloatArray) -> FloatArray:
        """(N, [A,] D) -> (N, A, P), whitened if configured, with zeros at the end: L / A divides P."""
        x = self._attributes(vectors)
        if self.whitening is not None:
            x = whiten(x, *self.whitening)
        return np.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % (self.config.n_levels // self._n_blocks))))

    def _codes(self, embeddings: Embeddings) -> IntArray:
        codes = np.empty((len(embeddings.vectors), self.config.n_levels), dtype=np.int64)
        n_rows = max(ROWS_AT_A_TIME // self._n_blocks, 1)
        for start in range(0, len(codes), n_rows):
            rows = slice(start, start + n_rows)
            x = self._padded(embeddings.vectors[rows]).astype(np.float64)
            pieces = np.split(x.reshape(len(x), -1) @ self.rotation.T, self.config.n_levels, axis=1)
            for level, (piece, table) in enumerate(zip(pieces, self.centroids, strict=True)):
                codes[rows, level] = nearest(torch.from_numpy(piece), torch.from_numpy(table).double()).numpy()
        return codes

    @property
    def codebooks(self) -> tuple[FloatArray, ...]:
        self._check_fitted()
        return tuple(self.centroids)

    def reconstruct(self, codes: IntArray) -> FloatArray:
        """As in the base class. What whitening left out is taken to be the attribute's mean."""
        self._check_fitted()
        pieces = [table[codes[:, level]] for level, table in enumerate(self.centroids)]
        x: FloatArray = np.concatenate(pieces, axis=1) @ self.rotation  # the inverse of an orthogonal matrix
        x = x.reshape(len(x), self._n_blocks, -1)  # (N, A, P)
        if self.whitening is None:
            x = x[:, :, : self.width]
        else:
            means, axes = self.whitening
            x = unwhiten(x[:, :, : axes.shape[2]], means, axes).astype(np.float32)
        return x if self.n_attributes else x[:, 0]

    def _write(self, folder: Path) -> None:
        np.save(folder / "centroids.npy", self.centroids)
        np.save(folder / "rotation.npy", self.rotation)
        if self.whitening is not None:
            np.save(folder / "means.npy", self.whitening[0])
            np.save(folder / "axes.npy", self.whitening[1])

    def _read(self, folder: Path) -> None:
        self.centroids = np.load(folder / "centroids.npy")
        self.rotation = np.load(folder / "rotation.npy")
        self.whitening = None
        if self.config.pca_width is not None:
            self.whitening = np.load(folder / "means.npy"), np.load(folder / "axes.npy")


class OPQ(PQ):
    """Product quantisation after a learned rotation, one within each attribute."""

    method = "opq"
    config_class = OPQConfig
    config: OPQConfig

    def _learn_rotation(self, x: FloatArray) -> FloatArray:
        n_attributes, width = x.shape[1:]
        rotation = np.zeros((n_attributes * width, n_attributes * width), dtype=np.float32)
        for attribute in range(n_attributes):
            block = slice(attribute * width, (attribute + 1) * width)
            rotation[block, block] = self._rotation_of(x[:, attribute])
        return rotation

    def _rotation_of(self, x: FloatArray) -> FloatArray:
        """(P, P) of vectors (N, P) of one attribute."""
        import faiss

        width, n_levels = x.shape[1], self.config.n_levels // self._n_blocks
        inner: Any = faiss.ProductQuantizer(width, n_levels, self.config.codebook_size.bit_length() - 1)
        inner.cp.min_points_per_centroid = 1
        inner.cp.seed = self.config.seed
        transform: Any = faiss.OPQMatrix(width, n_levels)
        transform.pq = inner
        transform.niter = self.config.n_rotations
        # With fewer rows than dimensions faiss writes beyond its buffers; the same rows again change no statistic.
        transform.train(np.ascontiguousarray(np.tile(x, (-(-width // len(x)), 1)) if len(x) < width else x))
        matrix: FloatArray = faiss.vector_to_array(transform.A)
        return matrix.reshape(width, width)
