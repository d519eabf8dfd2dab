"""Ready embeddings from a file."""

from pathlib import Path

import numpy as np

from tesserec.data.catalogue import Catalogue
from tesserec.errors import DataError
from tesserec.text.embeddings import Embeddings
from tesserec.types import FloatArray, PathLike


def read_embeddings(path: PathLike, catalogue: Catalogue) -> Embeddings:
    """Embeddings made elsewhere.

    Args:
        path: `.npy`, numbers of shape (N, D) or (N, A, D) with rows in catalogue order; or `.parquet` with `item_id`
            and either one list column or one numeric column per dimension, rows in any order, further items ignored.

    Raises:
        DataError: no such file, another format or shape, items without a row, or values that are not finite.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"There is no file {file}. Check the path of the embeddings.")
    if file.suffix.lower() == ".npy":
        vectors = _read_npy(file)
    elif file.suffix.lower() in (".parquet", ".pq"):
        vectors = _read_parquet(file, catalogue)
    else:
        raise DataError(f"{file}: embeddings are read from .npy or .parquet files, not {file.suffix or 'this'}.")
    attributes = tuple(f"attribute_{number}" for number in range(vectors.shape[1])) if vectors.ndim == 3 else ()
    config = {"encoder": "file", "model": str(file)}
    return Embeddings(catalogue, vectors.astype(np.float32, copy=False), attributes, config)


def _read_npy(file: Path) -> FloatArray:
    try:
        vectors: FloatArray = np.load(file, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{file} cannot be read as an array of numbers: {error}. Write it with numpy.save.") from None
    if vectors.ndim not in (2, 3) or vectors.dtype.kind not in "fiu":
        raise DataError(
            f"{file} holds {vectors.dtype} of shape {vectors.shape}. Give numbers of shape (items, width) or "
            "(items, attributes, width)."
        )
    return vectors


def _read_parquet(file: Path, catalogue: Catalogue) -> FloatArray:
    import polars as pl

    try:
        table = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{file} cannot be read as Parquet: {error}.") from None
    if "item_id" not in table.columns:
        raise DataError(f"{file} has no column item_id, only {', '.join(table.columns)}. Name the id column item_id.")
    ids = table["item_id"].cast(pl.String).to_list()
    rows = {item_id: row for row, item_id in enumerate(ids)}
    missing = [item_id for item_id in catalogue.item_ids if item_id not in rows]
    if missing:
        raise DataError(f"{file} has no row for {len(missing)} of {len(catalogue)} items, such as {missing[:3]}.")
    values = table.drop("item_id")[[rows[item_id] for item_id in catalogue.item_ids]]
    lists = [name for name, kind in values.schema.items() if isinstance(kind, (pl.List, pl.Array))]
    if len(lists) == 1:
        widths = values[lists[0]].to_list()
        if len({len(row) if row is not None else -1 for row in widths}) != 1 or widths[0] is None:
            raise DataError(f"{file}: the vectors in column {lists[0]} differ in length or are missing.")
        return np.array(widths, dtype=np.float32)
    numbers = values.select(pl.selectors.numeric())
    if lists or not numbers.width:
        raise DataError(
            f"{file}: found {len(lists)} list columns and {numbers.width} numeric ones. Give one list column, or one "
            "numeric column per dimension."
        )
    return numbers.cast(pl.Float32).fill_null(float("nan")).to_numpy()
