"""The results of a suite as one HTML file: tables that sort, plots, the protocol, the command that repeats it.

The file needs no network and no other file. All of its numbers are those of `results.json`, from which it is drawn.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

from tesserec.bench.drawings import MOST, Row, costs, curves, intervals, levels, slices
from tesserec.bench.markdown import (
    FORESIGHT,
    absent,
    decimal,
    facts,
    foresight_rows,
    gap,
    published_notes,
)
from tesserec.bench.missed import MISSED, kept_shares, missed_rows
from tesserec.evaluation.slices import FEW_USERS
from tesserec.tables import MEGABYTE, NO_FIGURE, amount, capital, over_seeds

SHOWN_LEVELS = 6
SLICED = 8  # methods in the plots of slices: the reference and the best others; the tables have all
MARKS = {"above": "▲", "below": "▼", "": ""}


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what it shows, and by what its column sorts (None: at the end)."""

    html: str
    value: float | str | None = None
    words: bool = False  # running text


NOTHING = Cell(NO_FIGURE)


def page(results: Mapping[str, Any]) -> str:
    """The whole document.

    Args:
        results: `Results.to_dict()`.
    """
    suite = results["suite"]
    resources = files("tesserec.bench")
    style, script = (resources.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    body = [f"<h1>{escape(suite['name'])}</h1>", f"<p>{escape(suite['summary'])}</p>"]
    for data in results["tables"]:
        body += _data_set(results, data)
    if not results["tables"]:
        body.append("<p>No run is finished yet.</p>")
    body += _searches(results)
    body += _not_in_the_tables(results)
    body += _how(results)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(suite['name'])}</title>",
            f"<style>{style}</style></head><body>",
            *body,
            f"<script>{script}</script>",
            "</body></html>\n",
        ]
    )


# -- one data set ------------------------------------------------------------------------------------------------------


def _data_set(results: Mapping[str, Any], data: str) -> list[str]:
    table = results["tables"][data]
    protocol, methods = table["protocol"], table["methods"]
    sizes = ", ".join(f"{count:,} {what}" for what, count in protocol["dataset_sizes"].items())
    numbers = {name: number for number, name in enumerate(methods)}
    asked = f"{protocol['part'].capitalize()} part of {protocol['split']}, {protocol['cases']:,} users; candidates: "
    asked += protocol["candidates"]
    parts = [
        f"<h2>{escape(data)}</h2>",
        f"<p>{sizes}. {escape(asked)}.</p>",
        _main_table(results, data),
        _how_to_read(table),
        *(f'<p class="quiet">{escape(capital(note))}.</p>' for note in published_notes(results, data)),
        *(_intervals(results, data, metric, numbers) for metric in table["metrics"]),
        "<h3>Every metric</h3>",
        _metrics_table(table),
        "<h3>Slices</h3>",
        *(_slices(table, metric, numbers) for metric in table["metrics"]),
        *_beyond(table),
        "<h3>Cost</h3>",
        _costs_table(results, data),
        *_costs_plots(results, data, numbers),
        *_curves(results, data, numbers),
        *_codes(results, data, numbers),
        *_foresight(results, data),
        *_missed(results, data, numbers),
        "<h3>Runs</h3>",
        _runs_table(results, data),
    ]
    return [part for part in parts if part]


def _main_table(results: Mapping[str, Any], data: str) -> str:
    """A row for each method, ours and those that are only published: the compared metrics, and what goes with them."""
    table, published = results["tables"][data], results["published"][data]
    with_published = [
        metric for metric in table["metrics"] if any(metric in one["metrics"] for one in published.values())
    ]
    heads = ["method", "seeds"]
    for metric in table["metrics"]:
        heads += [metric, f"against {table['reference']}"]
        heads += [f"{metric}, published"] if metric in with_published else []
    rows = list[tuple[str, list[Cell]]]()
    for name in dict.fromkeys([*table["methods"], *published]):
        mine = table["methods"].get(name)
        theirs = published.get(name, {"metrics": {}})["metrics"]
        cells = [Cell(escape(name), name), Cell(str(len(mine["seeds"])), len(mine["seeds"])) if mine else NOTHING]
        for metric in table["metrics"]:
            cells += _ours(mine, metric)
            if metric in with_published:
                cells.append(_theirs(theirs.get(metric), mine["metrics"][metric]["mean"] if mine else None))
        rows.append(("" if mine else "elsewhere", cells))
    return _table(heads, rows)


