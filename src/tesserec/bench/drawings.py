"""Plots as inline SVG, drawn without a library: text stays text, and a page with twenty of them stays small.

Every plot is one `Frame`: a rectangle with two scales, ticks and titles of the axes, to which marks are added. Labels
never lie on marks: they stand in the margins, and what is not in a margin is in the legend above.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from tesserec.evaluation.pictures import COLORS

WIDTH = 1080
ROW = 26  # pixels of a row with a name
LETTER = 7.1  # pixels of a letter of 13 pixels' type, on the safe side
INK, FAINT = "#222222", "#e3e6ea"
SHAPES = ("circle", "square", "diamond", "triangle")
LONGEST = 34  # letters of a name beside a plot
MOST = 2 * len(COLORS)  # methods in one plot: beyond that nobody tells them apart


@dataclass(frozen=True)
class Scale:
    """Values to pixels, straight or by ratios."""

    low: float
    high: float
    start: float  # pixel of `low`
    stop: float  # pixel of `high`
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (
            (math.log(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.start + (at - low) / (high - low) * (self.stop - self.start)

    def ticks(self, most: int = 8) -> list[float]:
        """Round values between the ends."""
        if self.log:
            return self._log_ticks(most)
        step = (self.high - self.low) / most
        size = 10 ** math.floor(math.log10(step))
        step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= step * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _log_ticks(self, most: int) -> list[float]:
        if self.high / self.low < 8:  # too few powers and their halves
            return [value for value in Scale(self.low, self.high, 0.0, 1.0).ticks(most) if value > 0]
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1, 2, 5), (1, 3), (1,)):
            found = [factor * 10.0**power for power in powers for factor in factors]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) <= most:
                break
        return found


def around(values: Sequence[float], start: float, stop: float, *, zero: bool = False, log: bool = False) -> Scale:
    """A scale that holds all values with some room at its ends.

    Args:
        zero: it begins at 0.
        log: by ratios; values are above 0.
    """
    low, high = min(values), max(values)
    if log:
        factor = max((high / low) ** 0.06, 1.15)
        return Scale(low / factor, high * factor, start, stop, log=True)
    room = 0.06 * ((high - (0 if zero else low)) or abs(high) or 1.0)
    return Scale(0.0 if zero else low - room, high + room, start, stop)


@dataclass
class Frame:
    """A plot that is being drawn."""

    title: str
    height: float
    left: float = 70
    right: float = 24
    top: float = 44
    bottom: float = 52
    parts: list[str] = field(default_factory=list)

    @property
    def x(self) -> tuple[float, float]:
        """Pixels of the left and right ends."""
        return self.left, WIDTH - self.right

    @property
    def y(self) -> tuple[float, float]:
        """Pixels of the lower and upper ends."""
        return self.height - self.bottom, self.top

    def text(self, x: float, y: float, words: str, *, anchor: str = "start", size: int = 13, color: str = INK,
             bold: bool = False, turned: bool = False, hover: str = "") -> None:  # fmt: skip
        weight = ' font-weight="600"' if bold else ""
        turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
        note = f"<title>{escape(hover)}</title>" if hover else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{color}"{weight}{turn}>'
            f"{note}{escape(words)}</text>"
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, *, color: str = INK, width: float = 1.0,
             dashes: str = "") -> None:  # fmt: skip
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" '
            f'stroke-width="{width}"{dashed}/>'
        )

    def path(
        self, points: Sequence[tuple[float, float]], number: int, *, width: float = 1.8, faint: bool = False
    ) -> None:
        """The line of method `number`: its colour, and dashes where the colours have begun again."""
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        opacity = ' stroke-opacity="0.45"' if faint else ""
        dashes = ' stroke-dasharray="7 4"' if number // len(COLORS) % 2 else ""
        self.parts.append(
            f'<polyline points="{places}" fill="none" stroke="{COLORS[number % len(COLORS)]}" '
            f'stroke-width="{width}"{opacity}{dashes}/>'
        )

    def mark(self, x: float, y: float, number: int, *, hollow: bool = False, hover: str = "") -> None:
        """The mark of method `number`: its colour, and a shape that changes when the colours begin again."""
        color = COLORS[number % len(COLORS)]
        fill = "#ffffff" if hollow else color
        shape = "diamond" if hollow else SHAPES[number // len(COLORS) % len(SHAPES)]
        note = f"<title>{escape(hover)}</title>" if hover else ""
        style = f'fill="{fill}" stroke="{color}" stroke-width="1.8"'
        points = {
            "diamond": ((0, -6), (6, 0), (0, 6), (-6, 0)),
            "square": ((-5, -5), (5, -5), (5, 5), (-5, 5)),
            "triangle": ((0, -6), (6, 5), (-6, 5)),
        }
        if shape == "circle":
            self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" {style}>{note}</circle>')
        else:
            places = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in points[shape])
            self.parts.append(f'<polygon points="{places}" {style}>{note}</polygon>')

    def x_axis(self, scale: Scale, label: str, form: Callable[[float], str]) -> None:
        foot, head = self.y
        for value in scale.ticks():
            self.line(scale(value), foot, scale(value), head, color=FAINT)
            self.text(scale(value), foot + 18, form(value), anchor="middle", size=12)
        self.line(self.x[0], foot, self.x[1], foot)
        self.text(sum(self.x) / 2, foot + 40, label, anchor="middle")

    def y_axis(self, scale: Scale, label: str, form: Callable[[float], str]) -> None:
        foot, head = self.y
        for value in scale.ticks(6):
            self.line(self.x[0], scale(value), self.x[1], scale(value), color=FAINT)
            self.text(self.x[0] - 8, scale(value) + 4, form(value), anchor="end", size=12)
        self.line(self.x[0], foot, self.x[0], head)
        self.text(18, (foot + head) / 2, label, anchor="middle", turned=True)

    def svg(self) -> str:
        self.text(0, 20, self.title, size=15, bold=True)
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height:.0f}" width="{WIDTH}" height="{self.height:.0f}" role="img" '
            f'aria-label="{escape(self.title)}">{"".join(self.parts)}</svg>'
        )


def with_legend(frame: Frame, names: Sequence[str], numbers: Sequence[int] | None = None) -> None:
    """Names with their marks in rows under the title; the frame grows by what they take."""
    x, y = 8.0, frame.top
    for number, name in zip(numbers or range(len(names)), names):
        width = 40 + LETTER * len(short(name))
        if x + width > WIDTH - 8 and x > 8:
            x, y = 8.0, y + 22
        frame.mark(x + 6, y - 5, number)
        frame.text(x + 18, y, short(name), hover=name)
        x += width
    frame.height += y + 26 - frame.top
    frame.top = y + 26


def short(name: str) -> str:
    """A name for the side of a plot."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


