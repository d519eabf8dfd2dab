"""What items have in common: values of columns, or words of their texts, as short lists per item."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tesserec.artifacts import fingerprint_bytes
from tesserec.config import nearest
from tesserec.data.sequences import Sequences
from tesserec.errors import ConfigError, DataError
from tesserec.text.templates import render, text_columns

if TYPE_CHECKING:
    import polars as pl

WORD = re.compile(r"[^\W\d_]{2,}")
EVERYWHERE = 0.25  # a word in more than this share of the items says little of any: "for", the shop's own category
RARE = 2  # an attribute of fewer items says nothing of others


@dataclass(frozen=True, eq=False)
class Attributes:
    """Attributes of N items: each has any number of A."""

    names: tuple[str, ...]  # A, most frequent first
    of_items: Sequences  # N sequences of rows of `names`, ascending and distinct; empty where nothing is known

    @property
    def fingerprint(self) -> str:
        values, offsets = self.of_items.flat()
        return fingerprint_bytes("\n".join(self.names).encode(), values.astype(np.int32).tobytes(), offsets.tobytes())


def column_attributes(
    items: "pl.DataFrame", columns: Sequence[str], *, separator: str = ",", at_most: int = 1000
) -> Attributes:
    """The values of columns; a value may be a list, or text with a separator between several.

    Args:
        items: one row per item.
        columns: names of columns; equal values of two columns are two attributes.
        separator: "" where every text is one value.
        at_most: so many attributes are kept, the most frequent ones that two items or more have.

    Raises:
        ConfigError: there is no such column, or none is named.
        DataError: no value is shared by two items.
    """
    if not columns:
        raise ConfigError(f"No column of attributes is named. {nearest('', set(items.columns) - {'item_id'})}")
    found: list[set[str]] = [set() for _ in range(len(items))]
    for column in columns:
        if column not in items.columns:
            raise ConfigError(f"The items have no column {column!r}. {nearest(column, items.columns)}")
        for of_item, value in zip(found, items[column].to_list(), strict=True):
            parts = value if isinstance(value, list) else str(value).split(separator) if separator else [str(value)]
            texts = [] if value is None else [str(part).strip() for part in parts if part is not None]
            of_item.update(f"{column}: {text}" for text in texts if text)
    return _most_frequent(found, at_most, len(items), f"in the column(s) {', '.join(columns)}")


def word_attributes(items: "pl.DataFrame", *, at_most: int = 1000) -> Attributes:
    """The most frequent words of the items' texts, but for those in more than a quarter of them.

    Args:
        items: one row per item, with text columns.
        at_most: so many words.

    Raises:
        ConfigError: the items have no text.
        DataError: no word is shared by two items, and not by too many.
    """
    text_columns(items)  # raises where there is none
    found = [set(WORD.findall(text.lower())) for text in render(items)]
    return _most_frequent(found, at_most, max(round(EVERYWHERE * len(items)), RARE), "among the words of the texts")


def _most_frequent(found: Sequence[Iterable[str]], at_most: int, n_items: int, where: str) -> Attributes:
    """The attributes of RARE to `n_items` items, at most so many; equally frequent ones by name."""
    counts = Counter(name for of_item in found for name in of_item)
    shared = sorted((-count, name) for name, count in counts.items() if RARE <= count <= n_items)
    names = tuple(name for _, name in shared[:at_most])
    if not names:
        raise DataError(
            f"The {len(found)} items have no attribute {where} that two of them share (and, of words, not more than "
            f"{EVERYWHERE:.0%}). Name other columns of attributes, or train without."
        )
    rows = {name: row for row, name in enumerate(names)}
    return Attributes(
        names, Sequences.from_lists([sorted(rows[name] for name in each if name in rows) for each in found])
    )
