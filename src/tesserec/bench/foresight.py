"""What tear-sheets knew in advance: their figures, against how well models recommended by the same semantic IDs.

A tear-sheet is read before a training, to spare it. Whether its figures deserve that is measured here, over the methods
of a suite: for each recommender that was trained on several semantic IDs, each figure's rank correlation with a metric.
Points are methods, as means over their seeds: seeds of one tokenizer agree, and would pass for evidence.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from tesserec.artifacts import fingerprint_json, read_json_if_whole, write_json
from tesserec.bench.finished import TEAR_SHEET, Finished
from tesserec.evaluation import TearSheet, inspect_ids
from tesserec.evaluation.tearsheet import Agreement
from tesserec.pipeline.run import Run

FEWEST = 4  # methods on different IDs, below which a correlation says nothing


def _first(agreement: Agreement | None) -> float | None:
    return None if agreement is None else agreement.prefix[0]


def _evenness(sheet: TearSheet) -> float:
    return float(np.mean([level.perplexity / level.size for level in sheet.levels if not level.extra]))


FIGURES: dict[str, Callable[[TearSheet], float | None]] = {
    "evenness of code use (perplexity / codewords)": _evenness,
    "distinct IDs, of all items": lambda sheet: sheet.collisions.dist,
    "nearest texts that share the first code": lambda sheet: _first(sheet.neighbours),
    "items taken together that share the first code": lambda sheet: _first(sheet.together),
    "test targets that share their ID": lambda sheet: sheet.collisions.shared_targets,
}


def keep_figures(finished: Run) -> None:
    """Judge the run's semantic IDs and keep the figures beside it, unless it has none or that was done already."""
    if not finished.has("semantic-ids"):
        return
    path = finished.folder / TEAR_SHEET
    of = finished.about["stages"]["semantic-ids"]["fingerprint"]
    if (kept := read_json_if_whole(path)) is not None and kept["of"] == of:
        return
    embeddings = finished.embeddings if finished.has("embeddings") else None
    if embeddings is not None and embeddings.vectors.ndim > 2:  # a vector for each attribute: no one nearest text
        embeddings = None
    sheet = inspect_ids(finished.semantic_ids, embeddings=embeddings, split=finished.split)
    write_json(path, {"of": of, "figures": {name: figure(sheet) for name, figure in FIGURES.items()}})


def foresight(runs: Mapping[str, Sequence[Finished]], metric: str) -> dict[str, dict[str, Any]]:
    """For each recommender with FEWEST different IDs or more, Spearman's correlation of every figure with the metric.

    Methods belong to one recommender if they differ in nothing but what made their IDs, and in seeds.

    Args:
        runs: method -> its runs, one for each seed.

    Returns:
        Name of the recommender -> `methods`, the points, and `figures`: name -> `correlation` (None where the figure
        is the same in all methods) and `points`, pairs of its value and the metric's. Figures that a method lacks are
        left out.
    """
    alike = dict[str, dict[str, _Judged]]()
    for name, seeds in runs.items():
        judged = [one for one in seeds if one.tear_sheet is not None]
        if judged:
            key = fingerprint_json(judged[0].settings)
            alike.setdefault(key, {})[name] = _Judged.of(judged, metric)
    found: dict[str, dict[str, Any]] = {}
    for methods in alike.values():
        if len({judged.ids for judged in methods.values()}) < FEWEST:
            continue
        figures = {}
        for name in FIGURES:
            values = [(judged.figures[name], judged.value) for judged in methods.values()]
            points = [(figure, value) for figure, value in values if figure is not None]
            if len(points) == len(methods):
                figures[name] = {"correlation": rank_correlation(points), "points": [list(point) for point in points]}
        found[_title(next(iter(methods.values())).recommender, found)] = {"methods": list(methods), "figures": figures}
    return found


@dataclass(frozen=True)
class _Judged:
    """A method, as the mean of its seeds."""

    recommender: str
    ids: frozenset[str]  # fingerprints of its semantic IDs
    figures: dict[str, float | None]
    value: float  # of the metric

    @classmethod
    def of(cls, seeds: Sequence[Finished], metric: str) -> "_Judged":
        sheets = [one.tear_sheet for one in seeds if one.tear_sheet is not None]
        figures = {}
        for name in FIGURES:
            values = [sheet["figures"].get(name) for sheet in sheets]
            figures[name] = None if None in values else float(np.mean(values))
        value = float(np.mean([one.report.values(metric).mean() for one in seeds]))
        ids = frozenset(sheet["of"] for sheet in sheets)
        return cls(seeds[0].report.card["model"]["config"]["method"], ids, figures, value)


def _title(recommender: str, taken: Collection[str]) -> str:
    """The recommender's name, numbered where another setting of it is there already."""
    numbered = (recommender if number == 1 else f"{recommender} ({number})" for number in count(1))
    return next(name for name in numbered if name not in taken)


def rank_correlation(points: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's; None where one of the two never varies."""
    from scipy.stats import spearmanr

    first, second = np.array(points, dtype=float).T
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return round(float(spearmanr(first, second).statistic), 4)
