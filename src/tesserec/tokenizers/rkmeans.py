"""Residual k-means: k-means on the embeddings, then on what the nearest codeword left over, level by level.

No network and no gradient: a semantic ID is the path of nearest centroids. It is the baseline that a learned tokenizer
has to beat on the same embeddings. After Ju et al. 2025 (GRID, arXiv 2507.22224), which scales residuals to length 1
before each level, and Luo et al. 2024 (QARM, arXiv 2411.11739), which does not.

Differences from the papers:
- Full Lloyd iterations on all items from k-means++ seeds, instead of GRID's mini-batches: catalogues fit in memory,
  and ten mini-batch steps per level (GRID's default) are far from converged.
- The mean embedding is subtracted first. It says nothing about an item, and scaling to length 1 would keep it.
- `balance` caps how many items a codeword may get. Sentence embeddings are clumpy: k-means gives large groups.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from tesserec.artifacts import fingerprint_bytes
from tesserec.errors import ConfigError
from tesserec.functional.kmeans import balanced_codes, kmeans
from tesserec.functional.residual import last_level, nearest, residual_quantize, unit_rows
from tesserec.progress import Progress
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.base import ItemTokenizer, TokenizerConfig
from tesserec.types import FloatArray, IntArray

ROWS_AT_A_TIME = 16_384  # items that are encoded together: bounds the copy in double precision


@dataclass(frozen=True, kw_only=True)
class RKMeansConfig(TokenizerConfig):
    """Defaults for catalogues of 10^4 items; for 10^8, three levels of 8,192."""

    normalize: Literal["none", "input", "each"] = "each"  # scale to length 1: never, once, or before every level
    center: bool = True  # subtract the mean embedding first
    balance: Literal["none", "last", "all"] = "none"  # levels on which no codeword may exceed ceil(N / K) fitted items
    n_iterations: int = 50
    n_restarts: int = 3  # of the first level's k-means, on which all others build

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_iterations", "n_restarts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use 1 or more.")


class RKMeans(ItemTokenizer):
    """Residual k-means.

    With `balance`, a fitted item keeps the code that it was given, as long as its id and its vector stay the same; any
    other item gets the nearest codewords, as there is no share left to respect.
    """

    method = "rkmeans"
    config_class = RKMeansConfig
    config: RKMeansConfig

    def _fit(self, embeddings: Embeddings, collaborative: FloatArray | None, progress: Progress) -> None:
        config = self.config
        self.mean = embeddings.vectors.mean(axis=0, dtype=np.float64) if config.center else np.zeros(self.width)
        capacity = -(-len(embeddings.vectors) // config.codebook_size)
        residual = torch.from_numpy(embeddings.vectors - self.mean.astype(np.float32))  # (N, D)
        tables, codes, norms = list[FloatArray](), list[IntArray](), list[float]()
        with progress.task("residual k-means", config.n_levels) as task:
            for level in range(config.n_levels):
                norms.append(float(torch.linalg.vector_norm(residual, dim=1).mean()))
                if self._scales(level):
                    residual = unit_rows(residual)
                table = kmeans(
                    residual.numpy(),
                    config.codebook_size,
                    n_iterations=config.n_iterations,
                    n_restarts=config.n_restarts if level == 0 else 1,
                    seed=config.seed + level,
                )
                if config.balance == "all" or (config.balance == "last" and level == config.n_levels - 1):
                    code = torch.from_numpy(balanced_codes(residual.numpy(), table, capacity))
                else:
                    code = nearest(residual, torch.from_numpy(table))
                residual -= torch.from_numpy(table)[code]
                tables.append(table)
                codes.append(code.numpy())
                task.advance()
        self._tables = np.stack(tables)  # (L, K, D) float32
        self.mean_norms = np.array(norms)  # (L,) mean length of what each level quantises, before scaling
        balanced = config.balance != "none"
        self._fitted_keys = _keys(embeddings) if balanced else np.zeros(0, dtype="U16")
        self._fitted_codes = np.stack(codes, axis=1) if balanced else np.zeros((0, config.n_levels), dtype=np.int64)

    def _scales(self, level: int) -> bool:
        """Whether vectors are scaled to length 1 before this level."""
        return self.config.normalize == "each" or (self.config.normalize == "input" and level == 0)

    def _codes(self, embeddings: Embeddings) -> IntArray:
        tables = [torch.from_numpy(table).double() for table in self._tables]
        parts = list[IntArray]()
        for start in range(0, len(embeddings.vectors), ROWS_AT_A_TIME):
            x = torch.from_numpy(embeddings.vectors[start : start + ROWS_AT_A_TIME] - self.mean)  # (rows, D) float64
            if self.config.normalize == "input":
                x = unit_rows(x)
            parts.append(residual_quantize(x, tables, normalize=self.config.normalize == "each")[0].numpy())
        codes = np.concatenate(parts)
        if len(self._fitted_keys):
            order = np.argsort(self._fitted_keys)
            keys = _keys(embeddings)
            place = order[np.searchsorted(self._fitted_keys, keys, sorter=order).clip(max=len(order) - 1)]
            known = self._fitted_keys[place] == keys
            codes[known] = self._fitted_codes[place[known]]
        return codes

    def _last_level(self, vectors: FloatArray, codes: IntArray) -> tuple[FloatArray, FloatArray]:
        x = torch.from_numpy(vectors - self.mean)  # (B, D) float64
        if self.config.normalize == "input":
            x = unit_rows(x)
        tables = [torch.from_numpy(table).double() for table in self._tables]
        residual, table = last_level(x, tables, torch.from_numpy(codes), normalize=self.config.normalize == "each")
        return residual.numpy(), table.numpy()

    @property
    def codebooks(self) -> tuple[FloatArray, ...]:
        self._check_fitted()
        return tuple(self._tables)

    def reconstruct(self, codes: IntArray) -> FloatArray:
        """As in the base class. Lengths that scaling removed are replaced by their means over the fitted items."""
        self._check_fitted()
        scale, total = 1.0, np.tile(self.mean, (len(codes), 1))
        for level, table in enumerate(self._tables):
            if self._scales(level):
                scale *= self.mean_norms[level]
            total += scale * table[codes[:, level]]
        return total.astype(np.float32)

    def _write(self, folder: Path) -> None:
        np.save(folder / "codebooks.npy", self._tables)
        np.save(folder / "mean.npy", self.mean)
        np.save(folder / "mean_norms.npy", self.mean_norms)
        np.save(folder / "fitted_keys.npy", self._fitted_keys)
        np.save(folder / "fitted_codes.npy", self._fitted_codes)

    def _read(self, folder: Path) -> None:
        self._tables = np.load(folder / "codebooks.npy")
        self.mean = np.load(folder / "mean.npy")
        self.mean_norms = np.load(folder / "mean_norms.npy")
        self._fitted_keys = np.load(folder / "fitted_keys.npy")
        self._fitted_codes = np.load(folder / "fitted_codes.npy")


def _keys(embeddings: Embeddings) -> npt.NDArray[np.str_]:
    """(N,) text: one key per item that changes with its id or its vector."""
    vectors = np.ascontiguousarray(embeddings.vectors, dtype=np.float32)
    pairs = zip(embeddings.catalogue.item_ids, vectors, strict=True)
    return np.array([fingerprint_bytes(item_id.encode(), vector.tobytes()) for item_id, vector in pairs])
