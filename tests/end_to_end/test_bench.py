"""A small suite by the command line: what it writes, killed in between, failing, searched, merged; and its page."""

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from killed_processes import until_it_trains
from tesserec.bench import load_suite, plan
from tesserec.bench.bench import collect
from tesserec.bench.markdown import decimal
from tesserec.bench.page import page as page_of
from tesserec.cli.main import app
from tesserec.data import Dataset
from tesserec.environment import usable_cores
from tesserec.tokenizers.semantic_ids import SemanticIds

REPOSITORY = Path(__file__).parent.parent.parent

SUITE = """
summary = "Two methods on a small shop & more"
budget = "next to none"
seeds = [0, 1]
metrics = ["ndcg@10"]
reference = "popularity"

[protocol]
cutoffs = [5, 10]

[data.shop.synthetic]
n_users = 120
n_items = 60

[methods.popularity]
recipe = "popularity"
published.shop = { "ndcg@10" = 0.25, source = "nobody" }

[methods."SASRec, <small>"]
recipe = "sasrec"
note = "one layer"
settings = [
    "recommender.width=16", "recommender.n_layers=1", "recommender.n_heads=1", "training.epochs=EPOCHS",
    "training.batch_size=16", "training.precision=fp32", "training.checkpoint_seconds=0", "training.patience=100",
    "training.device=cpu",
]

[methods."only published"]
published.shop = { "ndcg@10" = 0.31, source = "a paper", differs = "another protocol" }
"""


