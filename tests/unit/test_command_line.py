"""The command line: what it says of bad input, what it prints, and that it starts light."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tesserec.cli.main import app
from tesserec.data import Dataset, SyntheticConfig, synthetic_catalogue
from tesserec.evaluation import Misses
from tesserec.tokenizers.semantic_ids import SemanticIds

HEAVY = ("torch", "polars", "faiss", "sklearn", "transformers", "matplotlib", "accelerate", "numpy", "pyarrow")


def tesserec(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop") / "data"
    synthetic_catalogue(SyntheticConfig(n_users=60, n_items=50)).save(folder)
    return folder


@pytest.fixture(scope="module")
def popularity(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "popularity"
    assert tesserec("run", "popularity", "--data", data, "--out", folder).exit_code == 0
    return folder


def refused(result: Result, *parts: str) -> None:
    """The error went to stderr in one message, nothing to stdout, and the exit code is 2."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr


@pytest.mark.parametrize("module", ["tesserec", "tesserec.cli.main"])
def test_importing_loads_nothing_heavy(module):
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_names_every_verb():
    text = tesserec("--help").stdout
    for verb in (
        "demo",
        "prepare",
        "join",
        "recipes",
        "run",
        "inspect",
        "evaluate",
        "compare",
        "misses",
        "recommend",
        "doctor",
    ):
        assert verb in text
        assert tesserec(verb, "--help").exit_code == 0


def test_results_go_to_stdout_and_progress_to_stderr(data, popularity):
    result = tesserec("run", "popularity", "--data", data, "--out", popularity)
    assert "ndcg" in result.stdout
    assert "cached" not in result.stdout
    assert "recommender: cached" in result.stderr
    assert json.loads(tesserec("run", "popularity", "--data", data, "--out", popularity, "--json").stdout)["metrics"]


def test_evaluate_can_rank_another_part_without_seen_items_and_save_the_report(popularity, tmp_path):
    out = tmp_path / "report"
    result = tesserec("evaluate", popularity, "--part", "validation", "--exclude-seen", "--out", out, "--json")
    protocol = json.loads(result.stdout)["card"]["protocol"]
    assert protocol["part"] == "validation"
    assert "history" in protocol["candidates"]
    assert (out / "per_user.parquet").exists()


@pytest.fixture(scope="module")
def seeds(data, tmp_path_factory) -> list[Path]:
    """Two runs of one recipe that differ in their seed alone."""
    folder = tmp_path_factory.mktemp("seeds")
    small = ("--set", "training.max_steps=2", "--set", "recommender.width=8", "--set", "recommender.n_heads=1")
    for seed in (0, 1):
        run = ("run", "sasrec", "--data", data, "--out", folder / f"sasrec-{seed}", "--set", f"training.seed={seed}")
        assert tesserec(*run, *small).exit_code == 0
    return [folder / f"sasrec-{seed}" for seed in (0, 1)]


def test_compare_groups_seeds_of_a_recipe_and_takes_names_and_saved_reports(popularity, seeds, tmp_path):
    options = ("--metric", "recall@5", "--reference", "popularity")
    found = json.loads(tesserec("compare", *seeds, popularity, *options, "--json").stdout)
    assert list(found["methods"]) == ["sasrec", "popularity"]
    assert found["methods"]["sasrec"]["seeds"] == [0, 1]
    assert found["metrics"] == ["recall@5"]
    reports = [json.loads((run / "report" / "report.json").read_text())["metrics"]["recall@5"] for run in seeds]
    assert found["methods"]["sasrec"]["metrics"]["recall@5"]["seeds"] == pytest.approx(reports)
    assert found["methods"]["sasrec"]["cost"]["training_seconds"] > 0
    assert 0 < found["methods"]["sasrec"]["beyond"]["coverage@10"]["mean"] <= 1
    assert sum(cases for name, cases in found["slices"].items() if name.startswith("popularity")) == 60
    named = ("compare", *(f"mine={run / 'report'}" for run in seeds), f"best={popularity}")
    again = json.loads(tesserec(*named, "--metric", "recall@5", "--json", "--reference", "best").stdout)
    assert list(again["methods"]) == ["mine", "best"]
    assert again["methods"]["mine"]["differences"] == found["methods"]["sasrec"]["differences"]
    apart = json.loads(tesserec("compare", seeds[0], f"second={seeds[1]}", "--json").stdout)
    assert list(apart["methods"]) == ["sasrec", "second"]
    page = tesserec("compare", *seeds, popularity, "--markdown").stdout
    assert "| popularity | 1 |" in page
    assert tesserec("compare", *seeds, popularity).stdout.startswith("test part of leave-one-out, 60 users")


