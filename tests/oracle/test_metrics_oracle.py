"""Our metrics against ranx (untied scores), and against every order of tied items."""

from itertools import permutations

import numpy as np
import pytest

from tesserec.evaluation import CUTOFFS
from tesserec.functional.metrics import GAINS, expected_metric, id_metric


def ranks_of(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    target = scores[np.arange(len(scores)), targets][:, None]
    return np.ones(len(scores), dtype=bool), (scores > target).sum(axis=1), (scores == target).sum(axis=1)


@pytest.mark.filterwarnings("ignore")  # of numba inside ranx
def test_without_ties_every_metric_of_every_user_equals_ranx(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling ranx takes longer than running it
    from ranx import Qrels, Run, evaluate

    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(60.0), (40, 1)), axis=1)
    targets = rng.integers(0, 60, size=40)
    qrels = Qrels({f"u{user}": {f"i{target}": 1} for user, target in enumerate(targets)})
    run = Run({f"u{user}": {f"i{item}": value for item, value in enumerate(row)} for user, row in enumerate(scores)})
    found, ahead, tied = ranks_of(scores, targets)
    for name in (f"{gain}@{cutoff}" for gain in GAINS for cutoff in CUTOFFS):
        theirs = evaluate(qrels, run, name, return_mean=False)  # of every user, in order of their names
        order = np.argsort([f"u{user}" for user in range(len(scores))])
        assert expected_metric(name, found, ahead, tied)[order] == pytest.approx(theirs, abs=1e-9)
        assert id_metric(f"id_{name}", found, ahead + 1)[order] == pytest.approx(theirs, abs=1e-9)


def test_with_ties_the_expectation_equals_the_mean_over_every_order():
    scores = np.array([[3.0, 2.0, 2.0, 2.0, 1.0]])
    places = [[0, *order, 4].index(2) + 1 for order in permutations([1, 2, 3])]  # the target is item 2
    for cutoff in (1, 2, 3, 4):
        hits = np.mean([place <= cutoff for place in places])
        assert expected_metric(f"recall@{cutoff}", *ranks_of(scores, np.array([2])))[0] == pytest.approx(hits)
