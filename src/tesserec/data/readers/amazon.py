"""Amazon reviews, editions 2014, 2018 and 2023: raw review files and their metadata, gzipped or not.

| edition | reviews | metadata |
|---|---|---|
| 2014 | reviews_NAME.json.gz, reviews_NAME_5.json.gz | meta_NAME.json.gz: Python literals, nested lists of categories |
| 2018 | NAME.json.gz, NAME_5.json.gz | meta_NAME.json.gz: some titles are scraped page scripts |
| 2023 | NAME.jsonl.gz: times in milliseconds, items by parent_asin | meta_NAME.jsonl.gz |

The text columns have the same names for all: title, brand, categories, features, description.
"""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from tesserec.artifacts import parse_json
from tesserec.data.columns import event_columns
from tesserec.data.files import file_beside, has_suffix, plain_name, read_json, read_json_table
from tesserec.data.raw import Raw, Reading, chosen_texts, events_frame, items_frame
from tesserec.data.readers.tables import JSON_LINES, names_of
from tesserec.errors import DataError

REVIEWS = ({"reviewerID", "asin", "unixReviewTime"}, {"user_id", "parent_asin", "timestamp"})  # 2014 and 2018; 2023
ITEM_IDS = ("parent_asin", "asin")
TEXTS = {  # our column -> the fields that hold it, by edition
    "title": ("title",),
    "brand": ("brand", "store"),
    "categories": ("categories", "category"),
    "features": ("features", "feature"),
    "description": ("description",),
}


def event_files(files: Sequence[Path], named: Mapping[str, str]) -> list[Path]:
    """Those of some files that are reviews."""
    return [path for path in files if has_suffix(path, *JSON_LINES) and _holds_reviews(path, named)]


def _holds_reviews(path: Path, named: Mapping[str, str]) -> bool:
    try:
        names = set(names_of(path, named))
    except DataError:
        return False
    return any(fields <= names for fields in REVIEWS)


def read(path: Path, items: Path | None, reading: Reading) -> Raw:
    """Read reviews as events, and the metadata: the file given, or meta_NAME beside the reviews."""
    columns = event_columns(names_of(path, reading.columns), reading.columns, where=str(path))
    reading.use(path, "interactions")
    reading.use_columns(path, columns)
    table = read_json_table(path, columns, reading)
    events = events_frame(table.frame, columns, reading, place=table.place)
    items = items or _metadata_beside(path)
    return Raw(events, _read_metadata(items, reading) if items else None)


def _read_metadata(path: Path, reading: Reading) -> pl.DataFrame:
    names = chosen_texts(list(TEXTS), "", reading, where=str(path))
    item_ids: list[Any] = []
    texts: dict[str, list[Any]] = {name: [] for name in names}
    for _, record in read_json(path, reading, parse=_json_or_literal):
        item_ids.append(_first(record, ITEM_IDS))
        for name in names:
            texts[name].append(_first(record, TEXTS[name]))
    reading.use(path, f"items with {', '.join(names)}")
    return items_frame(item_ids, texts, reading, where=str(path))


def _first(record: Mapping[str, Any], fields: Sequence[str]) -> Any:
    return next((record[field] for field in fields if record.get(field)), None)


def _json_or_literal(line: str) -> Any:
    try:
        return parse_json(line)
    except ValueError:
        pass
    try:
        return ast.literal_eval(line)
    except (TypeError, MemoryError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _metadata_beside(path: Path) -> Path | None:
    stem = plain_name(path).rsplit(".", 1)[0].removeprefix("reviews_").removesuffix("_5")
    return file_beside(path, *(f"meta_{stem}{kind}" for kind in JSON_LINES))