def bench(*arguments: object, code: int = 0) -> tuple[dict[str, Any], str]:
    """What the command prints as JSON, and what it says on stderr."""
    result = CliRunner().invoke(app, ["bench", *map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout) if result.stdout else {}, result.stderr


def command(*arguments: object) -> str:
    """What another command prints."""
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def write_suite(folder: Path, *, epochs: int = 3, more: str = "") -> Path:
    path = folder / "small.toml"
    path.write_text(SUITE.replace("EPOCHS", str(epochs)) + more)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a suite that ran through."""
    folder = tmp_path_factory.mktemp("suite")
    bench(write_suite(folder), "--out", folder / "out")
    return folder / "out"


def results_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def lasting(results: dict[str, Any]) -> dict[str, Any]:
    """All that does not depend on the moment, or on where the folder lies."""
    return {key: value for key, value in results.items() if key not in ("costs", "made", "command")}


def test_a_suite_writes_numbers_for_machines_and_people(finished):
    results = results_of(finished)
    table = results["tables"]["shop"]
    assert list(table["methods"]) == ["popularity", "SASRec, <small>"]
    assert table["methods"]["SASRec, <small>"]["seeds"] == [0, 1]
    assert table["protocol"]["cutoffs"] == [5, 10]
    assert results["failures"] == results["missing"] == []
    for run in results["runs"]:
        assert (finished / run["per_user"]).is_file()
    seeds = [run["metrics"]["ndcg@10"] for run in results["runs"] if run["seed"] is not None]
    assert table["methods"]["SASRec, <small>"]["metrics"]["ndcg@10"]["mean"] == pytest.approx(sum(seeds) / 2)
    text = (finished / "results.md").read_text()
    ours = decimal(table["methods"]["popularity"]["metrics"]["ndcg@10"]["mean"])
    assert re.search(rf"\| popularity \| {ours} \| 0\.2500 \(-\d+\.\d%\) \| 0 \| - \| - \| 1 \|", text)
    assert "| only published | - | 0.3100 | - | - | - | - |" in text
    assert re.search(r"\| SASRec, <small> \| 0\.\d{4} ± 0\.\d{4} \| - \| [\d,]+ \| [\d.]+ \| [\d.]+ \| 2 \|", text)
    elsewhere = "published figures of only published: a paper; protocol differs: another protocol"
    for fact in ("next to none", table["protocol"]["dataset"], elsewhere, f"torch {torch.__version__}"):
        assert fact in text
    assert "made elsewhere" not in text


def test_a_second_call_repeats_nothing(finished):
    plan, _ = bench(finished.parent / "small.toml", "--out", finished, "--plan")
    assert [run["state"] for run in plan["runs"]] == ["finished"] * 3
    before = {path: path.stat().st_mtime_ns for path in finished.glob("runs/**/weights.safetensors")}
    again, said = bench(finished.parent / "small.toml", "--out", finished, "--seeds", "1")
    assert lasting(again) == lasting(results_of(finished))
    assert "recommender: cached" in said
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert len(before) == 2


def test_the_command_repeats_all_that_the_results_hold(tmp_path):
    path = write_suite(tmp_path, epochs=1)
    first, _ = bench(path, "--out", tmp_path / "out", "--only", "popularity")
    assert "--only=popularity" in first["command"]
    then, _ = bench(path, "--out", tmp_path / "out", "--only", "SASRec", "--seeds", "1")
    assert len(then["runs"]) == 2
    assert "--only" not in then["command"]
    assert "--seeds" not in then["command"]


def test_made_up_data_of_other_settings_is_made_again(tmp_path):
    path = write_suite(tmp_path)
    bench(path, "--out", tmp_path / "out", "--only", "popularity")
    path.write_text(path.read_text().replace("n_users = 120", "n_users = 90"))
    results, _ = bench(path, "--out", tmp_path / "out", "--only", "popularity")
    assert results["tables"]["shop"]["protocol"]["dataset_sizes"]["users"] == 90
    assert results["tables"]["shop"]["protocol"]["cases"] == 90


def test_a_search_that_finds_another_methods_settings_leaves_the_table_whole(tmp_path):
    pytest.importorskip("optuna")
    alike = '[methods.tuned]\nlike = "SASRec, <small>"\nsearch.training.epochs = [1]\n[tuning]\ntrials = 1\n'
    results, _ = bench(write_suite(tmp_path, epochs=1, more=alike), "--out", tmp_path / "out")
    methods = results["tables"]["shop"]["methods"]
    assert methods["tuned"]["metrics"] == methods["SASRec, <small>"]["metrics"]


def test_codes_are_judged_and_followed_as_the_protocol_ranks_them(tmp_path):
    """Compared at a cut-off that the card does not have, with seen items masked."""
    settings = ("tokenizer=random", "tokenizer.codebook_size=8", "recommender.width=16", "recommender.n_layers=1",
                "recommender.n_heads=1", "recommender.head_width=16", "recommender.ff_width=16", "training.max_steps=3",
                "training.precision=fp32", "training.device=cpu", "evaluation.beam_width=7")  # fmt: skip
    text = (
        'metrics = ["ndcg@15"]\n[protocol]\ncutoffs = [5]\nexclude_seen = true\n'
        "[data.shop.synthetic]\nn_users = 60\nn_items = 60\n"
        f'[methods.TIGER]\nrecipe = "tiger"\nsettings = {list(settings)}\n'
    )
    (tmp_path / "codes.toml").write_text(text)
    results, _ = bench(tmp_path / "codes.toml", "--out", tmp_path / "out")
    missed = results["missed"]["shop"]["TIGER"]
    assert missed["card"]["exclude_seen"] is True
    assert missed["not_candidates"] > 0
    assert missed["beam_width"] == 7
    assert "ndcg@15" in results["tables"]["shop"]["methods"]["TIGER"]["metrics"]
    assert any("a beam of 7 ends there" in note for note in results["tables"]["shop"]["notes"])
    (tmp_path / "codes.toml").write_text("missed_users = 0\n" + text)
    assert bench(tmp_path / "codes.toml", "--out", tmp_path / "out")[0]["missed"] == {"shop": {}}
    other = text.replace("training.max_steps=3", "training.max_steps=4")
    (tmp_path / "codes.toml").write_text("missed_users = 0\n" + other)
    bench(tmp_path / "codes.toml", "--out", tmp_path / "out")
    (tmp_path / "codes.toml").write_text(other)  # the model is another, and nobody has followed its beams
    planned = plan(load_suite(str(tmp_path / "codes.toml")), tmp_path / "out")
    assert collect(planned).to_dict()["missed"] == {"shop": {}}


def test_a_suite_killed_while_it_trains_and_at_any_moment_ends_with_the_same_results(tmp_path, finished):
    path = write_suite(tmp_path)
    arguments = ["bench", str(path), "--out", str(tmp_path / "out")]
    with started(arguments) as process:
        until_it_trains(process, tmp_path / "out" / "stages" / "checkpoints")
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out" / "results.json").exists()
    moment = random.SystemRandom().uniform(2, 8)  # seconds: from before the first run to after the last one
    with started(arguments) as process:
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
    again, _ = bench(path, "--out", tmp_path / "out")
    assert lasting(again) == lasting(results_of(finished)), f"killed after {moment:.2f} s"


@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_an_interrupt_ends_the_suite_at_once_and_no_run_failed(send, tmp_path):
    """Ctrl-C of a terminal reaches every process of a group; a notebook's, or `kill -INT`, the suite's alone."""
    path = write_suite(tmp_path, epochs=100_000)
    with started(["bench", str(path), "--out", str(tmp_path / "out")], stderr=subprocess.PIPE) as process:
        until_it_trains(process, tmp_path / "out" / "stages" / "checkpoints")
        send(process.pid, signal.SIGINT)
        said = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 130
    assert "SASRec, <small> on shop, seed 0: interrupted" in said
    assert "the same command, started again, goes on" in said
    assert not [*tmp_path.glob("out/results.json"), *tmp_path.glob("out/runs/**/failure.json")]


def started(arguments: list[str], *, stderr: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
    """The command as a process of its own, whose workers have as many threads as those of `bench`."""
    return subprocess.Popen(
        [sys.executable, "-m", "tesserec", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        start_new_session=True,
    )


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be given to a process here")
def test_workers_share_the_cores_that_were_given_not_all_of_the_machine(tmp_path, finished, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    given = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(given)})
    try:
        _, said = bench(finished.parent / "small.toml", "--out", tmp_path / "out", "--workers", "2", code=2)
        assert "Use 1 to 1, the cores that this process may use" in " ".join(said.split())
        results, _ = bench(write_suite(tmp_path, epochs=1), "--out", tmp_path / "out", "--seeds", "0")
    finally:
        os.sched_setaffinity(0, given)
    (run,) = (run for run in results["runs"] if run["seed"] == 0)
    card = json.loads((tmp_path / "out" / run["folder"] / "report" / "report.json").read_text())["card"]
    assert card["made"]["hardware"]["threads"] == 1


def test_a_run_that_went_wrong_after_its_report_is_in_the_table_and_named(tmp_path, finished):
    out = shutil.copytree(finished, tmp_path / "out")
    note = {"run": "SASRec", "error": "The disk is full.", "trace": None}
    (out / "runs" / "shop" / "sasrec-small" / "1" / "failure.json").write_text(json.dumps(note))
    results, _ = bench(finished.parent / "small.toml", "--out", out, "--only", "popularity", code=1)
    assert [failure["error"] for failure in results["failures"]] == ["The disk is full."]
    assert results["tables"] == results_of(finished)["tables"]


def test_a_failing_run_is_reported_and_a_search_gives_all_seeds_its_settings(tmp_path):
    """In one suite, by two workers where there are two cores."""
    pytest.importorskip("optuna")
    path = write_suite(tmp_path, epochs=1, more=SEARCHED_AND_FAILING)
    workers = min(2, usable_cores())
    results, said = bench(path, "--out", tmp_path / "out", "--workers", workers, code=1)
    assert [failure["label"] for failure in results["failures"]] == ["too much on shop, seed 7"]
    assert "The loss became" in results["failures"][0]["error"]
    assert "The loss became" in said
    assert len(results["runs"]) == 3
    assert "too much on shop, seed 7" in (tmp_path / "out" / "report.html").read_text()

    (search,) = results["searches"]
    assert len(search["trials"]) == 2
    assert search["best"] == max(search["trials"], key=lambda trial: trial["value"])
    rates = {run["model"]["config"]["training"]["learning_rate"] for run in results["runs"] if run["seed"] is not None}
    assert rates == {float(search["best"]["settings"][0].partition("=")[2])}
    cards = [json.loads(path.read_text())["card"] for path in tmp_path.glob("out/trials/**/report.json")]
    assert [card["protocol"]["part"] for card in cards] == ["validation"] * 2

    (tmp_path / "out" / "trials" / "shop" / "sasrec-small" / "study.json").unlink()  # as if killed before its end
    again, said = bench(path, "--out", tmp_path / "out", "--only", "SASRec", code=1)
    assert lasting(again) == lasting(results)
    assert "trial 1: recommender: cached" in said
    assert "recommender: done" not in said


def test_a_run_merged_under_the_name_and_seed_of_one_of_the_suite_stands_for_it(tmp_path, finished):
    path, made = write_suite(tmp_path), finished / "runs" / "shop" / "sasrec-small" / "1"
    results, _ = bench(path, "--out", tmp_path / "out", "--only", "popularity", "--merge", f"SASRec, <small>={made}")
    assert results["missing"] == ["SASRec, <small> on shop, seed 0"]
    assert results["tables"]["shop"]["methods"]["SASRec, <small>"]["seeds"] == [1]
    assert "- made elsewhere and merged: SASRec, <small> on shop, seed 1\n" in (tmp_path / "out/results.md").read_text()
    again, said = bench(path, "--out", tmp_path / "out", "--seeds", "1")  # nor is it made where it is chosen
    assert "SASRec, <small> on shop, seed 1" not in said
    assert again["missing"] == results["missing"]
    plan = json.loads(command("bench", path, "--out", tmp_path / "out", "--plan", "--json"))
    assert [(run["method"], run["seed"], run["state"]) for run in plan["runs"]][1:] == [
        ("SASRec, <small>", 0, "to do"), ("SASRec, <small>", 1, "merged")
    ]  # fmt: skip
    again, _ = bench(path, "--out", tmp_path / "out", "--only", "popularity")
    assert again["command"] == results["command"]  # what was merged before is needed to repeat it
    assert f"--merge=SASRec, <small>={made}" in shlex.split(again["command"])

    bare = results_of(tmp_path / "out")
    bare["costs"]["shop"]["SASRec, <small>"]["training_seconds"] = None
    assert "so not drawn: SASRec, &lt;small&gt;." in page_of(bare)
    assert "so not drawn" not in page_of(results)


def test_what_follows_another_protocol_is_refused_before_anything_is_run_or_copied(tmp_path, finished):
    path, made = write_suite(tmp_path), finished / "runs" / "shop" / "sasrec-small" / "1"
    command("evaluate", made, "--exclude-seen", "--out", tmp_path / "masked")
    _, said = bench(path, "--out", tmp_path / "none", "--merge", f"M={tmp_path}", code=2)
    assert "no finished artefact of kind 'report'" in " ".join(said.split())
    assert not (tmp_path / "none").exists()  # nor is any data made for it
    merge = f"M={tmp_path / 'masked'}"
    _, said = bench(path, "--out", tmp_path / "out", "--merge", merge, code=2)
    assert "follow different protocols (candidates: " in " ".join(said.split())
    assert not list((tmp_path / "out").glob("runs/*/*/*")) + list((tmp_path / "out").glob("merged/*"))
    out = shutil.copytree(finished, tmp_path / "finished")
    for arguments in (("--plan",), ()):  # where the data is made, a plan knows it, too
        _, said = bench(path, "--out", out, "--merge", merge, *arguments, code=2)
        assert "follow different protocols" in " ".join(said.split())
    _, said = bench(path, "--out", out, "--plan", "--workers", "1000", code=2)
    assert "the cores that this process may use" in " ".join(said.split())
    bench(path, "--out", out, "--only", "popularity")  # nothing was spoilt

    kept = out / "merged" / "m" / "1"
    shutil.copytree(tmp_path / "masked", kept / "report")
    (kept / "merged.json").write_text('{"method": "M", "from": "elsewhere"}')
    _, said = bench(path, "--out", out, "--only", "popularity", code=2)
    assert f"remove {kept} to go on without it".replace(" ", "") in "".join(said.split())


def test_seeds_ascend_wherever_their_runs_were_made(tmp_path, finished):
    path, seeds = write_suite(tmp_path), finished / "runs" / "shop" / "sasrec-small"
    shutil.copytree(seeds / "1", tmp_path / "out" / "runs" / "shop" / "sasrec-small" / "1")
    merge = ("--merge", f"SASRec, <small>={seeds / '0'}")
    results, _ = bench(path, "--out", tmp_path / "out", "--only", "popularity", *merge)
    assert results["tables"]["shop"]["methods"]["SASRec, <small>"]["seeds"] == [0, 1]
    assert [run["seed"] for run in results["runs"]] == [None, 0, 1]
    assert [run["merged"] for run in results["runs"]] == [False, True, False]
    assert [curve["seed"] for curve in results["curves"]["shop"]["SASRec, <small>"]] == [0, 1]


def test_a_merge_of_another_method_or_of_other_settings_is_refused_before_anything_is_run(tmp_path, finished):
    path, runs = write_suite(tmp_path, epochs=1), finished / "runs" / "shop"
    out = tmp_path / "out"
    bench(path, "--out", out, "--only", "popularity")
    for name, made, words in (
        ("SASRec, <small>", runs / "sasrec-small" / "1", "training.epochs: 3 and 1"),
        ("SASRec, <small>", runs / "popularity" / "0", "method: popularity and sasrec"),
        ("x", out / "runs" / "shop" / "popularity" / "0", "given twice"),
    ):
        for arguments in (("--plan",), ()):
            _, said = bench(path, "--out", out, "--merge", f"{name}={made}", *arguments, code=2)
            assert words in " ".join(said.split())
            assert not (out / "merged").exists()
    bench(path, "--out", out, "--only", "popularity", "--merge", f"elsewhere={runs / 'sasrec-small' / '1'}")


def test_what_is_damaged_costs_no_results_and_what_is_stale_is_not_shown(tmp_path, finished):
    path, out = write_suite(tmp_path), shutil.copytree(finished, tmp_path / "out")
    whole = results_of(finished)
    run = out / "runs" / "shop" / "sasrec-small" / "0"
    log = run / "recommender" / "training_log.json"
    text = log.read_text()
    log.unlink()
    log.write_text(text[:40])
    (run / "failure.json").write_text("{")
    results, said = bench(path, "--out", out, "--only", "popularity", code=1)
    assert "Traceback" not in said
    assert results["tables"] == whole["tables"]
    assert "is damaged" in results["failures"][0]["error"]
    results, _ = bench(path, "--out", out)  # made good
    assert lasting(results) == lasting(whole)

    shutil.rmtree(run)
    run.mkdir()
    (run / ".run.json.partial").write_text("{")  # killed while a run was begun
    assert lasting(bench(path, "--out", out)[0]) == lasting(whole)


def test_files_of_the_users_folder_are_not_taken_for_modules_of_workers(tmp_path, monkeypatch):
    (tmp_path / "secrets.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    results, _ = bench(write_suite(tmp_path), "--out", tmp_path / "out", "--only", "popularity")
    assert results["failures"] == []


def test_a_merge_that_was_interrupted_is_made_good(tmp_path, finished):
    path, made = write_suite(tmp_path), finished / "runs" / "shop" / "sasrec-small" / "1"
    merge = ("--out", tmp_path / "out", "--only", "popularity", "--merge", f"SASRec, <small>={made}")
    whole, _ = bench(path, *merge)
    (place,) = (tmp_path / "out" / "merged" / "sasrec-small").iterdir()
    shutil.rmtree(place)
    place.mkdir()
    assert lasting(bench(path, *merge)[0]) == lasting(whole)


SEARCHED_AND_FAILING = """
[methods."SASRec, <small>".search.training]
learning_rate = { low = 1e-5, high = 1e-2, log = true }

[methods."too much"]
recipe = "sasrec"
seeds = [7]
settings = ["recommender.width=16", "training.epochs=1", "training.learning_rate=1e30", "training.precision=fp32"]

[tuning]
trials = 2
"""

ONLY_TORCH = """
import importlib.machinery, runpy, sys
ABSENT = {"faiss", "polars", "pydantic", "typer", "rich", "sklearn", "scipy", "matplotlib", "pandas", "optuna"}
find = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, *more: None if name.partition(".")[0] in ABSENT else find(name, *more)
)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_gpu_script_needs_torch_alone_and_its_run_stands_in_the_table(tmp_path, finished):
    data = finished / "data" / "shop"
    catalogue = Dataset.load(data).catalogue
    codes = np.random.default_rng(0).integers(0, 8, (len(catalogue), 3))
    SemanticIds(catalogue, codes, (8, 8, 8)).save(tmp_path / "ids")
    small = ("recommender.width=16", "recommender.n_layers=1", "recommender.n_heads=1", "recommender.head_width=16",
             "recommender.ff_width=16", "recommender.beam_width=4", "training.warmup_steps=1", "training.batch_size=4",
             "training.validation_users=20", "training.precision=fp32", "training.device=cpu",
             "evaluation.cutoffs=5,10")  # fmt: skip
    script = REPOSITORY / "benchmarks" / "gpu_papers.py"
    arguments = [script, "tiger-paper", "--data", data, "--ids", tmp_path / "ids", "--out", tmp_path / "gpu",
                 "--seconds", "5", "--reserve", "1", *(f"--set={setting}" for setting in small)]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", ONLY_TORCH, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (epochs,) = re.findall(r"ms a step, \d+ steps an epoch, (\d+) epochs in", done.stderr)
    (again,) = re.findall(r"further seeds: (.*)", done.stderr)
    assert f"--epochs {epochs} " in again
    seed = [*arguments[:7], tmp_path / "gpu 1", *arguments[8:], *again.split()]
    assert arguments[7] == tmp_path / "gpu"
    subprocess.run([sys.executable, *map(str, seed)], capture_output=True, check=True)

    suite, out = finished.parent / "small.toml", shutil.copytree(finished, tmp_path / "out")
    merge = ("--out", out, "--only", "popularity", "--merge", f"TIGER, GPU={tmp_path / 'gpu'}")
    results, _ = bench(suite, *merge)
    table = results["tables"]["shop"]["methods"]
    assert list(table) == ["popularity", "SASRec, <small>", "TIGER, GPU"]
    report = json.loads((tmp_path / "gpu" / "report" / "report.json").read_text())
    assert table["TIGER, GPU"]["metrics"]["ndcg@10"]["mean"] == pytest.approx(report["metrics"]["ndcg@10"])
    assert results["curves"]["shop"]["TIGER, GPU"]
    assert [level["size"] for level in results["codes"]["shop"]["TIGER, GPU"]] == [8, 8, 8]
    assert lasting(bench(suite, *merge)[0]) == lasting(results)
    results, _ = bench(suite, "--out", out, "--only", "popularity", "--merge", f"TIGER, GPU={tmp_path / 'gpu 1'}")
    assert results["tables"]["shop"]["methods"]["TIGER, GPU"]["seeds"] == [0, 1]

    twice = f"again={finished / 'runs' / 'shop' / 'sasrec-small' / '1'}"
    _, said = bench(suite, "--out", out, "--only", "popularity", "--merge", twice, code=2)
    assert "One report was given twice" in said
    assert not (out / "merged" / "again").exists()


