"""From a source to a prepared data set: read, clean, filter, order; and say what was dropped and why."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from tesserec.config import to_dict
from tesserec.data.columns import parse_columns
from tesserec.data.dataset import Dataset
from tesserec.data.filtering import Log, counts_events, in_order, k_core, renumbered, without_repeats
from tesserec.data.sequences import Sequences
from tesserec.errors import ConfigError, DataError
from tesserec.progress import SILENT, Progress
from tesserec.types import BoolArray, IntArray, PathLike

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from tesserec.data.raw import Raw, Reading

    Frame: TypeAlias = pl.DataFrame | pl.LazyFrame | pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How a source is read and what is kept of it. The defaults keep everything but exact repeats."""

    format: str = "auto"  # a name in tesserec.data.readers.FORMATS, or found out
    columns: tuple[
        str, ...
    ] = ()  # "user=uid", "item=sku", "time=when", "rating=stars", "item_id=sku": others are found
    text_columns: tuple[str, ...] = ()  # of the item table; none named: all that are text
    timestamp_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    min_rating: float | None = None  # events rated below it are dropped
    repeats: Literal["keep", "exact", "first", "last"] = "exact"  # of a user and item; exact: also of the same time
    k_core: int = 1  # every user and every item keeps so many events or more
    ties: Literal["file", "shuffled"] = "file"  # events of a user at the same time: as in the file, or by seed
    items_without_text: Literal["keep", "drop"] = "keep"
    items_without_events: Literal["keep", "drop"] = "drop"  # items of the item table that occur in no kept event
    on_error: Literal["raise", "skip"] = "raise"  # what to do about malformed lines
    seed: int = 0  # of shuffled ties

    def __post_init__(self) -> None:
        if self.k_core < 1:
            raise ConfigError(f"k_core is {self.k_core}. Use 1 to keep everything, or more.")
        parse_columns(self.columns)


def prepare(
    source: PathLike,
    *,
    config: PrepareConfig | None = None,
    items: PathLike | None = None,
    out: PathLike | None = None,
    progress: Progress = SILENT,
) -> Dataset:
    """Read a log and its item table from a file or folder, and prepare them.

    Users are numbered in the order in which the log first names them. Items keep the order of their table; items that
    it lacks (all of them where there is no table) follow in the order of a hash of their ids, which tells a model
    nothing, neither name nor first appearance. `Dataset.report` says what was read, found and dropped, and why.

    Args:
        source: a log, or a folder with one log and perhaps one table of items.
        items: the table of items, if it lies elsewhere.
        out: folder for the artefact; the data set that is returned is then memory-mapped from there.

    Raises:
        DataError: the source is missing, not recognised, ambiguous, malformed, or nothing of it is left.
        ConfigError: there is no such format, or a setting does not fit the source.
    """
    from tesserec.data.readers import FORMATS, recognise

    config = config or PrepareConfig()
    reading = _reading(config, progress)
    found = recognise(Path(source), format=config.format, items=Path(items) if items else None, named=reading.columns)
    progress.say(f"format: {found.format}")
    raw = FORMATS[found.format].read(found.events, found.items, reading)
    dataset = _assemble(raw, reading, config, source=str(found.events), format=found.format)
    if out is None:
        return dataset
    dataset.save(out, config=to_dict(config))
    return Dataset.load(out)


def from_frames(
    interactions: "Frame",
    items: "Frame | None" = None,
    *,
    config: PrepareConfig | None = None,
    progress: Progress = SILENT,
) -> Dataset:
    """Prepare Polars or pandas frames; otherwise as `prepare`."""
    from tesserec.data.readers.frames import read_frames

    config = config or PrepareConfig()
    reading = _reading(config, progress)
    raw = read_frames(interactions, items, reading)
    return _assemble(raw, reading, config, source="frame of interactions", format="frames")


def _reading(config: PrepareConfig, progress: Progress) -> "Reading":
    from tesserec.data.raw import Reading

    return Reading(
        columns=parse_columns(config.columns),
        text_columns=config.text_columns,
        timestamp_unit=config.timestamp_unit,
        on_error=config.on_error,
        progress=progress,
    )


def _assemble(raw: "Raw", reading: "Reading", config: PrepareConfig, *, source: str, format: str) -> Dataset:
    if raw.events.is_empty():
        raise DataError(f"{source} holds no usable event ({reading.n_skipped} lines were skipped). Nothing to prepare.")
    log, user_ids, table = _numbered(raw)
    del raw  # its columns of text are most of the memory
    has_text = _has_text(table)
    stages = Stages(reading.progress)
    stages.add("read", log)
    log = in_order(log, ties=config.ties, seed=config.seed)
    if counts_events(log):
        reading.note("the times only number each user's events: they give the order and are not kept as times")
        log = replace(log, times=None)
    log = _filtered(log, has_text, config, stages)
    if not len(log):
        raise DataError(f"Nothing of {source} is left: {stages}. Lower k_core or min_rating, or give more data.")

    occurs = np.bincount(log.items, minlength=len(table)) > 0
    kept = (
        occurs if config.items_without_events == "drop" else occurs | (has_text | (config.items_without_text == "keep"))
    )
    users, kept_users = renumbered(log.users)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.bincount(users))])
    values = (np.cumsum(kept) - 1)[log.items].astype(np.int32)
    times = None if log.times is None else np.floor(log.times).astype(np.int64)
    report = {
        "source": source,
        "format": format,
        "files": reading.files,
        "columns": reading.found,
        "lines_skipped": {"count": reading.n_skipped, "examples": reading.skipped},
        "stages": stages.rows,
        "items": {
            "kept": int(kept.sum()),
            "kept_without_text": int((kept & ~has_text).sum()),
            "kept_without_events": int((kept & ~occurs).sum()),
            "dropped": int((~kept).sum()),
        },
        "users_with_fewer_than_3_events": int((np.diff(offsets) < 3).sum()),
        "order": _order_report(log, offsets, config),
        "notes": reading.notes,
    }
    return Dataset(
        table.filter(kept),
        tuple(user_ids.gather(kept_users).to_list()),
        Sequences.from_offsets(values, offsets, times),
        report=report,
    )


