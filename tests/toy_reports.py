"""Reports made by hand: ranks that a test chooses, under a card that a test may change."""

from copy import deepcopy
from typing import Any

import numpy as np

from tesserec.evaluation import Report
from tesserec.recommenders.base import Ranks

CARD: dict[str, Any] = {
    "protocol": {
        "dataset": "d0", "dataset_sizes": {"users": 9, "items": 50, "interactions": 99}, "split": "leave-one-out",
        "part": "test", "cases": 0, "candidates": "all 50 items, nothing masked", "seen_targets": 0, "cutoffs": [1, 10],
        "metric_level": "items", "tie_rule": "expectation",
    },
    "model": {
        "config": {}, "parameters": 7, "sizes": {}, "sources": {"dataset": "d0"},
        "ranking": "exact, every item scored", "selected_by": "nothing was selected", "seed": 0,
    },
    "made": {
        "library": {"version": "0.1.0", "commit": None}, "versions": {"torch": "2.13.0", "faiss-cpu": None},
        "hardware": {"cpu": "cpu", "gpus": []}, "ranking_seconds": 2.0, "at": "2026-01-01T00:00:00+00:00",
    },
}  # fmt: skip


def report_of(places: Any, *, seed: int = 0, method: str = "toy", card: dict[str, Any] | None = None) -> Report:
    """A report in which user u's target stands at place `places[u]`, from 1; 0: it was not found."""
    places = np.asarray(places)
    full = deepcopy(CARD)
    full["protocol"]["cases"] = len(places)
    full["model"]["config"] = {"method": method, "training": {"seed": seed}}
    full["model"]["seed"] = seed
    for part, values in (card or {}).items():
        full[part].update(values)
    rows = np.arange(len(places))
    cases = {
        "user_id": np.array([f"u{row:04}" for row in rows]),
        "target_id": np.array([f"i{row % 50}" for row in rows]),
        "history_length": rows % 25 + 1,
        "target_count": rows % 4,
        "target_popularity": 3 - rows % 4,
        "repeat": rows % 10 == 0,
    }
    ahead = np.maximum(places, 1) - 1
    return Report(full, cases, Ranks(places > 0, ahead, np.ones(len(places), dtype=np.int64), ahead + 1))
