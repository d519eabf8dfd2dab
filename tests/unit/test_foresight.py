"""What tear-sheets said in advance: figures kept beside runs, and their correlation with what came of it."""

from html import escape
from types import SimpleNamespace

import numpy as np
import pytest

from tesserec.artifacts import read_json, write_json
from tesserec.bench.finished import TEAR_SHEET, Finished
from tesserec.bench.foresight import FIGURES, foresight, keep_figures, rank_correlation
from tesserec.bench.markdown import FORESIGHT, foresight_rows
from tesserec.bench.page import _foresight
from tesserec.data import SyntheticConfig, synthetic_catalogue
from tesserec.pipeline import load_recipe, run

EVENNESS, DISTINCT = list(FIGURES)[:2]


def made(tmp_path, name, method, ids, evenness, distinct, recall, width=8):
    """A run as far as it matters here."""
    folder = tmp_path / name
    folder.mkdir()
    write_json(folder / TEAR_SHEET, {"of": ids, "figures": {EVENNESS: evenness, DISTINCT: distinct}})
    config = {"method": method, "recommender": {"width": width}, "training": {"seed": len(name)}}
    report = SimpleNamespace(card={"model": {"config": config}}, values={"recall@10": np.array([recall])}.get)
    return Finished(name, "shop", folder, report)


def test_correlation_is_that_of_ranks():
    assert rank_correlation([(1, 10), (2, 20), (3, 1000)]) == 1.0
    assert rank_correlation([(1, 3), (2, 2), (3, 1)]) == -1.0
    assert rank_correlation([(1, 1), (2, 3), (3, 2), (4, 4)]) == 0.8
    assert rank_correlation([(1, 1), (1, 3)]) is None


def test_figures_are_held_against_the_metric_for_each_recommender_apart(tmp_path):
    tiger = {f"TIGER {n}": [made(tmp_path, f"t{n}", "tiger", f"ids-{n}", n, 5 - n, n / 10)] for n in range(4)}
    wider = {f"wider {n}": [made(tmp_path, f"w{n}", "tiger", f"ids-{n}", n, n, -n, width=16)] for n in range(5)}
    few = {f"LC-Rec {n}": [made(tmp_path, f"l{n}", "lcrec", "the same", n, n, n)] for n in range(5)}
    found = foresight(tiger | wider | few, "recall@10")
    assert list(found) == ["tiger", "tiger (2)"]  # one set of IDs, however many methods, is no comparison
    assert found["tiger"]["methods"] == list(tiger)
    assert found["tiger"]["figures"][EVENNESS]["correlation"] == 1.0
    assert found["tiger"]["figures"][DISTINCT]["correlation"] == -1.0
    assert found["tiger (2)"]["figures"][EVENNESS]["correlation"] == -1.0
    assert list(FIGURES)[2] not in found["tiger"]["figures"]
    results = {"foresight": {"shop": found}}
    assert foresight_rows(results, "shop")[1] == [EVENNESS, "+1.00", "-1.00"]
    shown = "".join(_foresight(results, "shop"))
    assert "tiger, 4 methods" in shown
    assert escape(FORESIGHT) in shown
    assert _foresight({"foresight": {"shop": {}}}, "shop") == []


def test_seeds_of_a_method_are_one_point(tmp_path):
    """Two seeds of each of three tokenizers are six runs and six sets of IDs, but three methods."""
    three = {
        f"{n}": [made(tmp_path, f"{n}{'x' * seed}", "tiger", f"{n}-{seed}", n + seed, n, n + seed) for seed in (0, 2)]
        for n in range(3)
    }
    assert foresight(three, "recall@10") == {}
    four = three | {"3": [made(tmp_path, "3", "tiger", "3", 9, 3, 9)]}
    points = foresight(four, "recall@10")["tiger"]["figures"][EVENNESS]["points"]
    assert points == [[1, 1], [2, 2], [3, 3], [9, 9]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop") / "data"
    synthetic_catalogue(SyntheticConfig(n_users=80, n_items=60)).save(folder)
    return folder


def test_figures_are_kept_once_for_each_set_of_ids(shop, tmp_path):
    settings = ["text.width=16", "tokenizer.n_levels=2", "tokenizer.codebook_size=8", "recommender.width=8",
                "recommender.n_layers=1", "training.max_steps=1", "training.device=cpu"]  # fmt: skip
    finished = run(load_recipe("vqrec", ["tokenizer=rkmeans", *settings]), shop, tmp_path / "run")
    keep_figures(finished)
    path = tmp_path / "run" / TEAR_SHEET
    kept, written_at = read_json(path), path.stat().st_mtime_ns
    assert set(kept["figures"]) == set(FIGURES)
    assert all(0 <= figure <= 1 for figure in kept["figures"].values())
    keep_figures(finished)
    assert path.stat().st_mtime_ns == written_at


def test_a_run_without_semantic_ids_has_no_figures(shop, tmp_path):
    keep_figures(run(load_recipe("popularity"), shop, tmp_path / "run"))
    assert not (tmp_path / "run" / TEAR_SHEET).exists()
