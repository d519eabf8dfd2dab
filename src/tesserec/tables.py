"""Tables of text, for terminals and in Markdown, and the figures in them."""

from collections.abc import Sequence

NO_FIGURE = "-"
MEGABYTE = 1e6


def over_seeds(mean: float, deviation: float | None) -> str:
    """A mean, and the deviation over seeds where there are several.

    >>> over_seeds(0.25, 0.01)
    '0.2500 ± 0.0100'
    """
    return f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def amount(value: float | None) -> str:
    """A count or a cost: whole, but for small ones that are not.

    >>> amount(1234.5), amount(0.42), amount(None)
    ('1,234', '0.42', '-')
    """
    if value is None:
        return NO_FIGURE
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.2g}"


def capital(text: str) -> str:
    """A sentence's beginning; the rest of it stays as it is."""
    return text[:1].upper() + text[1:]


def format_table(rows: Sequence[Sequence[str]], *, align: str) -> str:
    """Rows of equally many cells as aligned columns.

    Args:
        align: `l` or `r` for each column; the last letter stands for all further columns, too.

        >>> print(format_table([["", "@5"], ["recall", ".25"], ["mrr", ".1"]], align="lr"))
                 @5
        recall  .25
        mrr      .1
    """
    n_columns = len(rows[0])
    sides = align + align[-1] * (n_columns - len(align))
    widths = [max(len(row[column]) for row in rows) for column in range(n_columns)]
    pad = {"l": str.ljust, "r": str.rjust}
    return "\n".join(
        "  ".join(pad[side](cell, width) for cell, side, width in zip(row, sides, widths)).rstrip() for row in rows
    )


def markdown_table(rows: Sequence[Sequence[str]], *, align: str) -> str:
    """Rows of equally many cells as a Markdown table; the first row is its header.

    Args:
        align: as for `format_table`.

    >>> print(markdown_table([["", "@5"], ["recall|hit", ".25"]], align="lr"))
    |  | @5 |
    |:---|---:|
    | recall\\|hit | .25 |
    """
    header, *others = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    sides = {"l": ":---", "r": "---:"}
    rule = "|".join(sides[side] for side in align + align[-1] * (len(header) - len(align)))
    lines = [f"| {' | '.join(row)} |" for row in (header, *others)]
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])
