"""The stage cache: what is repeated and what is not, on the cheapest recipe."""

import json
from pathlib import Path

import numpy as np
import pytest

from tesserec.data import Dataset, SyntheticConfig, synthetic_catalogue
from tesserec.errors import ArtifactError, ConfigError
from tesserec.pipeline import Run, load_recipe, run
from tesserec.pipeline.inspection import inspect
from tesserec.progress import Silent


class Spoken(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    def cached(self) -> list[str]:
        return [line.partition(":")[0] for line in self.lines if line.endswith(": cached")]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop") / "data"
    synthetic_catalogue(SyntheticConfig(n_users=60, n_items=50)).save(folder)
    return folder


def go(data: Path, out: Path, *settings: str) -> tuple[Run, list[str]]:
    spoken = Spoken()
    return run(load_recipe("popularity", settings), data, out, progress=spoken), spoken.cached()


def test_a_second_run_repeats_nothing(data, tmp_path):
    first, cached = go(data, tmp_path / "run")
    assert cached == []
    again, cached = go(data, tmp_path / "run")
    assert cached == ["recommender", "report"]
    assert again.report.card == first.report.card


def test_a_changed_setting_repeats_the_stages_that_depend_on_it(data, tmp_path):
    go(data, tmp_path / "run")
    changed, cached = go(data, tmp_path / "run", "evaluation.cutoffs=3")
    assert cached == ["recommender"]
    assert changed.report.cutoffs == (3,)


def test_what_a_stage_is_told_counts_even_where_it_makes_the_same_numbers(data, tmp_path):
    """Neither of these changes the codebooks or the weights, and both change what is made with them."""
    settings = ["text.width=16", "tokenizer.n_levels=1", "tokenizer.codebook_size=4", "recommender.width=16",
                "recommender.n_layers=1", "recommender.n_heads=1", "recommender.head_width=16",
                "recommender.beam_width=4", "recommender.ff_width=16", "training.max_steps=1",
                "training.precision=fp32"]  # fmt: skip

    def made(*changes: str) -> Run:
        return run(load_recipe("tiger", [*settings, *changes]), data, tmp_path / "run", store=tmp_path / "store")

    shared = made("tokenizer.collisions=share")
    assert shared.semantic_ids.codes.shape == (50, 1)
    apart = made("tokenizer.collisions=extra-level")
    assert apart.semantic_ids.codes.shape == (50, 2)
    assert apart.report.card["model"]["ranking"].startswith("beam of 4")
    assert made("recommender.beam_width=6").report.card["model"]["ranking"].startswith("beam of 6")


def test_changed_data_repeats_everything(data, tmp_path):
    go(data, tmp_path / "run")
    synthetic_catalogue(SyntheticConfig(n_users=61, n_items=50)).save(tmp_path / "other")
    changed, cached = go(tmp_path / "other", tmp_path / "run")
    assert cached == []
    assert len(changed.report) == 61


def test_a_damaged_artefact_is_made_again(data, tmp_path):
    go(data, tmp_path / "run")
    (tmp_path / "run" / "recommender" / "items.parquet").write_bytes(b"damaged")
    mended, cached = go(data, tmp_path / "run")
    assert "recommender" not in cached
    assert len(mended.recommender.recommend([[]], 5).ids()[0]) == 5


def test_run_json_holds_the_complete_recipe(data, tmp_path):
    go(data, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["reached"] == ["recommender", "report"]
    assert about["recipe"]["evaluation"]["cutoffs"] == [1, 5, 10, 20, 50]
    assert about["dataset"]["folder"] == str(data)
    assert set(about["stages"]) == {"recommender", "report"}


def test_parts_that_a_run_has_not_made_are_refused(data, tmp_path):
    finished, _ = go(data, tmp_path / "run")
    with pytest.raises(ArtifactError, match="has no semantic-ids: its recipe makes none"):
        _ = finished.semantic_ids
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**about, "reached": []}))
    with pytest.raises(ArtifactError, match="has no recommender"):
        _ = Run.open(tmp_path / "run").recommender


def test_folders_that_are_no_runs_are_refused(data, tmp_path):
    with pytest.raises(ArtifactError, match="is not a run"):
        Run.open(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="Choose another folder"):
        go(data, tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ArtifactError, match="is damaged"):
        go(data, tmp_path)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("dataset", None),
        ("dataset", {"fingerprint": "0"}),
        ("dataset", {"folder": 3, "fingerprint": "0"}),
        ("reached", 3),
        ("recipe", {}),
        ("stages", []),
        ("stages", {"recommender": {}}),
    ],
)
def test_a_run_json_with_other_entries_than_a_run_writes_is_refused(data, tmp_path, entry, value):
    go(data, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**about, entry: value}))
    with pytest.raises(ArtifactError, match=r"run.json is damaged: entries are missing"):
        Run.open(tmp_path / "run")
    if entry == "stages":
        with pytest.raises(ArtifactError, match="Empty the folder"):
            go(data, tmp_path / "run")
    else:  # all that the next run needs are the stages
        assert go(data, tmp_path / "run")[1] == ["recommender", "report"]


