"""What tear-sheets knew in advance: their figures, against how well models recommended by the same semantic IDs.

A tear-sheet is read before a training, to spare it. Whether its figures deserve that is measured here, over the runs
of a suite: for each recommender that was trained on several semantic IDs, each figure's rank correlation with a metric.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tesserec.artifacts import read_json, write_json
from tesserec.bench.finished import TEAR_SHEET, Finished
from tesserec.evaluation import TearSheet, inspect_ids
from tesserec.evaluation.tearsheet import Agreement
from tesserec.pipeline.run import Run

FEWEST = 4  # runs of different IDs, below which a correlation says nothing


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
    if path.is_file() and read_json(path)["of"] == of:
        return
    embeddings = finished.embeddings if finished.has("embeddings") else None
    if embeddings is not None and embeddings.vectors.ndim > 2:  # a vector for each attribute: no one nearest text
        embeddings = None
    sheet = inspect_ids(finished.semantic_ids, embeddings=embeddings, split=finished.split)
    write_json(path, {"of": of, "figures": {name: figure(sheet) for name, figure in FIGURES.items()}})


def foresight(runs: Sequence[Finished], metric: str) -> dict[str, dict[str, Any]]:
    """For each recommender with FEWEST different IDs or more, Spearman's correlation of every figure with the metric.

    Returns:
        Recommender -> `runs`, how many there are, and `figures`: name -> `correlation` (None where the figure is the
        same in all runs) and `points`, pairs of its value and the metric's. Figures that a run lacks are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for method in dict.fromkeys(one.report.card["model"]["config"]["method"] for one in runs):
        judged = {
            one.folder: (read_json(one.folder / TEAR_SHEET), float(one.report.values(metric).mean()))
            for one in runs
            if one.report.card["model"]["config"]["method"] == method and (one.folder / TEAR_SHEET).is_file()
        }
        if len({sheet["of"] for sheet, _ in judged.values()}) < FEWEST:
            continue
        figures = {}
        for name in FIGURES:
            points = [(sheet["figures"].get(name), value) for sheet, value in judged.values()]
            if all(figure is not None for figure, _ in points):
                figures[name] = {"correlation": rank_correlation(points), "points": [list(point) for point in points]}
        found[method] = {"runs": len(judged), "figures": figures}
    return found


def rank_correlation(points: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's; None where one of the two never varies."""
    from scipy.stats import spearmanr

    first, second = np.array(points, dtype=float).T
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return round(float(spearmanr(first, second).statistic), 4)