def _ours(method: Mapping[str, Any] | None, metric: str) -> list[Cell]:
    """A metric with its interval, and its difference from the reference."""
    if method is None:
        return [NOTHING, NOTHING]
    value, interval = method["metrics"][metric], method["intervals"][metric]
    ends = f"<small>{decimal(interval['low'])} to {decimal(interval['high'])}</small>"
    cells = [Cell(over_seeds(value["mean"], value["deviation"]) + ends, value["mean"])]
    difference = method["differences"].get(metric)
    if difference is None:
        return [*cells, Cell("reference", 0.0)]
    share = NO_FIGURE if difference["relative"] is None else f"{difference['relative']:+.1%}"
    mark = f'<span class="{difference["verdict"] or "equal"}">{share} {MARKS[difference["verdict"]]}</span>'
    p = f"<small>p {_p(difference['p_holm'])}</small>"
    return [*cells, Cell(mark + p, difference["mean"])]


def _theirs(theirs: float | None, ours: float | None) -> Cell:
    if theirs is None:
        return NOTHING
    below = "" if ours is None else f"<small>ours {gap(ours, theirs)}</small>"
    return Cell(decimal(theirs) + below, theirs)


def _how_to_read(table: Mapping[str, Any]) -> str:
    level = table["statistics"]["level"]
    lines = [
        f"Mean over seeds ± standard deviation of a seed; below it the {level:.0%} bootstrap interval over users.",
        "Intervals and tests are of other users for these trained models; what other seeds do, deviations alone say.",
    ]
    if table["n_tests"]:
        lines.append(
            f"Differences are paired by user; ▲ and ▼ stand only where the sign-flip test holds at {1 - level:.0%} "
            f"after Holm's correction over {table['n_tests']} tests."
        )
    lines += [f"{capital(note)}." for note in table["notes"]]
    return "".join(f'<p class="quiet">{escape(line)}</p>' for line in lines)


def _intervals(results: Mapping[str, Any], data: str, metric: str, numbers: Mapping[str, int]) -> str:
    table, published = results["tables"][data], results["published"][data]
    rows = []
    for name, method in table["methods"].items():
        interval = method["intervals"][metric]
        theirs = published.get(name, {"metrics": {}})["metrics"].get(metric)
        rows.append(Row(name, numbers[name], interval["mean"], interval["low"], interval["high"], theirs))
    rows.sort(key=lambda row: -(row.value or 0.0))
    level = table["statistics"]["level"]
    return intervals(f"{metric} on {data}", f"{metric}, mean over users ({level:.0%} interval)", rows)


def _metrics_table(table: Mapping[str, Any]) -> str:
    """Two tables: metrics of items, and those that count as papers do."""
    names = list(next(iter(table["methods"].values()))["metrics"])
    of_ids = [name for name in names if name.startswith("id_")]
    parts = []
    for group in ([name for name in names if name not in of_ids], of_ids):
        rows = [
            ("", [Cell(escape(name), name), *(_over_seeds(method["metrics"][metric]) for metric in group)])
            for name, method in table["methods"].items()
        ]
        parts.append(_table(["method", *group], rows))
    note = "id_: any item with the target's semantic ID (or its very score) is a hit, as most papers count."
    return f'{parts[0]}<p class="quiet">{note}</p>{parts[1]}'


def _over_seeds(value: Mapping[str, Any] | None) -> Cell:
    return NOTHING if value is None else Cell(over_seeds(value["mean"], value["deviation"]), value["mean"])