def test_compare_calls_recipes_of_one_name_by_their_paths(data, popularity, seeds, tmp_path):
    other = tmp_path / "wider"
    small = ("--set", "training.max_steps=2", "--set", "recommender.width=16", "--set", "recommender.n_heads=1")
    assert tesserec("run", "sasrec", "--data", data, "--out", other, *small).exit_code == 0
    found = json.loads(tesserec("compare", *seeds, other, "--json").stdout)["methods"]
    assert {name: len(method["seeds"]) for name, method in found.items()} == {"sasrec-0": 2, "wider": 1}
    refused(tesserec("compare", f"a={seeds[0]}", f"a={other}"), "a differ in more than their seed (recommender.width")
    reports = (f"a={seeds[0] / 'report'}", f"a={other / 'report'}")
    refused(tesserec("compare", *reports), "a differ in more than their seed (recommender.width")


def test_compare_measures_lists_in_one_space_of_texts(data, popularity, tmp_path):
    assert tesserec("run", "tiger", "--data", data, "--out", tmp_path / "tiger", *TIGER).exit_code == 0
    others = ("--set", "text.width=5")  # other inputs of the same network
    assert tesserec("run", "tiger", "--data", data, "--out", tmp_path / "narrow", *TIGER, *others).exit_code == 0
    both = (f"a={tmp_path / 'tiger'}", f"a={tmp_path / 'narrow'}")
    refused(tesserec("compare", *both), "a differ in more than their seed (text.width: ")
    sources = (popularity, tmp_path / "tiger")
    found = json.loads(tesserec("compare", *sources, "--json").stdout)["methods"]
    assert all(0 < method["beyond"]["text_distance@10"]["mean"] < 2 for method in found.values())
    given = ("--embeddings", tmp_path / "tiger" / "embeddings")
    assert json.loads(tesserec("compare", *sources, *given, "--json").stdout)["methods"] == found
    alone = json.loads(tesserec("compare", popularity, "--json").stdout)["methods"]["popularity"]
    assert "text_distance@10" not in alone["beyond"]


def test_misses_says_where_a_beam_lost_the_targets(data, popularity, tmp_path):
    assert tesserec("run", "tiger", "--data", data, "--out", tmp_path / "run", *TIGER).exit_code == 0
    options = ("--beam", "3", "--users", "20", "--exact")
    found = json.loads(tesserec("misses", tmp_path / "run", *options, "--json").stdout)
    assert found["users"] == 20
    assert found["kept"] + sum(level["lost"] for level in found["levels"]) == 20
    assert found["widths"][-1]["certain"] == 1.0
    assert "median rank" in tesserec("misses", tmp_path / "run", *options, "--out", tmp_path / "misses").stdout
    assert Misses.load(tmp_path / "misses").to_dict() == found
    refused(tesserec("misses", tmp_path / "run", "--out", tmp_path / "run" / "report"), "of kind 'report'")
    refused(tesserec("misses", popularity), "popularity scores every item")
    refused(tesserec("misses", tmp_path / "run", "--beam", "0"), "beam_width 0")
    refused(tesserec("misses", tmp_path / "run", "--users", "0"), "n_users is 0")