# -- the page --------------------------------------------------------------------------------------------------------


class Tables(HTMLParser):
    """The text of every table of a page, row by row, and whether the page needs anything else."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables = list[list[list[str]]]()
        self.elsewhere = list[str]()
        self._open = list[str]()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elsewhere += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data


def test_the_page_holds_the_numbers_of_the_results_and_needs_no_other_file(finished):
    text = (finished / "report.html").read_text()
    page, results = Tables(text), results_of(finished)
    assert page.elsewhere == []
    assert "http" not in re.sub(r"<title>.*?</title>", "", text)
    main = {row[0]: row for row in page.tables[0]}
    for name, method in results["tables"]["shop"]["methods"].items():
        assert decimal(method["metrics"]["ndcg@10"]["mean"]) in main[name][2]
        assert decimal(method["intervals"]["ndcg@10"]["low"]) in main[name][2]
    assert main["only published"][-1] == "0.3100"
    assert main["popularity"][-1].startswith("0.2500")
    runs = [row for table in page.tables if table[0][:2] == ["method ", "seed "] or table[0][:2] == ["method", "seed"]
            for row in table[1:]]  # fmt: skip
    assert [row[2] for row in runs] == [decimal(run["metrics"]["ndcg@10"]) for run in results["runs"]]
    assert results["command"] in text.replace("&lt;", "<").replace("&#x27;", "'")
    assert "Two methods on a small shop &amp; more" in text


def chromium() -> str:
    """Chromium's command; skips, saying so, where none is installed."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


