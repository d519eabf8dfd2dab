"""Several data sets as one, for training on several domains at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tesserec.artifacts import require_place
from tesserec.data.dataset import Dataset
from tesserec.data.sequences import Sequences
from tesserec.errors import ArtifactError, DataError
from tesserec.types import IntArray, PathLike

if TYPE_CHECKING:
    import polars as pl

DOMAIN = "domain"  # the column that says which data set an item comes from
RESERVED = ":,"  # stands between a domain's name and an id, and between names on the command line


def join_datasets(datasets: Mapping[str, Dataset]) -> Dataset:
    """One data set of all items and users of several; no item and no user of one is one of another's.

        join_datasets({"books": books, "films": films}).catalogue.item_ids[0]     # "books:b1"

    Ids are those of the data set after its name and a colon. The item table has the columns of all, "" where a data set
    lacks one, and a last column `domain` with the name. That column is no text: it is of a polars Enum type, and
    templates take text columns. Times are kept where all data sets have them.

    Args:
        datasets: by the name of their domain, in the order in which items and users shall follow each other.

    Raises:
        DataError: fewer than two data sets, a name that cannot be one, or item tables that do not fit together.
    """
    if len(datasets) < 2:
        raise DataError(f"There is {len(datasets)} data set to join. Give two or more.")
    for name in datasets:
        if not name or set(name) & set(RESERVED):
            raise DataError(f"The domain name {name!r} is empty or holds one of {RESERVED!r}. Choose another: --names.")
    sequences = [dataset.sequences for dataset in datasets.values()]
    n_items = [len(dataset.catalogue) for dataset in datasets.values()]
    first_rows = np.cumsum([0, *n_items[:-1]])
    places = [part.positions()[1] for part in sequences]
    values = [part.values[place] + first for part, place, first in zip(sequences, places, first_rows)]
    times = [part.times[place] for part, place in zip(sequences, places) if part.times is not None]
    lengths = np.concatenate([part.lengths for part in sequences])
    return Dataset(
        _items(datasets),
        tuple(f"{name}:{user}" for name, dataset in datasets.items() for user in dataset.user_ids),
        Sequences.from_offsets(
            np.concatenate(values).astype(np.int32),
            np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]),
            np.concatenate(times) if len(times) == len(sequences) else None,
        ),
        report=_report(datasets, has_times=len(times) == len(sequences)),
    )


def item_domains(dataset: Dataset) -> IntArray | None:
    """(N,) the domain of each item of a joined data set, numbered by name; None where there is no such column."""
    if DOMAIN not in dataset.items.columns:
        return None
    _, numbers = np.unique(dataset.items[DOMAIN].cast(str).to_numpy(), return_inverse=True)
    return numbers.astype(np.int64)


def _items(datasets: Mapping[str, Dataset]) -> "pl.DataFrame":
    """The table of all items."""
    import polars as pl

    tables = list[pl.DataFrame]()
    for name, dataset in datasets.items():
        table = dataset.items
        if DOMAIN in table.columns:
            raise DataError(
                f"The items of {name} have a column {DOMAIN!r} already. Join data sets that are not joined, all in one "
                "go; rename the column where it is something else."
            )
        domain = pl.lit(name, dtype=pl.Enum(list(datasets))).alias(DOMAIN)
        tables.append(table.with_columns(pl.lit(f"{name}:").add(pl.col("item_id")).alias("item_id"), domain))
    try:
        joined = pl.concat(tables, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"The item tables have columns of the same name that do not fit together: {error}.") from None
    others = [column for column in joined.columns if column != DOMAIN]
    return joined.select(*others, DOMAIN).with_columns(pl.col(pl.String).fill_null(""))


def _report(datasets: Mapping[str, Dataset], *, has_times: bool) -> dict[str, object]:
    """What was joined, as `report.json` records it."""
    rows = [
        {
            "domain": name,
            "users": len(dataset.user_ids),
            "items": len(dataset.catalogue),
            "interactions": dataset.n_interactions,
            "fingerprint": dataset.fingerprint,
        }
        for name, dataset in datasets.items()
    ]
    without = [name for name, dataset in datasets.items() if dataset.sequences.times is None]
    note = f"times are not kept: {', '.join(without)} has none" if not has_times and len(without) < len(rows) else None
    return {"joined": rows, "notes": [note] if note else []}


def join(folders: Sequence[PathLike], out: PathLike, *, names: Sequence[str] | None = None) -> Dataset:
    """Join prepared data sets and save the result: `tesserec join`.

    Args:
        folders: of the data sets.
        out: a new folder.
        names: of their domains, one each; None: the names of the folders.

    Raises:
        DataError: two domains of one name, another number of names than of folders, and what `join_datasets` refuses.
        ArtifactError: a folder is no data set, or `out` exists or cannot be written.
    """
    names = [Path(folder).resolve().name for folder in folders] if names is None else list(names)
    if len(names) != len(folders):
        raise DataError(f"There are {len(names)} names for {len(folders)} data sets. Give one name each: --names A,B.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"More than one data set is called {twice[0]!r}. Give each a name of its own: --names A,B.")
    if Path(out).exists():
        raise ArtifactError(f"{out} exists. Choose a new folder for the joined data set.")
    require_place(out, kind="dataset")
    joined = join_datasets({name: Dataset.load(folder) for name, folder in zip(names, folders)})
    joined.save(out, config={"joined": names})
    return joined
