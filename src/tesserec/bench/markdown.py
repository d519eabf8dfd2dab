"""The results of a suite as Markdown: what goes into a README, and everything that must stand beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

from tesserec.bench.missed import MISSED, missed_rows
from tesserec.evaluation import ReportComparison
from tesserec.tables import NO_FIGURE, amount, markdown_table, over_seeds

FORESIGHT = (
    "Spearman's rank correlation of each figure with the first metric, over the methods that differ in their semantic "
    "IDs alone, each the mean of its seeds. Beyond chance at 5% is nothing over four methods, 1 or -1 over five, "
    "from .89 over six, from .65 over ten."
)


def markdown(results: Mapping[str, Any], tables: Mapping[str, ReportComparison]) -> str:
    """The whole document.

    Args:
        results: `Results.to_dict()`.
        tables: its comparisons by data set.
    """
    suite, made = results["suite"], results["made"]
    lines = [f"# {suite['name']}", "", suite["summary"], ""]
    for data, table in tables.items():
        lines += [f"## {data}", "", markdown_table(overview_rows(results, data), align="lr"), ""]
        if notes := published_notes(results, data):
            lines += [*(f"- {word}" for word in notes), ""]
        lines.append(table.markdown())
        if len(foresight := foresight_rows(results, data)) > 1:
            lines += ["**What tear-sheets said in advance**", "", markdown_table(foresight, align="lr"), ""]
            lines += [FORESIGHT, ""]
        if len(missed := missed_rows(results, data)) > 1:
            lines += ["**Where beams lose the target**", "", markdown_table(missed, align="lr"), "", MISSED, ""]
    lines += ["## How", "", *(f"- {line}" for line in facts(results)), ""]
    lines += [f"- {line}" for line in absent(results)]
    if results["command"]:
        lines += ["", "To repeat it:", "", f"    {results['command']}", ""]
    lines += [f"Written by tesserec {made['library']['version']}, {made['at']}."]
    return "\n".join(lines) + "\n"


def overview_rows(results: Mapping[str, Any], data: str) -> list[list[str]]:
    """A row for each method: every metric with the published figure and the gap to it, and what the run took.

    Metrics are those of the suite and those that anybody has published. Methods that are only published stand last.
    """
    published, costs = results["published"][data], results["costs"][data]
    methods, known = results["tables"][data]["methods"], [figures["metrics"] for figures in published.values()]
    metrics = dict.fromkeys(metric for one in (results["suite"]["metrics"], *known) for metric in one)
    heads = [column for metric in metrics for column in ([metric, "published"] if published else [metric])]
    rows = [["", *heads, "parameters", "training s", "epochs", "seeds"]]
    for name in dict.fromkeys([*methods, *published]):
        ours, theirs = methods.get(name), published.get(name, {"metrics": {}})["metrics"]
        cells = list[str]()
        for metric in metrics:
            value = ours["metrics"].get(metric) if ours else None
            cells.append(NO_FIGURE if value is None else over_seeds(value["mean"], value["deviation"]))
            cells += [_beside(theirs.get(metric), value)] if published else []
        epochs = [run["epochs"] for run in results["runs"] if (run["data"], run["method"]) == (data, name)]
        took = [costs[name]["parameters"], costs[name]["training_seconds"], _mean(epochs)] if ours else [None] * 3
        seeds = str(len(ours["seeds"])) if ours else NO_FIGURE
        rows.append([name, *cells, *map(amount, took), seeds])
    return rows


def _beside(theirs: float | None, ours: Mapping[str, Any] | None) -> str:
    """A published figure, and by how much ours differs."""
    if theirs is None:
        return NO_FIGURE
    return decimal(theirs) + (f" ({gap(ours['mean'], theirs)})" if ours is not None else "")


def _mean(values: Sequence[float | None]) -> float | None:
    """None where a seed does not say, so that no mean rests on fewer seeds than stand beside it."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def foresight_rows(results: Mapping[str, Any], data: str) -> list[list[str]]:
    """A heading, and a row for each figure of a tear-sheet: its correlation for each recommender."""
    found = results["foresight"][data]
    names = dict.fromkeys(name for one in found.values() for name in one["figures"])
    heads = ["figure of the tear-sheet", *(f"{method}, {len(one['methods'])} methods" for method, one in found.items())]
    rows = []
    for name in names:
        values = [one["figures"].get(name, {}).get("correlation") for one in found.values()]
        rows.append([name, *(NO_FIGURE if value is None else f"{value:+.2f}" for value in values)])
    return [heads, *rows]