def shown(page: Path, script: str) -> str:
    """The document as the browser has it after the script has run."""
    copy = page.with_name("with-script.html")
    copy.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", copy.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_in_a_browser_a_click_sorts_and_the_numbers_are_there(tmp_path, finished):
    page = Path(shutil.copy(finished / "report.html", tmp_path))
    before = [row[0] for row in Tables(page.read_text()).tables[0]]
    clicked = shown(page, "document.querySelectorAll('table.sorts')[0].querySelectorAll('button')[2].click()")
    main = Tables(clicked).tables[0]
    means = {name: method["metrics"]["ndcg@10"]["mean"]
             for name, method in results_of(finished)["tables"]["shop"]["methods"].items()}  # fmt: skip
    best_first = sorted(means, key=lambda name: -means[name])
    assert [row[0] for row in main[1:]] == [*best_first, "only published"]
    assert [decimal(means[row[0]]) in row[2] for row in main[1:3]] == [True, True]
    twice = shown(page, "const b = document.querySelectorAll('table.sorts button')[2]; b.click(); b.click()")
    assert [row[0] for row in Tables(twice).tables[0][1:]] == [*reversed(best_first), "only published"]
    by_name = shown(page, "document.querySelectorAll('table.sorts button')[0].click()")
    assert [row[0] for row in Tables(by_name).tables[0][1:]] == sorted(before[1:], key=str.lower)


