"""Polars and pandas frames from Python."""

from typing import TYPE_CHECKING, TypeAlias

import polars as pl
import pyarrow as pa

from tesserec.data.columns import event_columns, item_id_column
from tesserec.data.raw import Raw, Reading, chosen_texts, events_frame, items_frame
from tesserec.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    Frame: TypeAlias = pl.DataFrame | pl.LazyFrame | pd.DataFrame


def read_frames(interactions: "Frame", items: "Frame | None", reading: Reading) -> Raw:
    """Take a log and an item table whose columns are found as those of files are."""
    log = _polars(interactions, "the frame of interactions")
    columns = event_columns(log.columns, reading.columns, where="the frame of interactions")
    reading.found |= {role: repr(column) for role, column in columns.items()}
    events = events_frame(log, columns, reading, place=lambda row: f"interactions, row {row}")
    if items is None:
        return Raw(events)
    table = _polars(items, "the frame of items")
    id_column = item_id_column(table.columns, reading.columns, where="the frame of items")
    texts = chosen_texts(table.columns, id_column, reading, where="the frame of items")
    return Raw(events, items_frame(table[id_column], {name: table[name] for name in texts}, reading,
                                   where="the frame of items"))  # fmt: skip


def _polars(frame: "Frame", where: str) -> pl.DataFrame:
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if not hasattr(frame, "columns"):
        raise DataError(f"{where} is a {type(frame).__name__}. Give a Polars or pandas frame.")
    try:
        return pl.from_pandas(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:  # of columns that hold values of several kinds
        raise DataError(
            f"{where} cannot be read: {str(error).rstrip('.')}. Give columns of different names, each of text, numbers "
            "or dates alone."
        ) from None
