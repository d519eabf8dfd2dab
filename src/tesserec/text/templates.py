"""Item -> text: a template over the columns of the item table, or one text per column."""

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tesserec.config import nearest
from tesserec.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

SEPARATORS = " .,;:|/-"  # what may be left at the start of a text when its first fields are missing


def render(items: "pl.DataFrame", template: str | None = None) -> list[str]:
    """One text per item.

    A missing or blank field goes together with the words before it, the last one also with those after it, so that
    `"{title}. Brand: {brand}."` gives `"Red pen"` for an item without a brand. An item without any of the fields has
    the text "".

    Args:
        items: one row per item.
        template: such as `"{title}. {category}. {brand}"`; None joins all text columns but `item_id` with `". "`.

    Raises:
        ConfigError: the template names a column that there is not, or none at all.
    """
    if template is None:
        template = ". ".join(f"{{{column}}}" for column in text_columns(items))
    try:
        pieces = [(before, field) for before, field, _, _ in string.Formatter().parse(template)]
    except ValueError as error:
        raise ConfigError(
            f"text.template is {template!r}: {error}. Write columns in braces, as in '{{title}}.'"
        ) from None
    fields = [field for _, field in pieces if field is not None]
    if not fields:
        raise ConfigError(f"text.template is {template!r} and names no column. {nearest('', text_columns(items))}")
    columns = {field: column_texts(items, field) for field in fields}
    return [_fill(pieces, {field: columns[field][row] for field in fields}) for row in range(len(items))]


def column_texts(items: "pl.DataFrame", column: str) -> list[str]:
    """A column's values as stripped text, "" where there is none; lists are joined by commas."""
    if column not in items.columns:
        raise ConfigError(f"The items have no column {column!r}. {nearest(column, items.columns)}")
    return [_text(value) for value in items[column].to_list()]


def text_columns(items: "pl.DataFrame") -> list[str]:
    """The columns that hold text, without `item_id`, in the order of the table.

    Raises:
        ConfigError: there is none.
    """
    import polars as pl

    found = [
        name
        for name, kind in items.schema.items()
        if name != "item_id" and (kind == pl.String or (isinstance(kind, pl.List) and kind.inner == pl.String))
    ]
    if not found:
        raise ConfigError(
            f"The items have no text, only {', '.join(items.columns)}. Prepare the data with item texts, or import "
            "ready embeddings or semantic IDs."
        )
    return found


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(str(part).strip() for part in value if part is not None and str(part).strip())
    return str(value).strip()


def _fill(pieces: Sequence[tuple[str, str | None]], values: dict[str, str]) -> str:
    text, present = "", False
    for before, field in pieces:
        if field is None:  # what follows the last field
            text = _join(text, before) if present else text
        elif present := bool(values[field]):
            text = _join(text, before + values[field]) if text else (before + values[field]).lstrip(SEPARATORS)
    return text.strip()


def _join(text: str, more: str) -> str:
    """Both together, without doubling a full stop that ends one and begins the other."""
    return text + (more[1:] if text.endswith(".") and more.startswith(".") else more)