def test_nothing_is_done_for_a_run_that_cannot_be_written(data, tmp_path):
    (tmp_path / "taken").write_text("mine")
    for out in (tmp_path / "taken", tmp_path / "taken" / "run"):
        with pytest.raises(ArtifactError, match=r"Nothing can be written into .*taken is no folder"):
            go(data, out)


def test_a_run_whose_data_has_moved_says_so(data, tmp_path):
    go(data, tmp_path / "run")
    about = (tmp_path / "run" / "run.json").read_text()
    (tmp_path / "run" / "run.json").write_text(about.replace(str(data), str(tmp_path / "gone")))
    with pytest.raises(ArtifactError, match="--data"):
        _ = Run.open(tmp_path / "run").split
    assert len(Run.open(tmp_path / "run", data=data).split.test) == 60


def test_networks_vectors_are_kept_for_other_runs(monkeypatch, tmp_path):
    from tesserec.environment import cache_folder

    monkeypatch.setenv("TESSEREC_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("TESSEREC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tesserec"


UNIFIED = (
    "text.width=16", "recommender.codebook_size=8", "recommender.hidden=16", "recommender.latent_width=12",
    "recommender.id_width=4", "recommender.n_layers=1", "training.max_steps=3", "training.precision=fp32",
)  # fmt: skip
TIGER = (
    "tokenizer=file", "recommender.width=16", "recommender.ff_width=16", "recommender.n_layers=1",
    "recommender.n_heads=1", "recommender.head_width=8", "recommender.beam_width=5", "training.max_steps=1",
    "training.precision=fp32",
)  # fmt: skip


def test_ids_learned_with_a_recommender_are_inspected_and_read_by_others(data, tmp_path):
    spoken = Spoken()
    first = run(load_recipe("unified", UNIFIED), data, tmp_path / "unified")
    run(load_recipe("unified", UNIFIED), data, tmp_path / "unified", progress=spoken)
    assert spoken.cached() == ["embeddings", "recommender", "semantic-ids", "report"]
    assert inspect(tmp_path / "unified").collisions.distinct == len(first.semantic_ids.group_sizes)
    for source in (tmp_path / "unified", tmp_path / "unified" / "semantic-ids"):
        other = run(load_recipe("tiger", (*TIGER, f"tokenizer.path={source}")), data, tmp_path / "tiger")
        assert other.semantic_ids.fingerprint == first.semantic_ids.fingerprint
    go(data, tmp_path / "popularity")
    with pytest.raises(ArtifactError, match="has no semantic-ids: its recipe makes none"):
        run(load_recipe("tiger", (*TIGER, f"tokenizer.path={tmp_path / 'popularity'}")), data, tmp_path / "tiger")


def test_a_fitted_tokenizer_of_another_run_names_these_items(data, tmp_path):
    settings = (*(one for one in TIGER if not one.startswith("tokenizer")), "text.width=16")
    first = run(load_recipe("tiger", (*settings, "tokenizer.codebook_size=8")), data, tmp_path / "first")
    fitted = ("tokenizer=fitted", f"tokenizer.path={tmp_path / 'first'}")
    spoken = Spoken()
    other = run(load_recipe("tiger", (*settings, *fitted)), data, tmp_path / "other", progress=spoken)
    assert any("lsa is fitted to each data set anew" in line for line in spoken.lines)
    assert not other.has("tokenizer")
    assert other.semantic_ids.fingerprint == first.semantic_ids.fingerprint
    with pytest.raises(ConfigError, match=r"tokenizer.method is 'fitted' but tokenizer.path is not set"):
        load_recipe("tiger", ("tokenizer=fitted",))


def test_texts_that_mean_other_things_to_a_fitted_tokenizer_are_noted(data, tmp_path):
    vectors = tmp_path / "vectors.npy"
    np.save(vectors, np.random.default_rng(0).normal(size=(len(Dataset.load(data).catalogue), 8)))
    settings = [one for one in TIGER if not one.startswith("tokenizer")]
    texts = {"lsa": ["text=lsa", "text.width=8"], "file": ["text=file", f"text.model={vectors}"]}
    noted = {}
    for name, theirs in texts.items():
        source, spoken = tmp_path / name, Spoken()
        run(load_recipe("tiger", [*settings, *theirs, "tokenizer.codebook_size=8"]), data, source)
        fitted = ["tokenizer=fitted", f"tokenizer.path={source / 'tokenizer'}"]
        run(load_recipe("tiger", [*settings, *texts["file"], *fitted]), data, tmp_path / f"by {name}", progress=spoken)
        noted[name] = [line for line in spoken.lines if line.startswith("note: ")]
    (line,) = noted["lsa"]
    assert "was trained on texts with text.encoder=lsa, here it reads them with text.encoder=file" in line
    assert noted["file"] == []


def test_an_ablation_without_codes_makes_no_ids(data, tmp_path):
    finished = run(load_recipe("unified", (*UNIFIED, "recommender.token=id")), data, tmp_path / "run")
    assert not finished.has("semantic-ids")
