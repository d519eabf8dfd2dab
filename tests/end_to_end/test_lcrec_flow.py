"""LC-Rec by its recipes: from a made-up shop to recommendations, found items and written titles."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tesserec.cli.main import app
from tesserec.data import SyntheticConfig, synthetic_catalogue
from tesserec.pipeline import Run, load_recipe, run

SMALL = [
    "text.width=16", "tokenizer.n_levels=2", "tokenizer.codebook_size=8", "tokenizer.hidden=32", "tokenizer.epochs=20",
    "recommender.new.width=32", "recommender.new.ff_width=64", "recommender.new.n_heads=2",
    "recommender.new.n_kv_heads=1", "recommender.new.n_layers=1", "recommender.new.words=600",
    "recommender.max_tokens=200", "recommender.text_tokens=12",
    "training.precision=fp32", "training.device=cpu", "training.batch_size=32",
    "training.epochs=2", "training.warmup_steps=5", "training.learning_rate=0.01", "training.validation_users=50",
]  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop") / "data"
    synthetic_catalogue(SyntheticConfig(n_users=60, n_items=50, seed=0)).save(folder)
    return folder


@pytest.fixture(scope="module")
def finished(shop, tmp_path_factory) -> Run:
    return run(load_recipe("lcrec", SMALL), shop, tmp_path_factory.mktemp("lcrec") / "run")


def tesserec(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_shop_becomes_ids_prompts_and_ranks(finished):
    assert finished.semantic_ids.collision_policy == "assignment"
    asked = finished.report.card["model"]["config"]["asked"]
    assert asked["interests"] == "key words of item texts"
    assert set(asked["rows"]) == {"seqrec", "item2index", "index2item", "fusion", "itemsearch", "preference"}
    assert finished.report.card["model"]["ranking"] == "beam of 20, constrained"
    assert finished.report.card["model"]["sizes"]["parameters of the whole model"] == finished.recommender.n_parameters


def test_lm_finds_items_by_text_and_writes_texts_of_ids(finished):
    item = finished.recommender.fitted_catalogue.item_ids[0]
    found = tesserec("lm", "find", finished.folder, "some red thing", "-k", "3", "--json")
    assert len(json.loads(found.stdout)["found"]) == 3
    described = json.loads(tesserec("lm", "describe", finished.folder, item, "--json").stdout)["described"]
    assert described[0]["item_id"] == item
    assert described[0]["title"]
    for arguments, message in (
        (("lm", "find", finished.folder, " "), "none of them empty"),
        (("lm", "describe", finished.folder, "nothing"), "no item 'nothing'"),
        (("lm", "find", finished.folder, "x", "-k", "0"), "k of 1 or more"),
    ):
        result = tesserec(*arguments)
        assert result.exit_code == 2
        assert message in result.stderr


def test_lm_new_makes_a_folder_that_recipes_start_from(shop, tmp_path):
    made = tesserec("lm", "new", "--data", shop, "--out", tmp_path / "lm", "--set", "width=16", "--set", "n_heads=2",
                    "--set", "n_kv_heads=2", "--set", "n_layers=1", "--set", "words=400")  # fmt: skip
    assert made.exit_code == 0, made.output
    settings = [
        "recommender.model=" + str(tmp_path / "lm"),
        "recommender.tuning=adapters",
        "recommender.adapters.rank=2",
    ]
    tuned = run(load_recipe("lcrec", [*SMALL, *settings, "training.max_steps=2"]), shop, tmp_path / "run")
    assert tuned.recommender.fitted_network.has_adapters
    assert not list((tmp_path / "run" / "recommender" / "model").glob("model*.safetensors"))
    refused = tesserec("lm", "new", "--data", shop, "--out", tmp_path / "other", "--set", "widht=16")
    assert refused.exit_code == 2
    assert "Did you mean 'width'?" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_only_language_models_are_asked_for_words(shop, tmp_path):
    other = run(load_recipe("popularity"), shop, tmp_path / "run")
    result = tesserec("lm", "find", other.folder, "pen")
    assert result.exit_code == 2
    assert "This run's recommender is popularity, which reads and writes no text" in result.stderr


def test_a_missing_model_or_file_of_interests_is_named_before_the_work(shop, tmp_path):
    for setting, message in (
        (f"recommender.interests={tmp_path / 'nothing.json'}", "nothing.json is no run, recommender or file"),
        (f"recommender.model={tmp_path / 'nowhere'}", "there is no folder"),
    ):
        options = [part for one in (*SMALL, setting) for part in ("--set", one)]
        result = tesserec("run", "lcrec", "--data", shop, "--out", tmp_path / "run", *options)
        assert result.exit_code == 2
        assert message in result.stderr
