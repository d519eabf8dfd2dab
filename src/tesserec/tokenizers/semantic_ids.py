"""Semantic IDs as a value: all that a recommender knows of a tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tesserec.artifacts import fingerprint_bytes, open_artifact, write_artifact
from tesserec.data.catalogue import Catalogue
from tesserec.errors import DataError
from tesserec.types import FloatArray, IntArray, PathLike

if TYPE_CHECKING:
    from tesserec.functional.trie import ConstraintIndex


@dataclass(frozen=True, eq=False)
class SemanticIds:
    """One row of L codes per item; items may share all their codes (a collision) unless the policy forbids it."""

    catalogue: Catalogue
    codes: IntArray  # (N, L) int64, codes[:, l] in [0, codebook_sizes[l])
    codebook_sizes: tuple[int, ...]  # L sizes, a disambiguation level included
    collision_policy: str = "share"  # of tokenizers.collisions; with "extra-level" the last level only numbers items
    codebooks: tuple[FloatArray, ...] = ()  # L tables (K_l, D_l) where the method has vectors for its codes
    config: dict[str, Any] = field(default_factory=dict)  # of the tokenizer that made them

    def __post_init__(self) -> None:
        if (
            self.codes.ndim != 2
            or len(self.codes) != len(self.catalogue)
            or self.codes.shape[1] != len(self.codebook_sizes)
        ):
            raise DataError(
                f"Codes of shape {self.codes.shape} do not fit {len(self.catalogue)} items and "
                f"{len(self.codebook_sizes)} levels. Give one row per item and one column per level."
            )
        for level, size in enumerate(self.codebook_sizes):
            low, high = int(self.codes[:, level].min()), int(self.codes[:, level].max())
            if low < 0 or high >= size:
                raise DataError(f"Level {level} has codes from {low} to {high}, but its codebook has {size} codewords.")

    @property
    def n_levels(self) -> int:
        return len(self.codebook_sizes)

    @cached_property
    def fingerprint(self) -> str:
        content = np.ascontiguousarray(self.codes, dtype=np.int64).tobytes()
        return fingerprint_bytes(self.catalogue.fingerprint.encode(), content, repr(self.codebook_sizes).encode())

    @cached_property
    def code_space(self) -> str:
        """Fingerprint of the codebooks: where two are equal, codes mean the same. "" where codes have no vectors."""
        tables = [np.ascontiguousarray(table).tobytes() for table in self.codebooks]
        return fingerprint_bytes(*tables) if tables else ""

    @cached_property
    def group_of_item(self) -> IntArray:
        """(N,) number of the item's semantic ID among the distinct IDs, in lexicographic order of codes."""
        _, inverse = np.unique(self.codes, axis=0, return_inverse=True)
        return np.asarray(inverse).reshape(-1)

    @cached_property
    def group_sizes(self) -> IntArray:
        """(distinct IDs,) how many items share each ID."""
        return np.bincount(self.group_of_item)

    @cached_property
    def _trie(self) -> "ConstraintIndex":
        from tesserec.functional.trie import ConstraintIndex

        return ConstraintIndex.build(self.codes, self.codebook_sizes)

    def trie(self) -> "ConstraintIndex":
        """The constraint index over these IDs, built once."""
        return self._trie

    def items_of(self, codes: Sequence[int] | IntArray) -> IntArray:
        """All item rows whose ID is exactly these L codes, in catalogue order; empty if there are none."""
        return np.flatnonzero((self.codes == np.asarray(codes)).all(axis=1))

    def save(self, folder: PathLike) -> None:
        """Write as an artefact of kind `semantic-ids`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        sizes = {"items": len(self.catalogue), "levels": self.n_levels}
        config = {
            "tokenizer": self.config,
            "codebook_sizes": list(self.codebook_sizes),
            "collision_policy": self.collision_policy,
        }
        sources = {"catalogue": self.catalogue.fingerprint}
        with write_artifact(folder, kind="semantic-ids", config=config, sizes=sizes, sources=sources) as staging:
            columns = {f"code_{level}": self.codes[:, level] for level in range(self.n_levels)}
            pq.write_table(
                pa.table({"item_id": list(self.catalogue.item_ids), **columns}), staging / "semantic_ids.parquet"
            )
            for level, codebook in enumerate(self.codebooks):
                np.save(staging / f"codebook_{level}.npy", codebook)

    @classmethod
    def load(cls, folder: PathLike) -> Self:
        """Open saved semantic IDs.

        Raises:
            ArtifactError: the folder holds no semantic IDs, or a file of them is damaged.
        """
        import pyarrow.parquet as pq

        with open_artifact(folder, kind="semantic-ids") as (path, manifest):
            sizes = tuple(manifest.config["codebook_sizes"])
            table = pq.read_table(path / "semantic_ids.parquet")
            codes = np.stack([table[f"code_{level}"].to_numpy() for level in range(len(sizes))], axis=1).astype(
                np.int64
            )
            codebooks = tuple(
                np.load(file) for file in sorted(path.glob("codebook_*.npy"), key=lambda p: int(p.stem.split("_")[1]))
            )
            catalogue, config = Catalogue(table["item_id"].to_pylist()), manifest.config
            return cls(catalogue, codes, sizes, config["collision_policy"], codebooks, config["tokenizer"])