def test_compare_refuses_what_does_not_belong_together(data, popularity, seeds, tmp_path):
    masked, validation = tmp_path / "masked", tmp_path / "validation"
    assert tesserec("evaluate", popularity, "--exclude-seen", "--out", masked).exit_code == 0
    assert tesserec("evaluate", popularity, "--part", "validation", "--out", validation).exit_code == 0
    refused(tesserec("compare", seeds[0], masked), "different protocols (", "candidates: ", "own history")
    refused(tesserec("compare", seeds[0], validation), "part: test and validation")
    other = tmp_path / "other"
    synthetic_catalogue(SyntheticConfig(n_users=60, n_items=60)).save(other)
    assert tesserec("run", "popularity", "--data", other, "--out", tmp_path / "run").exit_code == 0
    refused(tesserec("compare", seeds[0], tmp_path / "run"), "dataset: ", "follow different protocols")
    refused(tesserec("compare", seeds[0], seeds[0]), "given twice")
    refused(tesserec("compare", seeds[0], f"a={seeds[0] / 'report'}"), "given twice")
    refused(tesserec("compare", tmp_path / "none"), "no folder", "none")
    refused(tesserec("compare", data), "'dataset'", "'report'")
    refused(tesserec("compare", popularity, "--metric", "ndgc@10"), "Did you mean 'ndcg'")
    refused(tesserec("compare", popularity, "--reference", "popular"), "Did you mean 'popularity'")
    (tmp_path / "run" / "report" / "per_user.parquet").write_bytes(b"x")
    refused(tesserec("compare", tmp_path / "run"), "is damaged")
    np.save(tmp_path / "v.npy", np.zeros((60, 2)))
    refused(tesserec("compare", popularity, "--embeddings", tmp_path / "none"), "none")


def test_recommend_gives_titles_within_the_limits_asked_for(popularity):
    def rows(*options: str) -> list[dict[str, object]]:
        return json.loads(tesserec("recommend", popularity, "--json", *options).stdout)["recommendations"]

    first, second, third = rows("--history", "none", "-k", "3")
    assert first["title"]
    best = str(first["item_id"])
    assert [row["item_id"] for row in rows("--history", best, "-k", "2")] == [best, second["item_id"]]
    assert [row["item_id"] for row in rows("--history", best, "--exclude-seen", "-k", "1")] == [second["item_id"]]
    assert [row["item_id"] for row in rows("--history", best, "--deny", best, "-k", "1")] == [second["item_id"]]
    assert [row["item_id"] for row in rows("--history", best, "--allow", str(third["item_id"]))] == [third["item_id"]]


def test_recommend_names_the_ids_that_it_does_not_know(popularity):
    result = tesserec("recommend", popularity, "--history", "nope,neither", "-k", "1")
    assert "nope, neither" in result.stderr
    assert result.stdout.startswith("nothing of the history is known: these are the most popular items\nitem_id")
    for history, by_popularity in (("nope", True), ("", True), ("i000001,nope", False)):
        answer = json.loads(tesserec("recommend", popularity, "--history", history, "-k", "1", "--json").stdout)
        assert answer["by_popularity"] is by_popularity
    refused(tesserec("recommend", popularity, "--history", "", "--allow", "nope"), "no item 'nope'")


def test_recipes_lists_a_line_each_and_shows_one_in_full():
    assert "popularity  " in tesserec("recipes").stdout
    assert "[evaluation]" in tesserec("recipes", "popularity").stdout
    assert json.loads(tesserec("recipes", "--json").stdout)["popularity"]


def test_doctor_names_versions_and_what_is_missing():
    found = json.loads(tesserec("doctor", "--json").stdout)
    assert found["required"]["torch"]
    for extra, command in found["install"].items():
        assert None in found["extras"][extra].values()
        assert command == f"pip install 'tesserec[{extra}]'"
    assert "trains_on" in tesserec("doctor").stdout