def _slices(table: Mapping[str, Any], metric: str, numbers: Mapping[str, int]) -> str:
    """A table with all methods, and a plot of the best ones and the reference."""
    rows = [
        ("", [Cell(escape(name), name), *(_slice_cell(method["slices"][label][metric]) for label in table["slices"])])
        for name, method in table["methods"].items()
    ]
    heads = ["method", *(f"{label} ({count:,})" for label, count in table["slices"].items())]
    best = _best(table, metric, table["methods"], SLICED)
    shown = [name for name in table["methods"] if name in best or name == table["reference"]]
    cells = {
        f"{label} ({count:,})": [
            _slice_row(name, numbers[name], table["methods"][name]["slices"][label][metric], count) for name in shown
        ]
        for label, count in table["slices"].items()
    }
    some = _of_all(len(best), len(table["methods"]))
    some += f" and {table['reference']}" if some and table["reference"] not in best else ""
    plot = slices(f"{metric} by slice{some}", f"{metric}, with intervals over users", shown, cells) if cells else ""
    return f"<p>{escape(metric)} by slice, in brackets its users</p>{_table(heads, rows)}{plot}"


def _best(table: Mapping[str, Any], metric: str, names: Iterable[str], most: int) -> list[str]:
    """The best of some methods, in the order that they had."""
    names = list(names)
    best = sorted(names, key=lambda name: -table["methods"][name]["metrics"][metric]["mean"])[:most]
    return [name for name in names if name in best]


def _of_all(shown: int, every: int) -> str:
    """For a title: whether a plot has them all."""
    return "" if shown == every else f", the best {shown} methods"


def _slice_cell(found: Mapping[str, Any]) -> Cell:
    return Cell(decimal(found["value"]["mean"]), found["value"]["mean"])


def _slice_row(name: str, number: int, found: Mapping[str, Any], n_users: int) -> Row:
    value, few = found["value"], n_users < FEW_USERS
    return Row(name, number, value["mean"], *(None, None) if few else (value["low"], value["high"]))


def _beyond(table: Mapping[str, Any]) -> list[str]:
    names = list(dict.fromkeys(name for method in table["methods"].values() for name in method["beyond"]))
    if not names:
        return []
    rows = [
        ("", [Cell(escape(name), name), *(_over_seeds(method["beyond"].get(column)) for column in names)])
        for name, method in table["methods"].items()
    ]
    return ["<h3>Beyond accuracy</h3>", _table(["method", *names], rows)]


def _costs_table(results: Mapping[str, Any], data: str) -> str:
    heads = ["method", "parameters", "training, s", "users ranked per s", "peak MB, training", "peak MB, ranking"]
    rows = [
        (
            "",
            [
                Cell(escape(name), name),
                _number(cost["parameters"]),
                _number(cost["training_seconds"]),
                _number(cost["ranked_per_second"]),
                _number(cost["training_peak_bytes"], MEGABYTE),
                _number(cost["ranking_peak_bytes"], MEGABYTE),
            ],
        )
        for name, cost in results["costs"][data].items()
    ]
    return _table(heads, rows)


def _number(value: float | None, unit: float = 1.0) -> Cell:
    return NOTHING if value is None else Cell(amount(value / unit), value)


def _costs_plots(results: Mapping[str, Any], data: str, numbers: Mapping[str, int]) -> list[str]:
    table = results["tables"][data]
    metric = table["metrics"][-1]
    seconds = {name: cost["training_seconds"] for name, cost in results["costs"][data].items()}
    trained = {run["method"] for run in results["runs"] if run["data"] == data and _was_trained(run["model"]["config"])}
    known = [name for name in table["methods"] if seconds[name] or name not in trained]
    shown = _best(table, metric, known, MOST)
    rows = [Row(name, numbers[name], table["methods"][name]["metrics"][metric]["mean"]) for name in shown]
    title = f"Quality against training time on {data}{_of_all(len(shown), len(known))}"
    plot = costs(title, "training time, seconds (logarithmic)", metric, rows, [seconds[name] for name in shown])
    unknown = [name for name in table["methods"] if name not in known]
    note = f'<p class="quiet">Without a known training time, and so not drawn: {escape("; ".join(unknown))}.</p>'
    return [plot, note] if unknown else [plot]