# -- the plots ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A named value with an interval, and what others have published."""

    name: str
    number: int  # of the method, for its colour
    value: float | None
    low: float | None = None
    high: float | None = None
    published: float | None = None


def intervals(title: str, label: str, rows: Sequence[Row]) -> str:
    """A row for each method: its value, the interval around it, and the published value as a hollow diamond."""
    margin = 20 + LETTER * max(len(short(row.name)) for row in rows)
    frame = Frame(title, height=44 + 24 + ROW * len(rows) + 52, left=margin, right=96, top=68)
    every = [v for row in rows for v in (row.value, row.low, row.high, row.published) if v is not None]
    scale = around(every, *frame.x)
    frame.x_axis(scale, label, figure)
    frame.mark(14, 39, 0)
    frame.line(2, 39, 26, 39, color=COLORS[0], width=1.8)
    frame.text(34, 44, "ours, with its interval over users")
    if any(row.published is not None for row in rows):
        frame.mark(300, 39, 5, hollow=True)
        frame.text(314, 44, "published")
    for place, row in enumerate(rows):
        y = frame.top + ROW * (place + 0.5)
        frame.text(margin - 14, y + 4, short(row.name), anchor="end", hover=row.name)
        if row.published is not None:
            frame.mark(scale(row.published), y, 5, hollow=True, hover=f"published {row.published:.4f}")
        if row.value is None:
            continue
        if row.low is not None and row.high is not None:
            frame.line(scale(row.low), y, scale(row.high), y, color=COLORS[row.number % len(COLORS)], width=2.4)
        frame.mark(scale(row.value), y, row.number, hover=f"{row.name}: {row.value:.4f}")
        frame.text(WIDTH - frame.right + 12, y + 4, f"{row.value:.4f}")
    return frame.svg()


