"""Tables of any names: CSV, TSV, Parquet and JSON lines, in a file for the events and perhaps one for the items."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from tesserec.data.columns import event_columns, item_id_column, usual_column
from tesserec.data.files import has_suffix, header_of, read_delimited, read_json, read_json_table, sniff
from tesserec.data.raw import Raw, Reading, chosen_texts, events_frame, items_frame
from tesserec.errors import DataError

DELIMITED = (".csv", ".tsv", ".txt")
JSON_LINES = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet", ".pq")
N_SNIFFED = 100  # JSON objects whose keys are taken for the columns


def is_table(path: Path) -> bool:
    return has_suffix(path, *DELIMITED, *JSON_LINES, *PARQUET)


def names_of(path: Path, named: Mapping[str, str]) -> list[str]:
    """The names of a table's columns (`named`: role -> column, as the user said).

    Raises:
        DataError: the file is empty or not of the kind that its name says.
    """
    if has_suffix(path, *DELIMITED):
        return header_of(path, sniff(path, named))
    if has_suffix(path, *PARQUET):
        return _parquet(path).collect_schema().names()
    names: dict[str, None] = {}
    for count, (_, record) in enumerate(read_json(path, Reading(on_error="skip"))):
        names |= dict.fromkeys(record)
        if count == N_SNIFFED:
            break
    if not names:
        raise DataError(f"{path} holds no JSON object. Give one object per line.")
    return list(names)


def event_files(files: Sequence[Path], named: Mapping[str, str]) -> list[Path]:
    """Those of some files whose columns name a user and an item."""
    return [path for path in files if {"user", "item"} <= _roles(path, named)]


def item_files(files: Sequence[Path], named: Mapping[str, str]) -> list[Path]:
    """Those of some files whose columns name an item and no user."""
    return [path for path in files if _roles(path, named) & {"user", "item_id"} == {"item_id"}]


def _roles(path: Path, named: Mapping[str, str]) -> set[str]:
    """Which of user, item and item_id the columns of a file can play; none if it is no table that can be read."""
    try:
        names = names_of(path, named) if is_table(path) else []
    except DataError:  # `recognise` tells of it
        return set()
    found = {
        role for role in ("user", "item") if (named[role] in names if role in named else usual_column(role, names))
    }
    is_item_table = named["item_id"] in names if "item_id" in named else usual_column("item", names) or "item" in found
    return found | {"item_id"} if is_item_table else found


def read(path: Path, items: Path | None, reading: Reading) -> Raw:
    """Read a log and, if given, its item table."""
    return Raw(read_events(path, reading), read_items(items, reading) if items else None)


def read_events(path: Path, reading: Reading) -> pl.DataFrame:
    """The events of a table whose columns are found by the user's word or by their usual names."""
    names = names_of(path, reading.columns)
    columns = event_columns(names, reading.columns, where=str(path))
    reading.use(path, "interactions")
    reading.use_columns(path, columns)
    chosen = list(columns.values())
    if has_suffix(path, *PARQUET):
        frame = _parquet(path).select(chosen).collect()
        return events_frame(frame, columns, reading, place=lambda row: f"{path}, row {row + 1}")
    if has_suffix(path, *DELIMITED):
        table = read_delimited(path, sniff(path, reading.columns), names, chosen, reading)
    else:
        table = read_json_table(path, columns, reading)
    return events_frame(table.frame, columns, reading, place=table.place)


def read_items(path: Path, reading: Reading) -> pl.DataFrame:
    """The item table of a file; its columns are text unless the user named some."""
    # Whether there is a header is known by how the user named the columns of this very file.
    named = {role: column for role, column in reading.columns.items() if role == "item_id"}
    names = names_of(path, named)
    id_column = item_id_column(names, reading.columns, where=str(path))
    texts = chosen_texts(names, id_column, reading, where=str(path))
    reading.use(path, f"items with {', '.join(texts) or 'no text'}")
    rows: Mapping[str, Any]
    if has_suffix(path, *PARQUET):
        rows = _parquet(path).select(id_column, *texts).collect().to_dict()
    elif has_suffix(path, *DELIMITED):
        rows = read_delimited(path, sniff(path, named), names, [id_column, *texts], reading).frame.to_dict()
    else:
        records = [record for _, record in read_json(path, reading)]
        rows = {name: [record.get(name) for record in records] for name in (id_column, *texts)}
    return items_frame(rows[id_column], {name: rows[name] for name in texts}, reading, where=str(path))


def _parquet(path: Path) -> pl.LazyFrame:
    try:
        frame = pl.scan_parquet(path)
        frame.collect_schema()
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} is not a Parquet file that can be read ({error}). Write it again.") from None
    return frame
