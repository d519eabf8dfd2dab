"""Tear-sheets side by side as a picture: a panel for each question, a colour and a marker for each tokenizer."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tesserec.evaluation.pictures import COLORS, GREY, page, write_picture

if TYPE_CHECKING:
    from tesserec.evaluation.tearsheet import Agreement
    from tesserec.evaluation.tearsheet_comparison import TearSheetComparison

COLUMNS = 3
MARKERS = "osD^vPX*<"  # one fewer than colours, so that a pair of both comes back only after 90 tokenizers
MANY_DEPTHS = 10  # above this, not every depth gets a tick
INK, UNKNOWN = "#222222", "#f1f2f4"


def draw(comparison: "TearSheetComparison", path: Path) -> None:
    """Write the picture; the suffix of `path` decides the format. Questions that nothing answers get no panel."""
    sheets = comparison.sheets.values()
    panels: list[Callable[[TearSheetComparison, Any], None]] = [_draw_use, _draw_prefixes, _draw_collisions]
    if any(sheet.neighbours for sheet in sheets):
        panels.append(_draw_neighbours)
    if any(sheet.together for sheet in sheets):
        panels.append(_draw_together)
    if any(sheet.popularity for sheet in sheets):
        panels.append(_draw_popularity)
    if comparison.pairs:
        panels.append(_draw_stability)
    rows = -(-len(panels) // COLUMNS)
    figure, axes = page(rows, COLUMNS, size=(4.5 * COLUMNS, 0.6 + 3.9 * rows))
    for panel, place in zip(panels, axes):
        panel(comparison, place)
    spare = axes[len(panels) :]
    for place in spare:
        place.set_axis_off()
    names = [axes[0].plot([], [], label=_short(name, 40), linewidth=1.8, **_style(number))[0]
             for number, name in enumerate(comparison.sheets)]  # fmt: skip
    if spare:
        spare[0].legend(handles=names, loc="center left", frameon=False, fontsize=10, labelspacing=0.7, borderaxespad=2)
    else:
        figure.legend(handles=names, loc="outside lower center", frameon=False, fontsize=10, ncols=min(len(names), 4))
    n_items = next(iter(sheets)).items
    figure.suptitle(f"{len(sheets)} tokenizers of {n_items:,} items", fontsize=14, weight="bold")
    write_picture(figure, path, dpi=105)


def _style(number: int) -> dict[str, Any]:
    return {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)], "markersize": 6}


def _draw_use(comparison: "TearSheetComparison", axes: Any) -> None:
    """Perplexity of every level as a share of its codebook."""
    deepest = 1
    for number, sheet in enumerate(comparison.sheets.values()):
        shares = [level.perplexity / level.size for level in sheet.levels if not level.extra]
        axes.plot(np.arange(1, len(shares) + 1), shares, linewidth=1.8, **_style(number))
        deepest = max(deepest, len(shares))
    _depth_ticks(axes, deepest)
    axes.set(xlabel="level", ylabel="perplexity / codewords", ylim=(0, 1.05), title="Evenness of code use")


def _draw_prefixes(comparison: "TearSheetComparison", axes: Any) -> None:
    """Distinct first codes, as a share of the items."""
    deepest = 1
    for number, sheet in enumerate(comparison.sheets.values()):
        shares = np.array(sheet.prefixes[: len(sheet.sharing)]) / sheet.items
        axes.plot(np.arange(1, len(shares) + 1), shares, linewidth=1.8, **_style(number))
        deepest = max(deepest, len(shares))
    _depth_ticks(axes, deepest)
    axes.set(xlabel="first codes", ylabel="distinct prefixes / items", ylim=(0, 1.05), title="Prefixes")


def _draw_collisions(comparison: "TearSheetComparison", axes: Any) -> None:
    """Share of items that share their ID: those of groups of one text in grey, the others in the tokenizer's colour."""
    from matplotlib.ticker import MaxNLocator

    names = list(comparison.sheets)
    largest = max(sheet.collisions.icr for sheet in comparison.sheets.values()) or 1.0
    grey_label: str | None = "all items of the group have one text"
    for number, sheet in enumerate(comparison.sheets.values()):
        found = sheet.collisions
        same = (found.identical_text_items or 0) / sheet.items
        axes.barh(number, found.icr - same, left=same, color=_style(number)["color"], height=0.62)
        if same:
            axes.barh(number, same, color=GREY, height=0.62, label=grey_label)
            grey_label = None
        words = f"{found.icr:.1%}, largest group {found.largest_group}"
        axes.annotate(words, (found.icr, number), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), [_short(name) for name in names], fontsize=8)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(_percent)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set(xlim=(0, largest * 1.75), xlabel="items that share their ID")
    axes.set_title("Collisions" + (" without the extra level" if _any_extra(comparison) else ""))
    if grey_label is None:
        axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14))


