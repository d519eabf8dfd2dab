"""The tear-sheet as a picture: four panels on one page."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tesserec.evaluation.pictures import COLORS, GREY, page, write_picture

if TYPE_CHECKING:
    from tesserec.evaluation.tearsheet import TearSheet

MANY_LEVELS = 8  # above this, levels are drawn in one colour and named once
GROUP_BINS = ((2, 2), (3, 3), (4, 5), (6, 10), (11, 20), (21, 50), (51, 10**9))


def draw(sheet: "TearSheet", path: Path) -> None:
    """Write the picture; the suffix of `path` decides the format."""
    figure, (use, prefixes, collisions, agreement) = page(2, 2, size=(12, 8.5))
    _draw_use(sheet, use)
    _draw_prefixes(sheet, prefixes)
    _draw_collisions(sheet, collisions)
    _draw_agreement(sheet, agreement)
    figure.suptitle(f"Semantic IDs of {sheet.items:,} items, {len(sheet.levels)} levels", fontsize=14, weight="bold")
    write_picture(figure, path)


def _draw_use(sheet: "TearSheet", axes: Any) -> None:
    """Per level: how far each code, from the most to the least frequent, is above or below an equal share."""
    from matplotlib.ticker import LogLocator, NullFormatter

    many = len(sheet.levels) > MANY_LEVELS
    for number, (level, counts) in enumerate(zip(sheet.levels, sheet.code_counts, strict=True)):
        if level.extra:
            continue  # places in a group are no codes to be used evenly
        share = np.array(counts) / sum(counts) * level.size
        label = f"level {number + 1}: {level.used} of {level.size} used, perplexity {level.perplexity:.0f}"
        axes.plot(
            np.arange(1, len(share) + 1) / level.size,
            share,
            color=COLORS[0] if many else COLORS[number % len(COLORS)],
            linewidth=1.8,
            alpha=0.4 if many else 1.0,
            label=None if many else label,
        )
    axes.axhline(1, color="black", linewidth=0.8)
    axes.annotate("equal share", (1, 1), xytext=(0, 3), textcoords="offset points", ha="right", fontsize=8)
    axes.set(yscale="log", xlim=(0, 1.02), xlabel="codes of the level, most frequent first (share of the codebook)",
             ylabel="items with the code / equal share", title="Code use")  # fmt: skip
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    if not many:
        axes.legend(fontsize=8, frameon=False, loc="upper right")


def _draw_prefixes(sheet: "TearSheet", axes: Any) -> None:
    """Distinct prefixes per depth, up to the number of items."""
    depths = np.arange(1, len(sheet.prefixes) + 1)
    colors = [GREY if level.extra else COLORS[0] for level in sheet.levels]
    axes.bar(depths, sheet.prefixes, color=colors, width=0.6)
    axes.axhline(sheet.items, color="black", linewidth=0.8, linestyle=":")
    axes.annotate(f"{sheet.items:,} items", (depths[0] - 0.4, sheet.items), xytext=(0, 3), textcoords="offset points",
                  fontsize=8)  # fmt: skip
    if len(depths) <= MANY_LEVELS:
        for depth, count in zip(depths, sheet.prefixes, strict=True):
            inside = count > 0.9 * sheet.items
            axes.annotate(f"{count:,}", (depth, count), xytext=(0, -12 if inside else 3), textcoords="offset points",
                          ha="center", fontsize=9, color="white" if inside else "black")  # fmt: skip
        axes.set_xticks(depths, [f"{d}\n(extra)" if level.extra else f"{d}" for d, level in zip(depths, sheet.levels)])
    axes.set(xlabel="first codes", ylabel="distinct prefixes", title="Prefixes", ylim=(0, sheet.items * 1.12))


def _draw_collisions(sheet: "TearSheet", axes: Any) -> None:
    """Items in groups that share all their codes, by the size of the group; those of one text below the others."""
    found = sheet.collisions
    names = [f"{low}" if low == high else f"{low}-{high}" if high < 10**9 else f"{low}+" for low, high in GROUP_BINS]
    total = _items_by_bin(found.group_sizes)
    last = max((place for place, items in enumerate(total) if items), default=0) + 1
    identical = _items_by_bin(found.identical_text_group_sizes or {})
    other = [items - same for items, same in zip(total, identical, strict=True)]
    known = found.identical_text_items is not None
    if known:
        axes.bar(names[:last], identical[:last], color=GREY, width=0.6, label="all items of the group have one text")
    axes.bar(names[:last], other[:last], bottom=identical[:last], color=COLORS[1], width=0.6,
             label="texts differ" if known else None)  # fmt: skip
    for place, items in enumerate(total[:last]):
        axes.annotate(f"{items:,}", (place, items), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=9)
    words = (
        f"{found.distinct:,} distinct IDs\n{found.icr:.2%} of items share theirs\nlargest group: {found.largest_group}"
    )
    axes.annotate(words, (0.98, 0.97), xycoords="axes fraction", ha="right", va="top", fontsize=9)
    if known:
        axes.legend(fontsize=8, frameon=False, loc="upper right", bbox_to_anchor=(1, 0.82))
    axes.set(xlabel="items that share one ID", ylabel="items in such groups", ylim=(0, max(total) * 1.45 or 1),
             title="Collisions" + (" without the extra level" if sheet.levels[-1].extra else ""))  # fmt: skip


def _items_by_bin(group_sizes: dict[int, int]) -> list[int]:
    return [sum(s * n for s, n in group_sizes.items() if low <= s <= high) for low, high in GROUP_BINS]


def _draw_agreement(sheet: "TearSheet", axes: Any) -> None:
    """How often related items share a prefix, against two random items."""
    both = (("nearest in the embeddings", sheet.neighbours), ("often taken together", sheet.together))
    shown = [(name, found) for name, found in both if found is not None]
    axes.set_title("Shared prefixes")
    if not shown:
        axes.annotate("needs embeddings or histories", (0.5, 0.5), xycoords="axes fraction", ha="center", color=GREY)
        axes.set_axis_off()
        return
    depths = np.arange(1, len(shown[0][1].prefix) + 1)
    width = 0.8 / (len(shown) + 1)
    series = [(name, found.prefix, COLORS[2 + place], found.prefix_lift) for place, (name, found) in enumerate(shown)]
    series.append(("two random items", shown[0][1].prefix_chance, GREY, (None,) * len(depths)))
    floor = min(value for _, values, _, _ in series for value in values if value > 0) / 2
    for place, (name, values, color, lifts) in enumerate(series):
        at = depths + (place - len(shown) / 2) * width
        axes.bar(at, [max(value, floor) for value in values], width=width * 0.92, color=color, label=name, bottom=0)
        if len(depths) <= MANY_LEVELS:
            for x, value, lift in zip(at, values, lifts, strict=True):
                if lift is not None and value > 0:
                    axes.annotate(f"x{lift:,.0f}" if lift >= 10 else f"x{lift:.1f}", (x, value), xytext=(0, 2),
                                  textcoords="offset points", ha="center", fontsize=7.5)  # fmt: skip
    axes.set(yscale="log", xlabel="first codes", ylabel="share of pairs", ylim=(floor, 3))
    if len(depths) <= MANY_LEVELS:
        axes.set_xticks(depths)
    axes.legend(fontsize=8, frameon=False, loc="upper right", ncols=len(series))
