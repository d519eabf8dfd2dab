"""From what a reader produced to a data set: number, order, filter, and keep account of it."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from tesserec.data.dataset import Dataset
from tesserec.data.filtering import Log, counts_events, in_order, k_core, renumbered, without_repeats
from tesserec.data.prepare import PrepareConfig
from tesserec.data.raw import Raw, Reading
from tesserec.data.sequences import Sequences
from tesserec.errors import ConfigError, DataError
from tesserec.progress import Progress
from tesserec.types import BoolArray, IntArray


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


def assemble(raw: Raw, reading: Reading, config: PrepareConfig, *, source: str, format: str) -> Dataset:
    """Turn raw events and items into a data set whose report tells what became of them.

    Raises:
        DataError: there is no event, none is left, or the table of items is of other items.
        ConfigError: a filter by ratings without ratings.
    """
    if raw.events.is_empty():
        raise DataError(f"{source} holds no usable event ({reading.n_skipped} lines were skipped). Nothing to prepare.")
    log, user_ids, table = _numbered(raw, reading)
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
    kept = occurs.copy()
    if config.items_without_events == "keep":
        kept |= has_text | (config.items_without_text == "keep")
    users, kept_users = renumbered(log.users)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.bincount(users))])
    values = (np.cumsum(kept) - 1)[log.items].astype(np.int32)
    times = None if log.times is None else np.floor(log.times).astype(np.int64)
    if n_textless := int((kept & ~has_text).sum()):
        reading.note(f"{n_textless:,} of {kept.sum():,} items have no text")
    report = {
        "source": source,
        "format": format,
        "files": reading.files,
        "columns": reading.found,
        "lines_skipped": {"count": reading.n_skipped, "examples": reading.skipped},
        "stages": stages.rows,
        "items": {
            "kept": int(kept.sum()),
            "kept_without_text": n_textless,
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


def _numbered(raw: Raw, reading: Reading) -> tuple[Log, pl.Series, pl.DataFrame]:
    """The log with numbers for ids, the ids of its users, and the table of all items in their order."""
    users, user_ids = _encode(raw.events["user"])
    items, item_ids = _encode(raw.events["item"])
    table = raw.items if raw.items is not None else pl.DataFrame(schema={"item_id": pl.String})
    listed = set(table["item_id"])
    unlisted = sorted((one for one in item_ids if one not in listed), key=_hash)
    if len(table) and unlisted:
        if len(unlisted) == len(item_ids):
            raise DataError(
                f"None of the {len(item_ids):,} items of the log is in the table of items: the log has ids such as "
                f"{item_ids[:3].to_list()}, the table {table['item_id'][:3].to_list()}. Name the columns with "
                "--columns item=COLUMN,item_id=COLUMN, give the right table with --items, or the log alone as SOURCE."
            )
        reading.note(f"{len(unlisted):,} of {len(item_ids):,} items of the log are not in the table of items")
    table = pl.concat([table, pl.DataFrame({"item_id": unlisted}, schema={"item_id": pl.String})], how="diagonal")
    table = table.with_columns(pl.all().fill_null(""))
    row_of = {item_id: row for row, item_id in enumerate(table["item_id"])}
    rows = np.array([row_of[item_id] for item_id in item_ids], dtype=np.int32)
    numbers = {name: raw.events[name].to_numpy() for name in ("time", "rating") if name in raw.events.columns}
    return Log(users, rows[items], numbers.get("time"), numbers.get("rating")), user_ids, table


def _encode(ids: pl.Series) -> tuple[IntArray, pl.Series]:
    """(E,) int32 numbers in the order of first appearance, and the distinct ids."""
    encoded = ids.to_arrow().dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int32), pl.Series(encoded.dictionary)


def _hash(item_id: str) -> bytes:
    """Sorts items in an order that neither their names nor the log can be read from; the same on every machine."""
    return hashlib.blake2b(item_id.encode(), digest_size=8).digest()


def _has_text(table: pl.DataFrame) -> BoolArray:
    """(N,) whether an item has any text."""
    texts = [name for name in table.columns if name != "item_id"]
    if not texts:
        return np.zeros(len(table), dtype=np.bool_)
    return table.select(pl.any_horizontal(pl.col(texts) != "")).to_series().to_numpy()


def _filtered(log: Log, has_text: BoolArray, config: PrepareConfig, stages: Stages) -> Log:
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