def _draw_neighbours(comparison: "TearSheetComparison", axes: Any) -> None:
    found = [sheet.neighbours for sheet in comparison.sheets.values()]
    _draw_agreement(found, axes, "Nearest embeddings")


def _draw_together(comparison: "TearSheetComparison", axes: Any) -> None:
    found = [sheet.together for sheet in comparison.sheets.values()]
    _draw_agreement(found, axes, "Items often taken together")


def _draw_agreement(found: Sequence["Agreement | None"], axes: Any, title: str) -> None:
    """Share of pairs with the same first codes, and below it, dotted, that of two random items."""
    deepest = 1
    for number, agreement in enumerate(found):
        if agreement is None:
            continue
        depths = np.arange(1, len(agreement.prefix) + 1)
        deepest = max(deepest, len(depths))
        axes.plot(depths, _positive(agreement.prefix), linewidth=1.8, **_style(number))
        chance = {**_style(number), "marker": None}
        axes.plot(depths, _positive(agreement.prefix_chance), linewidth=1.2, linestyle=":", alpha=0.9, **chance)
    axes.plot([], [], color=INK, linewidth=1.2, linestyle=":", label="two random items")
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    _depth_ticks(axes, deepest)
    axes.set(yscale="log", xlabel="first codes", ylabel="pairs that share them", title=title)


def _draw_popularity(comparison: "TearSheetComparison", axes: Any) -> None:
    """Share of items that share their ID, among those that carry each third of the training events."""
    sheets = list(comparison.sheets.values())
    for number, sheet in enumerate(sheets):
        if sheet.popularity is None:
            continue
        thirds = (sheet.popularity.head, sheet.popularity.mid, sheet.popularity.tail)
        at = np.arange(3) + (number - (len(sheets) - 1) / 2) * min(0.12, 0.7 / len(sheets))
        axes.plot(
            at, [np.nan if third.icr is None else third.icr for third in thirds], linestyle="none", **_style(number)
        )
    one = next(sheet.popularity for sheet in sheets if sheet.popularity)  # the thirds are the same for all
    names = [f"{name}\n{third.items:,} items\n{third.events:.0%} of events"
             for name, third in (("head", one.head), ("mid", one.mid), ("tail", one.tail))]  # fmt: skip
    axes.set_xticks(range(3), names, fontsize=8.5)
    axes.margins(y=0.1)
    axes.set(xlim=(-0.5, 2.5), ylabel="items that share their ID", title="Collisions by popularity")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_percent)


def _draw_stability(comparison: "TearSheetComparison", axes: Any) -> None:
    """Adjusted Rand index of the groups by first code, for each pair that was measured."""
    names = [name for name in comparison.sheets if any(name in (pair.first, pair.second) for pair in comparison.pairs)]
    values = np.full((len(names), len(names)), np.nan)
    for pair in comparison.pairs:
        row, column = names.index(pair.first), names.index(pair.second)
        values[row, column] = values[column, row] = pair.figures.rand[0]
    axes.set_facecolor(UNKNOWN)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(~np.isnan(values)):
        value = values[row, column]
        color = "white" if value > 0.6 else INK
        axes.annotate(
            f"{value:.2f}", (column, row), ha="center", va="center", fontsize=9 if len(names) < 8 else 6.5, color=color
        )
    ticks = range(len(names))
    axes.set_yticks(ticks, [_short(name) for name in names], fontsize=8)
    axes.set_xticks(ticks, [_short(name) for name in names], fontsize=8, rotation=30, ha="right")
    axes.spines[:].set_visible(False)
    axes.set_title("Stability of the first code's groups\n(adjusted Rand index)", fontsize=11)


def _any_extra(comparison: "TearSheetComparison") -> bool:
    return any(level.extra for sheet in comparison.sheets.values() for level in sheet.levels)


def _percent(value: float, _: int) -> str:
    return f"{100 * value:g}%"


def _positive(values: Sequence[float]) -> list[float]:
    """For a logarithmic axis: gaps instead of zeros."""
    return [value if value > 0 else np.nan for value in values]


def _depth_ticks(axes: Any, deepest: int) -> None:
    if deepest <= MANY_DEPTHS:
        axes.set_xticks(range(1, deepest + 1))
        axes.set_xlim(0.8, deepest + 0.2)


def _short(name: str, most: int = 22) -> str:
    """A name for the side of a panel; of a long one, its end."""
    return name if len(name) <= most else "…" + name[-(most - 1) :]