def _was_trained(config: Mapping[str, Any]) -> bool:
    return bool(config.get("training")) and not config["recommender"].get("zero_shot")


def _curves(results: Mapping[str, Any], data: str, numbers: Mapping[str, int]) -> list[str]:
    lines = dict[str, list[list[tuple[float, float]]]]()
    for name, seeds in list(results["curves"][data].items()):
        if seeds:
            lines[name] = [list(zip(seed["epoch"], seed["validation"])) for seed in seeds]
    if not lines:
        return []
    table, every = results["tables"][data], len(lines)
    lines = {name: lines[name] for name in _best(table, table["metrics"][-1], lines, MOST)}
    metrics = {
        run["model"]["config"]["training"]["metric"]
        for run in results["runs"]
        if run["data"] == data and run["model"]["config"].get("training")
    }
    label = f"validation {' or '.join(sorted(metrics))}"
    of = [numbers[name] for name in lines]
    note = (
        "A line for each seed, the first in full colour; its mark is at the best validation, whose weights were kept."
    )
    return [
        "<h3>Learning</h3>",
        f'<p class="quiet">{note}</p>',
        curves(f"Learning curves{_of_all(len(lines), every)}", "epoch", label, lines, of),
    ]


def _codes(results: Mapping[str, Any], data: str, numbers: Mapping[str, int]) -> list[str]:
    """Use of the codebooks, where there are semantic IDs."""
    found = {name: use for name, use in results["codes"][data].items() if use}
    if not found:
        return []
    lines = {name: [one["perplexity"] / one["size"] for one in use if not one["extra"]] for name, use in found.items()}
    rows = []
    for name, use in found.items():
        real = [one for one in use if not one["extra"]]
        cells = [_of_levels([round(one[key]) for one in real]) for key in ("size", "used", "perplexity")]
        extra = [f"{one['used']} numbers" for one in use if one["extra"]]
        rows.append(("", [Cell(escape(name), name), *map(Cell, cells), Cell(extra[0] if extra else NO_FIGURE)]))
    return [
        "<h3>Semantic IDs</h3>",
        levels("Evenness of code use", "perplexity / codewords", lines, [numbers[name] for name in lines]),
        _table(["method", "codewords by level", "used", "perplexity", "extra level"], rows),
    ]


def _foresight(results: Mapping[str, Any], data: str) -> list[str]:
    """What the figures of tear-sheets say of the models that read the IDs."""
    heads, *figures = foresight_rows(results, data)
    if not figures:
        return []
    rows = [("", [*map(_sortable, row)]) for row in figures]
    return [
        "<h3>What tear-sheets said in advance</h3>",
        _table(heads, rows),
        f'<p class="quiet">{escape(FORESIGHT)}</p>',
    ]


def _missed(results: Mapping[str, Any], data: str, numbers: Mapping[str, int]) -> list[str]:
    """Where beams lost their targets, and what the models thought of them."""
    found = results["missed"][data]
    if not found:
        return []
    heads, *figures = missed_rows(results, data)
    rows = [("", [*map(_sortable, row[:-1]), Cell(escape(row[-1]), words=True)]) for row in figures]
    lines = {name: kept_shares(missed) for name, missed in found.items()}
    of = [numbers[name] for name in found]
    return [
        "<h3>Where beams lose the target</h3>",
        levels("Targets whose prefix is in the beam", "users, after each level", lines, of),
        _table(heads, rows),
        f'<p class="quiet">{escape(MISSED)}</p>',
    ]


def _of_levels(values: Sequence[int]) -> str:
    """A number for each level; of many levels, the range."""
    if len(set(values)) == 1:
        return f"{len(values)} x {values[0]}"
    return ", ".join(map(str, values)) if len(values) <= SHOWN_LEVELS else f"{min(values)} to {max(values)}"


