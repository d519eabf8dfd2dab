"""A prepared data set: the catalogue with its texts, and every user's items in order."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tesserec.artifacts import fingerprint_bytes, open_artifact, read_json, write_artifact, write_json
from tesserec.data.catalogue import Catalogue
from tesserec.data.sequences import Sequences
from tesserec.errors import DataError
from tesserec.types import PathLike

if TYPE_CHECKING:
    import polars as pl


class Dataset:
    """Items, users and sequences; made by `tesserec.data.prepare`, loaded memory-mapped, never modified.

    Attributes:
        catalogue: the N items; `catalogue.item_ids[i]` is the id of item row i.
        user_ids: U ids; `sequences[u]` belongs to `user_ids[u]`.
        sequences: item rows of every user, oldest first.
        report: what preparation read, dropped and why, as plain JSON values.
    """

    def __init__(
        self,
        items: "pl.DataFrame",
        user_ids: tuple[str, ...],
        sequences: Sequences,
        *,
        report: dict[str, Any] | None = None,
    ) -> None:
        """
        Args:
            items: one row per item: `item_id` (text, unique) and any text columns.
            user_ids: one id per sequence.
            sequences: item rows in [0, N).

        Raises:
            DataError: a user without a sequence, an item that is not in the table, or other parts that do not fit.
        """
        if len(user_ids) != len(sequences):
            raise DataError(
                f"There are {len(user_ids)} user ids for {len(sequences)} sequences. Give one id per sequence."
            )
        self.catalogue = Catalogue(items["item_id"].to_list())
        sequences.check(len(self.catalogue))
        self.user_ids = user_ids
        self.sequences = sequences
        self.report = report or {}
        self.items = items

    @cached_property
    def items(self) -> "pl.DataFrame":
        """One row per item, in catalogue order: `item_id` and text columns (read from disk when first asked for)."""
        import polars as pl

        return pl.read_parquet(self._folder / "items.parquet")

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the items, their order, or any event; not with the items' texts."""
        values, offsets = self.sequences.flat()
        return fingerprint_bytes(
            self.catalogue.fingerprint.encode(), values.astype(np.int32).tobytes(), offsets.astype(np.int64).tobytes()
        )

    @property
    def n_interactions(self) -> int:
        return int(self.sequences.lengths.sum())

    def save(self, folder: PathLike, *, config: dict[str, Any] | None = None) -> None:
        """Write as an artefact of kind `dataset`."""
        import polars as pl

        sizes = {"users": len(self.user_ids), "items": len(self.catalogue), "interactions": self.n_interactions}
        with write_artifact(folder, kind="dataset", config=config or {}, sizes=sizes) as staging:
            self.items.write_parquet(staging / "items.parquet")
            pl.DataFrame({"user_id": self.user_ids}, schema={"user_id": pl.String}).write_parquet(
                staging / "users.parquet"
            )
            values, offsets = self.sequences.flat()
            np.save(staging / "values.npy", values.astype(np.int32))
            np.save(staging / "offsets.npy", offsets.astype(np.int64))
            if self.sequences.times is not None:
                np.save(staging / "times.npy", self.sequences.times[self.sequences.positions()[1]])
            write_json(staging / "report.json", self.report)

    @classmethod
    def load(cls, folder: PathLike) -> Self:
        """Open a prepared data set; sequences stay on disk until they are read.

        Raises:
            ArtifactError: the folder is no data set, or its parts do not fit together.
        """
        import pyarrow.parquet as pq

        dataset = cls.__new__(cls)
        with open_artifact(folder, kind="dataset") as (path, manifest):
            dataset._folder = path
            dataset.catalogue = Catalogue(
                pq.read_table(path / "items.parquet", columns=["item_id"])["item_id"].to_pylist()
            )
            dataset.user_ids = tuple(pq.read_table(path / "users.parquet")["user_id"].to_pylist())
            times = np.load(path / "times.npy", mmap_mode="r") if (path / "times.npy").exists() else None
            values, offsets = np.load(path / "values.npy", mmap_mode="r"), np.load(path / "offsets.npy")
            dataset.report = read_json(path / "report.json")
            found = {"users": len(dataset.user_ids), "items": len(dataset.catalogue), "interactions": len(values)}
            if found != manifest.sizes:
                raise ValueError(f"its manifest counts {manifest.sizes}, its files {found}")
            if offsets.shape != (len(dataset.user_ids) + 1,) or offsets[0] != 0 or offsets[-1] != len(values):
                raise ValueError(
                    f"offsets.npy does not divide {len(values)} events among {len(dataset.user_ids)} users"
                )
            dataset.sequences = Sequences.from_offsets(values, offsets, times)
            dataset.sequences.check(len(dataset.catalogue))
        return dataset

    _folder: Path = Path()
