"""Item embeddings as a value: which items, and one vector (or one per attribute) for each."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tesserec.artifacts import fingerprint_bytes, open_artifact, read_json, write_artifact, write_json
from tesserec.data.catalogue import Catalogue
from tesserec.errors import DataError
from tesserec.types import FloatArray, PathLike


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Row i describes item row i of the catalogue."""

    catalogue: Catalogue
    vectors: FloatArray  # (N, D) float32, or (N, A, D) for A attributes
    attributes: tuple[str, ...] = ()  # A names, empty for one text per item
    config: dict[str, Any] = field(default_factory=dict)  # how they were made
    state: dict[str, npt.NDArray[Any]] = field(default_factory=dict)  # what their encoder learned, to encode new items

    def __post_init__(self) -> None:
        expected = 3 if self.attributes else 2
        if self.vectors.ndim != expected or len(self.vectors) != len(self.catalogue):
            raise DataError(
                f"Embeddings of shape {self.vectors.shape} do not fit {len(self.catalogue)} items"
                f"{f' with {len(self.attributes)} attributes' if self.attributes else ''}. "
                "Give one row "
                "per item, in catalogue order."
            )
        if not np.isfinite(self.vectors).all():
            rows = np.flatnonzero(~np.isfinite(self.vectors).reshape(len(self.vectors), -1).all(axis=1))
            raise DataError(
                f"{len(rows)} embeddings are not finite, the first in row {rows[0]}. Encode these items again."
            )

    @cached_property
    def fingerprint(self) -> str:
        content = np.ascontiguousarray(self.vectors, dtype=np.float32).tobytes()
        return fingerprint_bytes(self.catalogue.fingerprint.encode(), content)

    def save(self, folder: PathLike) -> None:
        """Write as an artefact of kind `embeddings`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        sizes = {"items": len(self.catalogue), "width": self.vectors.shape[-1]}
        sources = {"catalogue": self.catalogue.fingerprint}
        with write_artifact(folder, kind="embeddings", config=self.config, sizes=sizes, sources=sources) as staging:
            np.save(staging / "vectors.npy", self.vectors.astype(np.float32, copy=False))
            pq.write_table(pa.table({"item_id": list(self.catalogue.item_ids)}), staging / "items.parquet")
            write_json(staging / "attributes.json", list(self.attributes))
            for name, array in self.state.items():
                np.save(staging / f"state_{name}.npy", array)

    @classmethod
    def load(cls, folder: PathLike) -> Self:
        """Open saved embeddings, memory-mapped.

        Raises:
            ArtifactError: the folder holds no embeddings, or a file of them is damaged.
        """
        import pyarrow.parquet as pq

        with open_artifact(folder, kind="embeddings") as (path, manifest):
            catalogue = Catalogue(pq.read_table(path / "items.parquet")["item_id"].to_pylist())
            attributes = tuple(read_json(path / "attributes.json"))
            vectors = np.load(path / "vectors.npy", mmap_mode="r")
            state = {file.stem.removeprefix("state_"): np.load(file) for file in path.glob("state_*.npy")}
            return cls(catalogue, vectors, attributes, manifest.config, state)