def test_an_interrupted_command_says_how_to_go_on(monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("tesserec.pipeline.packaged_recipes", interrupt)
    result = tesserec("recipes")
    assert result.exit_code == 130
    assert "same command" in result.stderr


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("tesserec.pipeline.packaged_recipes", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tesserec("recipes")


def test_missing_and_unusable_sources_are_refused(tmp_path):
    refused(tesserec("prepare", tmp_path / "none.csv", "--out", tmp_path / "data"), "none.csv")
    empty = tmp_path / "empty.csv"
    empty.write_text("user_id,item_id,timestamp\n")
    refused(tesserec("prepare", empty, "--out", tmp_path / "data"), "empty.csv")
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("who,what,when\na,b,1\n")
    refused(tesserec("prepare", wrong, "--out", tmp_path / "data"), "--columns")
    refused(tesserec("prepare", wrong, "--out", tmp_path / "data", "--columns", "user=nobody"), "nobody")
    refused(tesserec("prepare", wrong, "--out", tmp_path / "data", "--on-error", "ignore"), "on_error", "'skip'")
    assert not (tmp_path / "data").exists()


def test_unknown_recipes_sections_and_keys_are_refused_with_the_nearest_name(data, tmp_path):
    run = ("--data", data, "--out", tmp_path / "run")
    refused(tesserec("run", "popularty", *run), "Did you mean 'popularity'")
    refused(tesserec("run", "popularity", *run, "--set", "evaluation.cutofs=3"), "Did you mean 'cutoffs'")
    refused(tesserec("run", "popularity", *run, "--set", "recommender=sasrek"), "Did you mean 'sasrec'")
    assert not (tmp_path / "run").exists()


def test_what_is_no_artefact_or_not_the_right_one_is_refused(data, popularity, tmp_path):
    refused(tesserec("run", "popularity", "--data", tmp_path, "--out", tmp_path / "run"), "manifest.json")
    refused(tesserec("run", "popularity", "--data", popularity / "report", "--out", tmp_path / "run"), "'dataset'")
    refused(tesserec("evaluate", data), "run.json")
    synthetic_catalogue(SyntheticConfig(n_users=61, n_items=50)).save(tmp_path / "other")
    refused(tesserec("evaluate", popularity, "--data", tmp_path / "other"), "do not belong together")


def test_a_corrupt_artefact_is_refused_with_the_way_out(data, tmp_path):
    tesserec("run", "popularity", "--data", data, "--out", tmp_path / "run")
    (tmp_path / "run" / "recommender" / "items.parquet").write_bytes(b"damaged")
    refused(tesserec("recommend", tmp_path / "run", "--history", "x"), "damaged", "again")


TIGER = ("--set", "training.max_steps=1", "--set", "tokenizer.codebook_size=2", "--set", "tokenizer.n_levels=1",
         "--set", "recommender.n_layers=1", "--set", "recommender.beam_width=2")  # fmt: skip


def raw_shop(folder: Path, items: list[dict[str, str]], n_events: int = 4) -> Path:
    """A folder with a log in which every user takes `n_events` items, and a table of items."""
    folder.mkdir()
    ids = [item["item_id"] for item in items]
    rows = [f"u{user},{ids[(user + place) % len(ids)]},{place}" for user in range(8) for place in range(n_events)]
    (folder / "interactions.csv").write_text("\n".join(["user_id,item_id,position", *rows, ""]))
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


def test_results_never_replace_an_artefact_of_another_kind_or_a_file(data, popularity, tmp_path):
    kept = tmp_path / "data"
    shutil.copytree(data, kept)
    refused(tesserec("evaluate", popularity, "--out", kept), "kind 'dataset'", "Choose another folder")
    assert len(Dataset.load(kept).catalogue) == 50
    taken = tmp_path / "notes.txt"
    taken.write_text("mine")
    refused(tesserec("evaluate", popularity, "--out", taken), "notes.txt is a file")
    refused(tesserec("run", "popularity", "--data", data, "--out", taken), "notes.txt")
    assert taken.read_text() == "mine"


def test_an_artefact_whose_manifest_is_damaged_can_be_built_again(popularity, tmp_path):
    report = tmp_path / "report"
    assert tesserec("evaluate", popularity, "--out", report).exit_code == 0
    (report / "manifest.json").write_text("{")
    assert tesserec("evaluate", popularity, "--out", report).exit_code == 0
    assert json.loads((report / "manifest.json").read_text())["kind"] == "report"


def test_titles_come_from_the_data_set_of_the_run_alone(popularity, tmp_path):
    other = tmp_path / "other"
    synthetic_catalogue(SyntheticConfig(n_users=60, n_items=60)).save(other)
    refused(tesserec("recommend", popularity, "--history", "i00001", "--data", other), "other items than the run")


def test_an_empty_file_of_an_artefact_is_refused_with_the_way_out(data, popularity, tmp_path):
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    (broken / "values.npy").write_bytes(b"")
    refused(tesserec("recommend", popularity, "--history", "i00001", "--data", broken), "damaged")


def test_a_recommender_with_a_changed_byte_is_refused(data, tmp_path):
    assert tesserec("run", "item-graph", "--data", data, "--out", tmp_path / "run").exit_code == 0
    weights = tmp_path / "run" / "recommender" / "features_indptr.npy"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 0xFF
    weights.write_bytes(content)
    refused(tesserec("recommend", tmp_path / "run", "--history", "i00001"), "is damaged", "again with `tesserec run`")


@pytest.mark.parametrize("setting", ["training.seed=-1", "training.learning_rate=nan"])
def test_numbers_that_no_training_can_use_are_refused(data, tmp_path, setting):
    refused(tesserec("run", "sasrec", "--data", data, "--out", tmp_path / "run", "--set", setting), setting[9:13])


def test_a_catalogue_larger_than_the_codes_can_name_is_refused(data, tmp_path):
    run = ("run", "tiger", "--data", data, "--out", tmp_path / "run", *TIGER)
    refused(tesserec(*run, "--set", "tokenizer.extra_level_size=3"), "extra_level_size")


def test_items_without_text_are_counted_and_a_catalogue_without_any_is_refused(tmp_path):
    items = [{"item_id": f"i{number}", "title": f"a {word} pen"} for number, word in enumerate(("red", "blue", "old"))]
    some = raw_shop(tmp_path / "some", [*items, {"item_id": "i3", "title": ""}])
    none = raw_shop(tmp_path / "none", [{"item_id": item["item_id"], "title": ""} for item in items])
    for source in (some, none):
        assert tesserec("prepare", source, "--out", source / "data").exit_code == 0
    run = ("run", "tiger", "--out", tmp_path / "run", *TIGER, "--data")
    assert "1 of 4 items have no text" in tesserec(*run, some / "data").stderr
    refused(tesserec(*run, none / "data"), "text")


def test_what_a_terminal_cannot_show_is_escaped(tmp_path):
    names = ("ペン", "café", "–")
    source = raw_shop(tmp_path / "raw", [{"item_id": name, "title": f"{name} é"} for name in names])
    assert tesserec("prepare", source, "--out", tmp_path / "data").exit_code == 0
    assert tesserec("run", "popularity", "--data", tmp_path / "data", "--out", tmp_path / "run").exit_code == 0
    for encoding in ("latin-1", "ascii"):
        for command in (
            ["recommend", tmp_path / "run", "--history", "ペン,nope"],
            ["recipes", "tiger"],
            ["recipes", "ペン"],
        ):
            done = subprocess.run(
                [sys.executable, "-m", "tesserec", *map(str, command)],
                capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, check=False,
            )  # fmt: skip
            assert b"Traceback" not in done.stderr
            assert done.returncode == (2 if command[1] == "ペン" else 0)


def test_a_folder_of_another_kind_than_data_is_answered_with_what_is_wanted(data, popularity, tmp_path):
    source = raw_shop(tmp_path / "raw", [{"item_id": f"i{number}", "title": "a pen"} for number in range(3)])
    for folder in (source, popularity):
        run = ("run", "popularity", "--data", folder, "--out", tmp_path / "run")
        refused(tesserec(*run), "kind 'dataset'", "make one with `tesserec prepare`")
        refused(tesserec("recommend", popularity, "--history", "i0", "--data", folder), "`tesserec prepare`")
    refused(tesserec("recommend", popularity, "--history", "i0", "--data", tmp_path / "none"), "no data set", "--data")
    refused(tesserec("run", "popularity", "--data", tmp_path / "none", "--out", tmp_path / "run"), "There is no folder")


def test_a_report_that_cannot_be_written_is_refused_before_ranking(popularity, tmp_path, monkeypatch):
    monkeypatch.setattr("tesserec.evaluation.evaluate", lambda *_, **__: 1 / 0)
    (tmp_path / "taken").write_text("mine")
    for out in (tmp_path / "taken", tmp_path / "taken" / "report"):
        refused(tesserec("evaluate", popularity, "--out", out), "taken is ")


def test_users_with_fewer_than_three_events_are_counted_and_refused_where_there_are_no_others(tmp_path):
    source = raw_shop(
        tmp_path / "raw", [{"item_id": f"i{number}", "title": "a pen"} for number in range(3)], n_events=2
    )
    prepared = json.loads(tesserec("prepare", source, "--out", source / "data", "--json").stdout)
    assert prepared["report"]["users_with_fewer_than_3_events"] == 8
    run = ("run", "popularity", "--data", source / "data", "--out", tmp_path / "run")
    refused(tesserec(*run), "None of the 8 users has 3 events", "Give a longer log", "split by time")


def test_inspect_reads_runs_artefacts_and_files_of_other_projects(data, tmp_path):
    item_ids = Dataset.load(data).catalogue.item_ids
    codes = np.arange(len(item_ids))[:, None] // np.array([8, 1]) % 8
    np.save(tmp_path / "codes.npy", codes)
    index = {item: [f"<a_{first}>", f"<b_{second}>"] for item, (first, second) in zip(item_ids, codes.tolist())}
    (tmp_path / "index.json").write_text(json.dumps(index))
    settings = ("--set", "tokenizer=file", "--set", f"tokenizer.path={tmp_path / 'index.json'}", *TIGER[:2], *TIGER[6:])
    assert tesserec("run", "tiger", "--data", data, "--out", tmp_path / "run", *settings).exit_code == 0
    sheets = [
        json.loads(tesserec("inspect", source, "--json", *options).stdout)
        for source, options in (
            (tmp_path / "run", ()),
            (tmp_path / "run" / "semantic-ids", ("--data", data)),
            (tmp_path / "index.json", ("--data", data)),
            (tmp_path / "codes.npy", ("--data", data, "--plot", tmp_path / "sheet.png")),
        )
    ]
    assert all(sheet == sheets[0] for sheet in sheets)
    assert sheets[0]["collisions"]["distinct"] == len(item_ids)
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    refused(tesserec("inspect", tmp_path / "codes.npy"), "--data")
    refused(tesserec("inspect", tmp_path / "none.npy", "--data", data), "none.npy")
    (tmp_path / "index.json").write_text(json.dumps({item_ids[0]: ["<a_1>", "<b_1>"]}))
    refused(tesserec("inspect", tmp_path / "index.json", "--data", data), "no code for")


@pytest.fixture(scope="module")
def coded(data, tmp_path_factory) -> Path:
    """A folder with codes of the shop's items in two files, and two artefacts that differ in their seed alone."""
    folder = tmp_path_factory.mktemp("coded")
    catalogue = Dataset.load(data).catalogue
    for seed in (0, 1):
        codes = np.random.default_rng(seed).integers(8, size=(len(catalogue), 2))
        np.save(folder / f"codes-{seed}.npy", codes)
        config = {"method": "random", "seed": seed}
        (folder / str(seed)).mkdir()
        SemanticIds(catalogue, codes, (8, 8), config=config).save(folder / str(seed) / "semantic-ids")
    np.save(folder / "vectors.npy", np.random.default_rng(0).normal(size=(len(catalogue), 4)))
    return folder


def test_inspect_compares_any_number_of_sources(data, coded):
    files = (coded / "codes-0.npy", f"mine={coded / 'codes-1.npy'}")
    plot = coded / "comparison.png"
    sources = (*files, coded / "0" / "semantic-ids", coded / "1" / "semantic-ids")
    options = ("--data", data, "--embeddings", coded / "vectors.npy", "--plot", plot)
    found = json.loads(tesserec("inspect", *sources, *options, "--json").stdout)
    assert list(found["sheets"]) == ["codes-0.npy", "mine", "0/semantic-ids", "1/semantic-ids"]
    assert found["families"] == [["0/semantic-ids", "1/semantic-ids"]]
    assert found["sheets"]["mine"] == found["sheets"]["1/semantic-ids"]
    assert found["sheets"]["mine"]["neighbours"]["pairs"]
    assert len(found["stability"]) == 1
    assert plot.stat().st_size > 1000
    text = tesserec("inspect", *files, "--data", data, "--stability").stdout
    assert "codes-0.npy and mine" in text


def test_inspect_of_one_named_source_is_its_tear_sheet(data, coded):
    single = tesserec("inspect", f"mine={coded / 'codes-0.npy'}", "--data", data).stdout
    assert single == tesserec("inspect", coded / "codes-0.npy", "--data", data).stdout
    assert single.startswith("50 items\nlevel")


def test_a_run_lends_its_data_set_to_files_that_are_compared_with_it(data, coded, popularity, tmp_path):
    settings = ("--set", "tokenizer=file", "--set", f"tokenizer.path={coded / 'codes-0.npy'}", *TIGER[:2], *TIGER[6:])
    assert tesserec("run", "tiger", "--data", data, "--out", tmp_path / "run", *settings).exit_code == 0
    found = json.loads(tesserec("inspect", coded / "codes-0.npy", tmp_path / "run", "--json").stdout)["sheets"]
    assert found["run"] == found["codes-0.npy"]
    refused(tesserec("inspect", popularity, tmp_path / "run"), "has no semantic-ids")


def test_inspect_refuses_sources_that_do_not_belong_together_and_names_them(data, coded, tmp_path):
    other = tmp_path / "other"
    synthetic_catalogue(SyntheticConfig(n_users=60, n_items=60)).save(other)
    runs = {}
    for name, folder in (("here", data), ("there", other)):
        n_items = len(Dataset.load(folder).catalogue)
        np.save(tmp_path / f"{name}.npy", np.arange(n_items)[:, None] % 8)
        settings = (
            "--set",
            "tokenizer=file",
            "--set",
            f"tokenizer.path={tmp_path / f'{name}.npy'}",
            *TIGER[:2],
            *TIGER[6:],
        )
        runs[name] = tmp_path / name
        assert tesserec("run", "tiger", "--data", folder, "--out", runs[name], *settings).exit_code == 0
    refused(tesserec("inspect", *runs.values()), "The data set of here", "that of there", "do not belong together")
    artefact = coded / "0" / "semantic-ids"
    refused(tesserec("inspect", runs["there"], artefact), "there and semantic-ids are of different catalogues")
    refused(tesserec("inspect", runs["there"] / "semantic-ids", f"a={artefact}"), "semantic-ids and a are of different")
    refused(tesserec("inspect", tmp_path / "there.npy", artefact, "--data", data), "there.npy has 60 rows for 50 items")
    shutil.copytree(runs["here"], tmp_path / "later")
    about = json.loads((tmp_path / "later" / "run.json").read_text())
    about["recipe"]["split"] = {"method": "by-time", "validation_from": 1, "test_from": 2}
    (tmp_path / "later" / "run.json").write_text(json.dumps(about))
    refused(tesserec("inspect", runs["here"], tmp_path / "later"), "here and later split their data differently")


def test_inspect_refuses_sources_and_pictures_that_are_unusable(data, coded, tmp_path):
    codes, of_data = coded / "codes-0.npy", ("--data", data)
    refused(tesserec("inspect", codes, f"a={coded / 'codes-1.npy'}"), "codes-0.npy holds codes but no items", "--data")
    refused(
        tesserec("inspect", codes, f"a={tmp_path / 'none.npy'}", *of_data), "There is no file or folder", "none.npy"
    )
    refused(tesserec("inspect", f"a={codes}", f"a={coded / 'codes-1.npy'}", *of_data), "Two sources are called 'a'")
    refused(tesserec("inspect", codes, codes, *of_data), "Two sources are called")
    (tmp_path / "codes.csv").write_text("1,2")
    refused(tesserec("inspect", codes, tmp_path / "codes.csv", *of_data), "codes.csv", ".npy, not .csv")
    refused(tesserec("inspect", codes, coded, *of_data), "manifest.json")
    refused(tesserec("inspect", codes, data, *of_data), "'dataset'", "'semantic-ids'")
    refused(tesserec("inspect", codes, *of_data, "--embeddings", tmp_path / "none.npy"), "none.npy", "embeddings")
    (tmp_path / "empty.npy").write_bytes(b"")
    refused(tesserec("inspect", codes, *of_data, "--embeddings", tmp_path / "empty.npy"), "cannot be read as an array")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    refused(tesserec("inspect", tmp_path / "deep.json", *of_data), "nested too deeply")
    (tmp_path / "deep.json").write_text('{"a": 3}')
    refused(tesserec("inspect", tmp_path / "deep.json", *of_data), "the first item has 3")
    refused(tesserec("inspect", codes, *of_data, "--plot", tmp_path / "sheet.tabloid"), "ends in .png")
    refused(tesserec("inspect", codes, *of_data, "--plot", tmp_path / "none" / "sheet.png"), "cannot be written")


def test_ranking_options_of_generative_models_are_refused_for_others(popularity):
    refused(tesserec("evaluate", popularity, "--exact"), "always exact")


def test_a_log_file_hears_of_long_work_now_and_then(monkeypatch, capsys):
    from tesserec.cli import output

    clock = iter([0.0, 1.0, 31.0, 31.0, 40.0])
    monkeypatch.setattr(output.time, "monotonic", lambda: next(clock))
    with output.TerminalProgress().task("training", 300) as task:
        for loss in ("5", "4", "3"):
            task.advance(100, note=f"loss {loss}")
    assert capsys.readouterr().err == "training: 200 of 300, loss 4\n"
