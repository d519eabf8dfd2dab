"""From a source to a prepared data set: read, clean, filter, order; and say what was dropped and why."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from tesserec.artifacts import require_place
from tesserec.config import to_dict
from tesserec.data.columns import parse_columns
from tesserec.data.dataset import Dataset
from tesserec.errors import ConfigError
from tesserec.progress import SILENT, Progress
from tesserec.types import PathLike

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from tesserec.data.raw import Reading

    Frame: TypeAlias = pl.DataFrame | pl.LazyFrame | pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How a source is read and what is kept of it. The defaults keep everything but exact repeats."""

    format: str = "auto"  # a name in tesserec.data.readers.FORMATS, or found out
    columns: tuple[str, ...] = ()  # role=column, as "user=uid"; roles: user, item, time, rating, item_id (of the items)
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
        if self.min_rating is not None and not math.isfinite(self.min_rating):
            raise ConfigError(f"min_rating is {self.min_rating}. Give a finite number, or none to keep every event.")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}. Use 0 or more.")
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
        ArtifactError: nothing can be written at `out`, or something else is there.
    """
    from tesserec.data.assembly import assemble
    from tesserec.data.readers import FORMATS, recognise

    config = config or PrepareConfig()
    if out is not None:
        require_place(out, kind="dataset")
    reading = _reading(config, progress)
    found = recognise(Path(source), format=config.format, items=Path(items) if items else None, named=reading.columns)
    progress.say(f"format: {found.format}")
    raw = [FORMATS[found.format].read(found.events, found.items, reading)]
    for file, why in found.others.items():
        if str(file) not in reading.files:
            reading.use(file, why)
    dataset = assemble(
        raw.pop(),  # not kept here: `assemble` frees it as soon as it can
        reading,
        config,
        source=str(found.events),
        format=found.format,
    )
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
    from tesserec.data.assembly import assemble
    from tesserec.data.readers.frames import read_frames

    config = config or PrepareConfig()
    reading = _reading(config, progress)
    raw = read_frames(interactions, items, reading)
    return assemble(raw, reading, config, source="the frame of interactions", format="frames")


def _reading(config: PrepareConfig, progress: Progress) -> "Reading":
    from tesserec.data.raw import Reading

    return Reading(
        columns=parse_columns(config.columns),
        text_columns=config.text_columns,
        timestamp_unit=config.timestamp_unit,
        with_ratings=config.min_rating is not None,
        on_error=config.on_error,
        progress=progress,
    )
