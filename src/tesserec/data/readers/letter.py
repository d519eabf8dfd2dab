"""LETTER and LC-Rec JSON: NAME.inter.json (user -> items, oldest first), NAME.item.json (item -> texts).

Where there is no item file, two other files are used. NAME.index.json holds semantic IDs; they are no interactions and
are not read here, but their keys give the items and their order, so that row i keeps belonging to key i of side files.
NAME.attributes.json gives what S3-Rec publishes instead of texts: item -> attributes, as a rule anonymous numbers. They
become one text column, a word per attribute.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from tesserec.data.files import file_beside, has_suffix, json_document, stem_of
from tesserec.data.raw import Raw, Reading, chosen_texts, id_text, items_frame
from tesserec.errors import DataError

SUFFIX = ".inter.json"


def event_files(files: Sequence[Path], named: Mapping[str, str]) -> list[Path]:
    """Those of some files that are logs of this format."""
    return [path for path in files if has_suffix(path, SUFFIX)]


def read(path: Path, items: Path | None, reading: Reading) -> Raw:
    """Read histories, and the item file: the one given, or the one beside it."""
    histories = _mapping(path)
    reading.use(path, "interactions: one history per user, oldest item first")
    for user, history in histories.items():
        if not isinstance(history, list):
            raise DataError(f"{path}: the history of user {user!r} is {history!r}. It should be a list of items.")
    lists = pl.DataFrame(
        {"user": list(histories), "item": [_ids(history, path) for history in histories.values()]},
        schema={"user": pl.String, "item": pl.List(pl.String)},
    )
    events = lists.filter(pl.col("item").list.len() > 0).explode("item")
    index = _beside(path, ".index.json")
    if index:
        reading.use(index, "semantic IDs, not interactions; import them as such to use them")
    if items := items or _beside(path, ".item.json"):
        return Raw(events, _read_items(items, reading))
    attributes = _beside(path, ".attributes.json")
    if index or attributes:
        of_items = _read_attributes(attributes, reading) if attributes else {}
        ids = _mapping(index) if index else of_items
        columns = {"attributes": [of_items.get(item) for item in ids]} if attributes else {}
        return Raw(events, items_frame(ids, columns, reading, where=str(index or attributes)))
    return Raw(events)


def _read_attributes(path: Path, reading: Reading) -> dict[str, str]:
    """Item -> its attributes as words: "attribute_17, attribute_28"; bare numbers would pass for quantities."""
    words = dict[str, str]()
    for item, attributes in _mapping(path).items():
        if not isinstance(attributes, list):
            raise DataError(f"{path}: the attributes of item {item!r} are {attributes!r}. They should be a list.")
        words[item] = ", ".join(f"attribute_{attribute}" for attribute in _ids(attributes, path) if attribute)
    chosen_texts(["attributes"], "", reading, where=str(path))  # raises where others were asked for
    reading.use(path, "attributes of the items, the words of their texts")
    return words


def _read_items(path: Path, reading: Reading) -> pl.DataFrame:
    items = _mapping(path)
    rows = [fields if isinstance(fields, dict) else {"title": fields} for fields in items.values()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = chosen_texts(names, "", reading, where=str(path))
    reading.use(path, f"items with {', '.join(texts) or 'no text'}")
    return items_frame(items, {name: [row.get(name) for row in rows] for name in texts}, reading, where=str(path))


def _ids(history: Sequence[Any], path: Path) -> list[str | None]:
    try:
        return [id_text(item) for item in history]
    except ValueError as error:
        raise DataError(f"{path}: {error}. Correct the list that holds it.") from None


def _mapping(path: Path) -> dict[str, Any]:
    content = json_document(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a JSON {type(content).__name__}. It should be one object keyed by id.")
    return content


def _beside(path: Path, suffix: str) -> Path | None:
    return file_beside(path, stem_of(path, SUFFIX) + suffix)