def published_notes(results: Mapping[str, Any], data: str) -> list[str]:
    """Where published figures are from and what is different about them, a line for those that have it in common."""
    found = dict[str, list[str]]()
    for name, figures in results["published"][data].items():
        words = [figures["source"], f"protocol differs: {figures['differs']}" if figures["differs"] else ""]
        if any(words):
            found.setdefault("; ".join(word for word in words if word), []).append(name)
    return [f"published figures of {'; '.join(names)}: {words}" for words, names in found.items()]


def absent(results: Mapping[str, Any]) -> list[str]:
    """What is not in the tables: the reference, failures, methods that were left out, and runs that nobody started."""
    reference = results["suite"]["reference"]
    lines = [
        f"{data}: {reference} has no finished run, so the best method is the reference in its place"
        for data, table in results["tables"].items()
        if reference and reference not in table["methods"] and len(table["methods"]) > 1
    ]
    lines += [f"failed: {failure['label']}: {failure['error']}" for failure in results["failures"]]
    lines += [f"left out: {name} {why}" for name, why in results["left_out"].items()]
    seeds = dict[str, list[str]]()
    for label in results["missing"]:
        name, _, seed = label.rpartition(", seed ")
        seeds.setdefault(name, []).append(seed)
    return lines + [f"not run: {name}, seed{'s' if len(of) > 1 else ''} {', '.join(of)}" for name, of in seeds.items()]


def facts(results: Mapping[str, Any]) -> list[str]:
    """Protocol, data, budget, hardware and versions, a line each."""
    suite, made = results["suite"], results["made"]
    lines = [f"budget: {suite['budget']}"] if suite["budget"] else []
    if results["searches"]:
        tuning = suite["tuning"]
        methods = ", ".join(sorted({one["method"] for one in results["searches"]}))
        lines.append(
            f"searches: {tuning['trials']} trials for each of {methods} on each data set, "
            f"judged by {tuning['metric']} on the validation part with seed {tuning['seed']}"
        )  # fmt: skip
    lines += [f"settings of all methods: {', '.join(suite['settings'])}"] if suite["settings"] else []
    for data, table in results["tables"].items():
        protocol = table["protocol"]
        sizes = ", ".join(f"{count:,} {what}" for what, count in protocol["dataset_sizes"].items())
        lines.append(
            f"{data}: {sizes}, fingerprint {protocol['dataset']}; {protocol['part']} part of {protocol['split']}; "
            f"candidates: {protocol['candidates']}; {protocol['tie_rule']}"
        )
    lines.append("training s: of the recommender alone, validation included; embeddings and tokenizers are not in it")
    lines += [f"{name}: {method['note']}" for name, method in suite["methods"].items() if method["note"]]
    for what in ("hardware", "versions"):
        every = [one for costs in results["costs"].values() for cost in costs.values() for one in cost[what]]
        lines += [f"{what} of the runs: {'; '.join(dict.fromkeys(every))}"] if every else []
    lines.append(f"cores of this machine: {made['hardware']['cores']}")
    lines += [f"made elsewhere and merged: {name}" for name in merged_runs(results)]
    return lines


def merged_runs(results: Mapping[str, Any]) -> list[str]:
    """Names of the methods with a run that was made elsewhere, and its seeds."""
    seeds = dict[str, list[str]]()
    for run in results["runs"]:
        if run["merged"]:
            seeds.setdefault(f"{run['method']} on {run['data']}", []).append(str(run["seed"]))
    return [
        name if of == ["None"] else f"{name}, seed{'s' * (len(of) > 1)} {', '.join(of)}" for name, of in seeds.items()
    ]


def decimal(value: float) -> str:
    return f"{value:.4f}"


def gap(ours: float, theirs: float) -> str:
    """By how much of the published value ours is above or below it."""
    return f"{ours / theirs - 1:+.1%}" if theirs else NO_FIGURE
