"""What a language model reads and writes of an item: a title and a description."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tesserec.errors import ConfigError
from tesserec.text.templates import column_texts, render, text_columns

if TYPE_CHECKING:
    import polars as pl

TITLE_COLUMNS = ("title", "name")
TITLE_WORDS = 12  # of a text that has to serve as title
PUNCTUATION = " \t\n.,;:!?-|/'\""  # stripped from both ends of a title


@dataclass(frozen=True)
class ItemTexts:
    """N titles and N descriptions, "" where there is none."""

    titles: list[str]
    descriptions: list[str]


def item_texts(items: "pl.DataFrame", title: str | None = None, description: str | None = None) -> ItemTexts:
    """Titles and descriptions from the columns of the items.

    Without templates, the title is the column `title` or `name`, and the description all other text columns. Where
    there is neither column, the first text column gives both: its first words are the title, and the text (with what
    other columns have) the description.

    Args:
        items: one row per item.
        title, description: templates such as `"{title} by {brand}"`.

    Raises:
        ConfigError: a template names a column that there is not, or no item has a title.
    """
    columns = text_columns(items)
    named = [column for column in TITLE_COLUMNS if column in columns]
    if title is not None:
        titles = render(items, title)
    elif named:
        titles = column_texts(items, named[0])
    else:
        titles = [" ".join(text.split()[:TITLE_WORDS]) for text in column_texts(items, columns[0])]
    if description is None:
        others = [column for column in columns if title is not None or column not in named[:1]]
        description = ". ".join(f"{{{column}}}" for column in others)
    descriptions = render(items, description) if description else [""] * len(titles)
    titles = [text.strip(PUNCTUATION) for text in titles]
    if not any(titles):
        raise ConfigError("No item has a title. Set recommender.title to a template such as '{name}'.")
    return ItemTexts(titles, [" ".join(text.split()) for text in descriptions])