def test_mistakes_end_with_one_sentence_and_exit_code_2(tmp_path):
    path = write_suite(tmp_path)
    for arguments, words in (
        ([path, "--seeds", "a"], "Give whole numbers separated by commas"),
        ([path, "--merge", "name"], "is no NAME=PATH"),
        ([path, "--workers", "1000"], "the cores that this process may use"),
        ([path, "--merge", f"x={tmp_path}"], "no finished artefact"),
        (["nowhere.toml"], "There is no suite file nowhere.toml"),
        (["quik"], "Did you mean 'quick'?"),
        ([path, "--data", "shop=nowhere"], "There is no folder nowhere"),
    ):
        _, said = bench(*arguments, "--out", tmp_path / "out", code=2)
        assert words in " ".join(said.split())
        assert "Traceback" not in said
    assert not (tmp_path / "out" / "results.json").exists()


def test_the_demonstration_is_the_quick_suite_with_ids_and_lists_to_read(tmp_path, monkeypatch):
    short = ["training.max_steps=2", "training.validation_users=20"]
    monkeypatch.setattr("tesserec.bench.demo.load_suite", lambda name: load_suite(name, settings=short))
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    results = results_of(tmp_path)
    assert list(results["tables"]["shop"]["methods"]) == ["popularity", "item graph, untrained", "SASRec", "TIGER"]
    assert results["missed"]["shop"]["TIGER"]["users"] == 1000
    assert "Where beams lose the target" in (tmp_path / "results.md").read_text()
    for part in ("perplexity of first codes", "TIGER recommends", "and the user took", "report.html"):
        assert part in result.stdout
