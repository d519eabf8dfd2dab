"""A comparison of reports as tables, for terminals and in Markdown."""

from typing import TYPE_CHECKING

from tesserec.evaluation.slices import FEW_USERS
from tesserec.tables import MEGABYTE, NO_FIGURE, amount, capital, format_table, markdown_table, over_seeds

if TYPE_CHECKING:
    from tesserec.evaluation.report_comparison import Difference, Interval, ReportComparison

MARKS = {"above": " +", "below": " -", "": ""}

Section = tuple[str, list[list[str]]]  # title, rows with a header


def as_text(comparison: "ReportComparison") -> str:
    """For a terminal."""
    tables = [f"{title}\n{format_table(rows, align='lr')}" for title, rows in _sections(comparison)]
    notes = "\n".join(f"note: {note}" for note in comparison.notes)
    return "\n\n".join([_about(comparison), *tables, *([notes] if notes else [])])


def as_markdown(comparison: "ReportComparison") -> str:
    """For a page; tables have the titles of the terminal's as captions above them."""
    tables = [f"**{capital(title)}**\n\n{markdown_table(rows, align='lr')}" for title, rows in _sections(comparison)]
    notes = "\n".join(f"- {capital(note)}." for note in comparison.notes)
    return "\n\n".join([_about(comparison), *tables, *([notes] if notes else [])]) + "\n"


def _about(comparison: "ReportComparison") -> str:
    protocol = comparison.protocol
    cases = f"{protocol['part']} part of {protocol['split']}, {protocol['cases']:,} users"
    return f"{cases}; candidates: {protocol['candidates']}"


def _sections(comparison: "ReportComparison") -> list[Section]:
    found = [_metrics(comparison), _differences(comparison)]
    found += [_slices(comparison, metric) for metric in comparison.metrics]
    found += [_beyond(comparison), _costs(comparison)]
    return [(title, rows) for title, rows in found if len(rows) > 1 and len(rows[0]) > 1]


def _metrics(comparison: "ReportComparison") -> Section:
    title = "mean over seeds ± deviation"
    if comparison.n_tests:
        title += (
            f"; + above and - below {comparison.reference} at {1 - comparison.statistics.level:.2g} after Holm over "
            f"{comparison.n_tests} tests, no mark: not told apart"
        )
    rows = [["", "seeds", *comparison.metrics]]
    for name, method in comparison.methods.items():
        cells = [
            over_seeds(method.metrics[metric].mean, method.metrics[metric].deviation)
            + (MARKS[method.differences[metric].verdict] if method.differences else "")
            for metric in comparison.metrics
        ]
        rows.append([name, str(len(method.seeds)), *cells])
    return title, rows


def _differences(comparison: "ReportComparison") -> Section:
    title = (
        f"difference from {comparison.reference} with its {comparison.statistics.level:.0%} interval over users, "
        "and p after Holm"
    )
    rows = [["", *(column for metric in comparison.metrics for column in (metric, "p"))]]
    for name, method in comparison.methods.items():
        if method.differences:
            cells = [method.differences[metric] for metric in comparison.metrics]
            rows.append([name, *(text for cell in cells for text in (_difference(cell), _p_value(cell.p_holm)))])
    return title, rows


def _slices(comparison: "ReportComparison", metric: str) -> Section:
    """A row for each slice and a column for each method; the other way round where there are more methods."""
    title = f"{metric} by slice, with its {comparison.statistics.level:.0%} interval over users"
    rows = [["", "users", *comparison.methods]]
    for label, cases in comparison.slices.items():
        values = [method.slices[label][metric].value for method in comparison.methods.values()]
        shown = [f"{value.mean:.4f}" if cases < FEW_USERS else _interval(value) for value in values]
        rows.append([label, f"{cases:,}", *shown])
    return title, rows if len(rows) > len(comparison.methods) else [list(column) for column in zip(*rows)]


def _beyond(comparison: "ReportComparison") -> Section:
    columns = list(dict.fromkeys(name for method in comparison.methods.values() for name in method.beyond))
    rows = [["", *columns]]
    for name, method in comparison.methods.items():
        found = [method.beyond.get(column) for column in columns]
        rows.append(
            [name, *(NO_FIGURE if value is None else over_seeds(value.mean, value.deviation) for value in found)]
        )
    return "beyond accuracy", rows


def _costs(comparison: "ReportComparison") -> Section:
    """Means over seeds."""
    rows = [["", "parameters", "training seconds", "users ranked per second", "peak MB training", "peak MB ranking"]]
    for name, method in comparison.methods.items():
        cost = method.cost
        peaks = [
            NO_FIGURE if peak is None else f"{peak / MEGABYTE:,.0f}"
            for peak in (cost.training_peak_bytes, cost.ranking_peak_bytes)
        ]
        rows.append([name, f"{cost.parameters:,.0f}", amount(cost.training_seconds), amount(cost.ranked_per_second),
                     *peaks])  # fmt: skip
    return "cost, mean over seeds", rows


def _interval(value: "Interval") -> str:
    return f"{value.mean:.4f} [{value.low:.4f}, {value.high:.4f}]"


def _difference(value: "Difference") -> str:
    relative = "" if value.relative is None else f" ({value.relative:+.1%})"
    return f"{value.mean:+.4f} [{value.low:+.4f}, {value.high:+.4f}]{relative}"


def _p_value(p: float) -> str:
    return f"{p:.4f}" if p >= 0.0001 else f"{p:.0e}"
