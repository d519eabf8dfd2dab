"""The command line on a planted shop: from raw files to recommendations, cached, and killed in between."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from killed_processes import until_it_trains
from tesserec.cli.main import app
from tesserec.data import Dataset, SyntheticConfig, plant
from tesserec.pipeline import Run

SASREC = (
    "recommender.width=32", "recommender.dropout=0.2",
    "training.batch_size=32", "training.epochs=20", "training.learning_rate=0.005", "training.precision=fp32",
)  # fmt: skip
TIGER = (
    "text.width=32", "tokenizer.codebook_size=16",
    "recommender.width=32", "recommender.n_layers=1", "recommender.ff_width=64", "recommender.n_heads=2",
    "recommender.head_width=16", "recommender.dropout=0.0", "recommender.beam_width=20",
    "training.batch_size=128", "training.epochs=10", "training.learning_rate=0.003", "training.precision=fp32",
)  # fmt: skip


def tesserec(*arguments: object) -> tuple[dict, str]:
    """What a command prints as JSON, and what it says on stderr."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout), result.stderr


def run_arguments(recipe: str, data: Path, out: Path, settings: tuple[str, ...]) -> list[str]:
    return ["run", recipe, "--data", str(data), "--out", str(out), *(f"--set={setting}" for setting in settings)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A planted shop, written out as raw files and prepared by the command line; and every item's planted successor."""
    folder = tmp_path_factory.mktemp("shop")
    dataset, truth = plant(SyntheticConfig(n_users=300, n_items=120))
    users, index = dataset.sequences.positions()
    places = index - dataset.sequences.starts[users]
    ids = np.array(dataset.catalogue.item_ids)[dataset.sequences.values[index]]
    pl.DataFrame({"user_id": users, "item_id": ids, "position": places}).write_csv(folder / "interactions.csv")
    dataset.items.write_ndjson(folder / "items.jsonl")
    prepared, _ = tesserec("prepare", folder, "--out", folder / "data")
    assert prepared["sizes"] == {"users": 300, "items": len(set(ids)), "interactions": len(ids)}
    item_ids = dataset.catalogue.item_ids
    return folder / "data", {
        item: item_ids[truth.successor[row]] for row, item in enumerate(item_ids) if truth.bought[row]
    }


@pytest.fixture(scope="module")
def runs(shop, tmp_path_factory) -> dict[str, Path]:
    data, folder = shop[0], tmp_path_factory.mktemp("runs")
    for recipe, settings in (("popularity", ()), ("sasrec", SASREC), ("tiger", TIGER)):
        tesserec(*run_arguments(recipe, data, folder / recipe, settings))
    return {recipe: folder / recipe for recipe in ("popularity", "sasrec", "tiger")}


LETTER = (
    *TIGER, "collaborative.dropout=0.2", "collaborative.training.epochs=6", "collaborative.training.batch_size=32",
    "collaborative.training.learning_rate=0.01", "collaborative.training.precision=fp32",
    "tokenizer.hidden=32", "tokenizer.latent_width=16", "tokenizer.epochs=40", "tokenizer.batch_size=64",
    "tokenizer.n_levels=3", "tokenizer.precision=fp32",
)  # fmt: skip


def ndcg(run: Path) -> float:
    return float(json.loads((run / "report" / "report.json").read_text())["metrics"]["ndcg@10"])


def test_trained_recommenders_find_the_planted_habits_and_popularity_does_not(runs):
    floor = ndcg(runs["popularity"])
    assert floor < 0.2
    assert ndcg(runs["sasrec"]) > floor + 0.25
    assert ndcg(runs["tiger"]) > floor + 0.15


def test_exact_ranking_finds_every_target_and_agrees_with_a_wide_beam(runs):
    exact, _ = tesserec("evaluate", runs["tiger"], "--exact")
    beam, _ = tesserec("evaluate", runs["tiger"], "--beam", 120)
    assert exact["unranked_targets"] == 0
    assert exact["card"]["model"]["ranking"].startswith("exact")
    assert exact["metrics"]["ndcg@10"] == pytest.approx(beam["metrics"]["ndcg@10"], abs=1e-3)


def test_letter_makes_its_own_collaborative_vectors_or_takes_them_from_a_file(shop, runs, tmp_path):
    tesserec(*run_arguments("letter-tiger", shop[0], tmp_path / "run", LETTER))
    assert ndcg(tmp_path / "run") > ndcg(runs["popularity"]) + 0.15
    made = Run.open(tmp_path / "run")
    assert made.collaborative.vectors.shape == (len(made.split.dataset.catalogue), 16)
    assert made.collaborative.config["training"]["epochs"] == 6
    assert made.tokenizer.collaborative_fingerprint == made.collaborative.fingerprint
    assert made.semantic_ids.collision_policy == "assignment"
    again = (*LETTER, "tokenizer.seed=1", "training.max_steps=1")
    _, said = tesserec(*run_arguments("letter-tiger", shop[0], tmp_path / "run", again))
    assert [line for line in said.splitlines() if "cached" in line] == ["embeddings: cached", "collaborative: cached"]
    np.save(tmp_path / "vectors.npy", made.collaborative.vectors)
    settings = [setting for setting in LETTER if not setting.startswith("collaborative")]
    given = (*settings, "collaborative=file", f"collaborative.path={tmp_path / 'vectors.npy'}", "training.max_steps=1")
    tesserec(*run_arguments("letter-tiger", shop[0], tmp_path / "from-file", given))
    assert Run.open(tmp_path / "from-file").semantic_ids.fingerprint == made.semantic_ids.fingerprint


def test_collaborative_vectors_of_another_width_are_refused_without_a_traceback(shop, tmp_path):
    n_items = len(Dataset.load(shop[0]).catalogue)
    np.save(tmp_path / "vectors.npy", np.ones((n_items, 5), dtype=np.float32))
    settings = ("collaborative=file", f"collaborative.path={tmp_path / 'vectors.npy'}", "tokenizer.codebook_size=16")
    result = CliRunner().invoke(app, run_arguments("letter-tiger", shop[0], tmp_path / "run", settings))
    assert result.exit_code == 2
    assert f"shape ({n_items}, 5), but latent_width is 32" in " ".join(result.stderr.split())


def weights(run: Path) -> bytes:
    (file,) = (run / "recommender").glob("*.safetensors")
    return file.read_bytes()


@pytest.mark.parametrize("recipe", ["sasrec", "tiger"])
def test_recommendations_hold_the_planted_successors_with_their_titles(shop, runs, recipe):
    found = 0
    for item, successor in list(shop[1].items())[:20]:
        rows = tesserec("recommend", runs[recipe], "--history", item, "-k", 5)[0]["recommendations"]
        assert len(rows) == 5
        assert all(row["title"] for row in rows)
        found += successor in [row["item_id"] for row in rows]
    assert found >= 12


def test_a_second_run_finds_every_stage_cached(shop, runs):
    _, said = tesserec(*run_arguments("tiger", shop[0], runs["tiger"], TIGER))
    stages = ("embeddings", "tokenizer", "semantic-ids", "recommender", "report")
    assert said.splitlines() == [f"{stage}: cached" for stage in stages]
    assert not (runs["tiger"] / "checkpoints").exists()


def test_another_tokenizer_needs_no_new_embeddings(shop, tmp_path):
    quick = (*TIGER, "training.max_steps=1")
    tesserec(*run_arguments("tiger", shop[0], tmp_path / "run", quick))
    _, said = tesserec(*run_arguments("tiger", shop[0], tmp_path / "run", (*quick, "tokenizer.seed=1")))
    assert [line for line in said.splitlines() if "cached" in line] == ["embeddings: cached"]


def test_a_tear_sheet_of_the_run_is_printed(runs):
    sheet, _ = tesserec("inspect", runs["tiger"])
    assert sheet


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(shop, runs, tmp_path):
    settings = (*SASREC, "training.checkpoint_seconds=0")
    arguments = run_arguments("sasrec", shop[0], tmp_path / "run", settings)
    with subprocess.Popen(
        [sys.executable, "-m", "tesserec", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},  # sums depend on it in the last bit
    ) as process:  # fmt: skip
        until_it_trains(process, tmp_path / "run" / "checkpoints")
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "run" / "recommender").exists()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["reached"] == []
    _, said = tesserec(*arguments)
    assert "resumed from" in said
    assert weights(tmp_path / "run") == weights(runs["sasrec"])