def _runs_table(results: Mapping[str, Any], data: str) -> str:
    metrics = results["tables"][data]["metrics"]
    rows = []
    for run in results["runs"]:
        if run["data"] == data:
            known = run["metrics"]
            figures = [Cell(decimal(known[one]), known[one]) if one in known else NOTHING for one in metrics]
            seed = NOTHING if run["seed"] is None else Cell(str(run["seed"]), run["seed"])
            epochs = NOTHING if run["epochs"] is None else Cell(f"{run['epochs']:.0f}", run["epochs"])
            folder = Cell(f"<code>{escape(run['folder'])}</code>", run["folder"])
            rows.append(("", [Cell(escape(run["method"]), run["method"]), seed, *figures, epochs, folder]))
    return _table(["method", "seed", *metrics, "epochs", "folder"], rows)


# -- the suite ---------------------------------------------------------------------------------------------------------


def _searches(results: Mapping[str, Any]) -> list[str]:
    if not results["searches"]:
        return []
    tuning = results["suite"]["tuning"]
    about = (
        f"{tuning['trials']} trials for each method and data set, judged by {tuning['metric']} on the validation part; "
    )
    about += "the best settings then trained every seed."
    parts = ["<h2>Searches for settings</h2>", f"<p>{escape(about)}</p>"]
    for one in results["searches"]:
        rows = [
            ("", [Cell(str(number), number), Cell(escape(", ".join(trial["settings"])), words=True),
                  NOTHING if trial["value"] is None else Cell(decimal(trial["value"]), trial["value"])])
            for number, trial in enumerate(one["trials"])
        ]  # fmt: skip
        parts.append(f"<h3>{escape(one['method'])} on {escape(one['data'])}</h3>")
        parts.append(_table(["trial", "settings", f"validation {one['metric']}"], rows))
    return parts


def _not_in_the_tables(results: Mapping[str, Any]) -> list[str]:
    lines = absent(results)
    if not lines:
        return []
    return ["<h2>Not in the tables</h2>", "<ul>", *(f"<li>{escape(capital(line))}</li>" for line in lines), "</ul>"]


def _how(results: Mapping[str, Any]) -> list[str]:
    parts = ["<h2>How this was made</h2>", "<ul>", *(f"<li>{escape(line)}</li>" for line in facts(results)), "</ul>"]
    for data, table in results["tables"].items():
        parts += [f"<h3>Protocol card of {escape(data)}</h3>", "<dl>"]
        for key, value in table["protocol"].items():
            words = (
                ", ".join(f"{name} {entry:,}" for name, entry in value.items()) if isinstance(value, dict) else value
            )
            words = ", ".join(map(str, words)) if isinstance(words, list) else words
            parts.append(f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(str(words))}</dd>")
        parts.append("</dl>")
    if results["command"]:
        parts += ["<h3>To repeat it</h3>", f"<pre>{escape(results['command'])}</pre>"]
    parts.append(f'<p class="quiet">Written {escape(results["made"]["at"])}.</p>')
    return parts


def _sortable(text: str) -> Cell:
    """A cell of a table that Markdown has, too: sorts as the number that it shows, if it is one."""
    try:
        return Cell(escape(text), float(text.rstrip("%").replace(",", "")))
    except ValueError:
        return NOTHING if text == NO_FIGURE else Cell(escape(text), text)


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]]) -> str:
    """A table that sorts.

    Args:
        rows: (class of the row, cells).
    """
    head = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in heads)
    lines = []
    for kind, cells in rows:
        marked = f' class="{kind}"' if kind else ""
        lines.append(f"<tr{marked}>{''.join(map(_cell, cells))}</tr>")
    return (
        f'<div class="wide"><table class="sorts"><thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    value = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
    words = ' class="words"' if cell.words else ""
    return f"<td{words}{value}>{cell.html}</td>"


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "&lt; 0.001"