def slices(title: str, label: str, names: Sequence[str], cells: Mapping[str, Sequence[Row]]) -> str:
    """A row for each slice, and in it a mark for each method, on lines of their own so that none hides another.

    Args:
        names: the methods, for the legend.
        cells: label of the slice -> a value for each method.
    """
    margin = 20 + LETTER * max(len(slice_name) for slice_name in cells)
    band = 14 + 11 * len(names)
    frame = Frame(title, height=44 + band * len(cells) + 52, left=margin)
    with_legend(frame, names, [row.number for row in next(iter(cells.values()))])
    every = [v for rows in cells.values() for row in rows for v in (row.value, row.low, row.high) if v is not None]
    scale = around(every, *frame.x, zero=True)
    frame.x_axis(scale, label, figure)
    for place, (slice_name, rows) in enumerate(cells.items()):
        top = frame.top + band * place
        frame.line(0, top, WIDTH - frame.right, top, color=FAINT)
        frame.text(margin - 14, top + band / 2 + 4, slice_name, anchor="end")
        for line, row in enumerate(rows):
            y = top + 7 + 11 * (line + 0.5)
            if row.value is None:
                continue
            if row.low is not None and row.high is not None:
                frame.line(scale(row.low), y, scale(row.high), y, color=COLORS[row.number % len(COLORS)], width=1.6)
            frame.mark(scale(row.value), y, row.number, hover=f"{row.name}: {row.value:.4f}")
    return frame.svg()


def curves(title: str, x_label: str, y_label: str, lines: Mapping[str, Sequence[Sequence[tuple[float, float]]]],
           numbers: Sequence[int]) -> str:  # fmt: skip
    """A line for each seed of each method.

    Args:
        lines: method -> for each seed its points.
        numbers: of the methods, for their colours.
    """
    frame = Frame(title, height=420, left=76)
    with_legend(frame, list(lines), numbers)
    points = [point for seeds in lines.values() for seed in seeds for point in seed]
    x = around([point[0] for point in points], *frame.x, zero=True)
    y = around([point[1] for point in points], *frame.y)
    frame.x_axis(x, x_label, figure)
    frame.y_axis(y, y_label, figure)
    for number, seeds in zip(numbers, lines.values()):
        for place, seed in enumerate(seeds):
            frame.path([(x(a), y(b)) for a, b in seed], number, faint=place > 0)
        best = max(seeds[0], key=lambda point: point[1])
        frame.mark(x(best[0]), y(best[1]), number)
    return frame.svg()


def levels(title: str, y_label: str, lines: Mapping[str, Sequence[float]], numbers: Sequence[int]) -> str:
    """A share for each level of each method's semantic IDs."""
    frame = Frame(title, height=360, left=76)
    with_legend(frame, list(lines), numbers)
    deepest = max(map(len, lines.values()))
    x, y = Scale(0.7, deepest + 0.3, *frame.x), Scale(0.0, 1.05, *frame.y)
    frame.y_axis(y, y_label, percent)
    foot = frame.y[0]
    for level in range(1, deepest + 1):
        frame.text(x(level), foot + 18, str(level), anchor="middle", size=12)
    frame.line(frame.x[0], foot, frame.x[1], foot)
    frame.text(sum(frame.x) / 2, foot + 40, "level", anchor="middle")
    for number, shares in zip(numbers, lines.values()):
        places = [(x(level), y(share)) for level, share in enumerate(shares, start=1)]
        frame.path(places, number)
        for (px, py), share in zip(places, shares):
            frame.mark(px, py, number, hover=f"{share:.1%}")
    return frame.svg()


def costs(title: str, x_label: str, y_label: str, points: Sequence[Row], seconds: Sequence[float | None]) -> str:
    """Quality against training time; what is not trained is a dashed line across."""
    frame = Frame(title, height=420, left=76)
    with_legend(frame, [row.name for row in points], [row.number for row in points])
    known = [value for value in seconds if value]
    values = [row.value for row in points if row.value is not None]
    y = around([*values, 0.0], *frame.y, zero=True)
    x = around(known, *frame.x, log=True) if known else Scale(1.0, 10.0, *frame.x, log=True)
    frame.x_axis(x, x_label, figure)
    frame.y_axis(y, y_label, figure)
    for row, taken in zip(points, seconds):
        if row.value is None:
            continue
        at, color = y(row.value), COLORS[row.number % len(COLORS)]
        if taken:
            frame.mark(x(taken), at, row.number, hover=f"{row.name}: {row.value:.4f} after {taken:,.0f} s")
        else:
            frame.line(*(frame.x[0], at, frame.x[1], at), color=color, width=1.6, dashes="6 4")
            frame.mark(frame.x[0] + 12, at, row.number, hover=f"{row.name}: {row.value:.4f}, not trained")
    return frame.svg()


def figure(value: float) -> str:
    """A number beside an axis, without a float's tail: 0.05, 1,000."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.6g}" if value else "0"


def percent(value: float) -> str:
    return f"{100 * value:.4g} %"
