"""RecBole atomic files: NAME.inter, and beside it NAME.item (NAME.user is not used)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from tesserec.data.columns import event_columns, item_id_column
from tesserec.data.files import Delimited, file_beside, has_suffix, header_of, read_delimited, stem_of
from tesserec.data.raw import Raw, Reading, chosen_texts, events_frame, items_frame
from tesserec.errors import DataError

SUFFIX = ".inter"
ATOMIC = Delimited("\t", quoted=False)


def event_files(files: Sequence[Path], named: Mapping[str, str]) -> list[Path]:
    """Those of some files that are logs of this format."""
    return [path for path in files if has_suffix(path, SUFFIX)]


def read(path: Path, items: Path | None, reading: Reading) -> Raw:
    """Read a log, and its item table: the one given, or the one beside it."""
    types = _typed_header(path)
    if types.get("item_id_list") == "token_seq":
        raise DataError(
            f"{path} holds one history per line (item_id_list), cut already. Give a log with one event per line."
        )
    columns = event_columns(list(types), reading.columns, where=str(path))
    table = read_delimited(path, ATOMIC, list(types), list(columns.values()), reading)
    reading.use(path, "interactions")
    reading.use_columns(path, columns)
    events = events_frame(table.frame, columns, reading, place=table.place)
    if users := _beside(path, ".user"):
        reading.use(users, "user attributes, not used")
    items = items or _beside(path, ".item")
    return Raw(events, _read_items(items, reading) if items else None)


def _read_items(path: Path, reading: Reading) -> pl.DataFrame:
    types = _typed_header(path)
    id_column = item_id_column(list(types), reading.columns, where=str(path))
    readable = [name for name, kind in types.items() if kind != "float_seq"]  # float_seq: vectors
    texts = chosen_texts(readable, id_column, reading, where=str(path))
    frame = read_delimited(path, ATOMIC, list(types), [id_column, *texts], reading).frame
    reading.use(path, f"items with {', '.join(texts) or 'no text'}")
    return items_frame(frame[id_column], {name: frame[name] for name in texts}, reading, where=str(path))


def _typed_header(path: Path) -> dict[str, str]:
    """Field name -> type of a header such as `user_id:token<tab>item_id:token<tab>timestamp:float`."""
    fields = [field.partition(":") for field in header_of(path, ATOMIC)]
    return {name: kind for name, _, kind in fields}


def _beside(path: Path, suffix: str) -> Path | None:
    """The file of the same name with another suffix."""
    return file_beside(path, stem_of(path, SUFFIX) + suffix)
