"""Product quantisation (PQ): the embedding is cut into L equal pieces, and each piece gets its own nearest codeword.

Unlike residual codes, the levels are independent: the first code is not coarser than the last. Optimised product
quantisation (OPQ) first rotates the embeddings so that the pieces share the information evenly. PQ: Jegou, Douze,
Schmid 2011; OPQ: Ge, He, Ke, Sun 2013; as item codes: Hou et al. 2023 (VQ-Rec, arXiv 2210.12316).

faiss learns the rotation and the codewords. What is kept are plain arrays, and encoding needs no faiss.

Differences from VQ-Rec:
- No coarse centroid: with a single list it only shifts all vectors.
- Widths that L does not divide are filled up with zeros, instead of being refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tesserec.errors import ConfigError
from tesserec.functional.residual import nearest
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

    def _fit(self, embeddings: Embeddings, collaborative: FloatArray | None, progress: Progress) -> None:
        import faiss

        n_levels, size = self.config.n_levels, self.config.codebook_size
        x = self._padded(embeddings.vectors).astype(np.float32)
        quantizer: Any = faiss.ProductQuantizer(x.shape[1], n_levels, size.bit_length() - 1)
        quantizer.cp.niter = self.config.n_iterations
        quantizer.cp.seed = self.config.seed
        quantizer.cp.min_points_per_centroid = 1
        quantizer.cp.max_points_per_centroid = len(x)
        with progress.task("product quantisation", 2) as task:
            self.rotation = self._learn_rotation(x)  # (D', D'), D' = D filled up to a multiple of L
            task.advance(note="rotation")
            quantizer.train(np.ascontiguousarray(x @ self.rotation.T))
            task.advance()
        table: FloatArray = faiss.vector_to_array(quantizer.centroids)
        self.centroids = table.reshape(n_levels, size, -1)  # (L, K, D' / L)

    def _learn_rotation(self, x: FloatArray) -> FloatArray:
        return np.eye(x.shape[1], dtype=np.float32)

    def _padded(self, vectors: FloatArray) -> FloatArray:
        """(N, D) -> (N, D') with zeros at the end, D' the next multiple of L."""
        return np.pad(vectors, ((0, 0), (0, -vectors.shape[1] % self.config.n_levels)))

    def _codes(self, embeddings: Embeddings) -> IntArray:
        codes = np.empty((len(embeddings.vectors), self.config.n_levels), dtype=np.int64)
        for start in range(0, len(codes), ROWS_AT_A_TIME):
            rows = slice(start, start + ROWS_AT_A_TIME)
            rotated = self._padded(embeddings.vectors[rows]).astype(np.float64) @ self.rotation.T
            pieces = np.split(rotated, self.config.n_levels, axis=1)
            for level, (piece, table) in enumerate(zip(pieces, self.centroids, strict=True)):
                codes[rows, level] = nearest(torch.from_numpy(piece), torch.from_numpy(table).double()).numpy()
        return codes

    @property
    def codebooks(self) -> tuple[FloatArray, ...]:
        self._check_fitted()
        return tuple(self.centroids)

    def reconstruct(self, codes: IntArray) -> FloatArray:
        self._check_fitted()
        pieces = [table[codes[:, level]] for level, table in enumerate(self.centroids)]
        x: FloatArray = np.concatenate(pieces, axis=1) @ self.rotation  # the inverse of an orthogonal matrix
        return x[:, : self.width]

    def _write(self, folder: Path) -> None:
        np.save(folder / "centroids.npy", self.centroids)
        np.save(folder / "rotation.npy", self.rotation)

    def _read(self, folder: Path) -> None:
        self.centroids = np.load(folder / "centroids.npy")
        self.rotation = np.load(folder / "rotation.npy")


class OPQ(PQ):
    """Product quantisation after a learned rotation."""

    method = "opq"
    config_class = OPQConfig
    config: OPQConfig

    def _learn_rotation(self, x: FloatArray) -> FloatArray:
        import faiss

        width, n_levels = x.shape[1], self.config.n_levels
        inner: Any = faiss.ProductQuantizer(width, n_levels, self.config.codebook_size.bit_length() - 1)
        inner.cp.min_points_per_centroid = 1
        inner.cp.seed = self.config.seed
        transform: Any = faiss.OPQMatrix(width, n_levels)
        transform.pq = inner
        transform.niter = self.config.n_rotations
        transform.train(np.ascontiguousarray(x))
        matrix: FloatArray = faiss.vector_to_array(transform.A)
        return matrix.reshape(width, width)