def _numbered(raw: "Raw") -> tuple[Log, "pl.Series", "pl.DataFrame"]:
    """The log with numbers for ids, the ids of its users, and the table of all items in their order."""
    import polars as pl

    users, user_ids = _encode(raw.events["user"])
    items, item_ids = _encode(raw.events["item"])
    table = raw.items if raw.items is not None else pl.DataFrame(schema={"item_id": pl.String})
    listed = set(table["item_id"])
    unlisted = sorted((one for one in item_ids if one not in listed), key=hash_of_id)
    texts = {name: "" for name in table.columns if name != "item_id"}
    table = pl.concat([table, pl.DataFrame({"item_id": unlisted}, schema={"item_id": pl.String}).with_columns(
        pl.lit(text).alias(name) for name, text in texts.items())])  # fmt: skip
    row_of = {item_id: row for row, item_id in enumerate(table["item_id"])}
    rows = np.array([row_of[item_id] for item_id in item_ids], dtype=np.int32)
    numbers = {name: raw.events[name].to_numpy() for name in ("time", "rating") if name in raw.events.columns}
    return Log(users, rows[items], numbers.get("time"), numbers.get("rating")), user_ids, table


def _encode(ids: "pl.Series") -> tuple[IntArray, "pl.Series"]:
    """(E,) int32 numbers in the order of first appearance, and the distinct ids."""
    import polars as pl

    encoded = ids.to_arrow().dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int32), pl.Series(encoded.dictionary)


def hash_of_id(item_id: str) -> bytes:
    """Sorts items in an order that neither their names nor the log can be read from; the same on every machine."""
    return hashlib.blake2b(item_id.encode(), digest_size=8).digest()


def _has_text(table: "pl.DataFrame") -> BoolArray:
    """(N,) whether an item has any text."""
    import polars as pl

    texts = [name for name in table.columns if name != "item_id"]
    if not texts:
        return np.zeros(len(table), dtype=np.bool_)
    return table.select(pl.any_horizontal(pl.col(texts) != "")).to_series().to_numpy()


def _filtered(log: Log, has_text: BoolArray, config: PrepareConfig, stages: "Stages") -> Log:
    """What the configuration keeps of an ordered log, noted step by step."""
    if config.min_rating is not None:
        if log.ratings is None:
            raise ConfigError(
                "min_rating is set, but no column of ratings was found. Name it with --columns rating=COLUMN."
            )
        log = log.take(log.ratings >= config.min_rating)
        stages.add(f"rated {config.min_rating:g} or more", log)
    log = replace(log, ratings=None)
    if config.repeats != "keep":
        log = log.take(without_repeats(log, config.repeats))
        stages.add(f"repeats: {config.repeats}", log)
    if config.items_without_text == "drop":
        log = log.take(has_text[log.items])
        stages.add("items with text", log)
    if config.k_core > 1:
        log = log.take(k_core(log.users, log.items, config.k_core))
        stages.add(f"{config.k_core}-core", log)
    return log


def _order_report(log: Log, offsets: IntArray, config: PrepareConfig) -> dict[str, Any]:
    """How events were ordered, and how much hangs on the rule for ties."""
    if log.times is None:
        return {"by": "place in the file"}
    tied = (np.diff(log.times) == 0) & (np.diff(log.users) == 0)  # (E - 1,) event e + 1 with event e
    lasts = offsets[1:][np.diff(offsets) >= 2] - 2
    return {
        "by": "time",
        "ties": config.ties,
        "events_tied_with_the_one_before": int(tied.sum()),
        "users_whose_last_two_events_are_tied": int(tied[lasts].sum()),
    }


@dataclass
class Stages:
    """The account of what every step left."""

    progress: Progress
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, stage: str, log: Log) -> None:
        before = self.rows[-1]["interactions"] if self.rows else len(log)
        row = {"stage": stage, **log.counts(), "dropped": before - len(log)}
        self.rows.append(row)
        self.progress.say(_told(row))

    def __str__(self) -> str:
        return "; ".join(map(_told, self.rows))


def _told(row: dict[str, Any]) -> str:
    dropped = f" ({row['dropped']:,} dropped)" if row["dropped"] else ""
    return (
        f"{row['stage']}: {row['users']:,} users, {row['items']:,} items, {row['interactions']:,} interactions{dropped}"
    )
