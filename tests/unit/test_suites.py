"""Suites from text to plans: what they say, what they refuse, and which stages their runs share."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from tesserec.artifacts import read_json
from tesserec.bench import load_suite, packaged_suites, plan
from tesserec.bench.crew import FAILURE, WORKER, Crew
from tesserec.bench.drawings import around
from tesserec.bench.markdown import absent
from tesserec.bench.missed import MISSES, keep_misses, kept_shares
from tesserec.bench.page import _missed, _slices
from tesserec.bench.suite import Range, Tuning, slug
from tesserec.bench.tuning import check_space, search
from tesserec.bench.worker import Work
from tesserec.data import SyntheticConfig, synthetic_catalogue
from tesserec.errors import ArtifactError, ConfigError, MissingDependencyError
from tesserec.evaluation import Misses
from tesserec.pipeline import load_recipe, run
from tesserec.progress import SILENT

SHOP = """
[data.shop.synthetic]
n_users = 60
n_items = 50
"""
MANY_METRICS = f"metrics={[f'recall@{k}' for k in range(1, 601)]}"
BY_TIME = "settings=['split=by-time', 'split.validation_from=1', 'split.test_from=2']"


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def refused(folder: Path, text: str, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(load_suite(written(folder, text), **options), folder / "out")
    return str(caught.value)


def test_every_packaged_suite_loads_and_all_its_recipes_do(tmp_path):
    assert set(packaged_suites()) >= {"quick", "paper-scientific", "paper-beauty", "paper-yelp"}
    for name in packaged_suites():
        suite = load_suite(name, data={} if name == "quick" else {"": str(tmp_path)})
        jobs = suite.jobs(tmp_path)
        assert len({job.folder for job in jobs}) == len(jobs) > 3
        assert all(job.recipe.evaluation.cutoffs == suite.protocol.cutoffs for job in jobs)


def test_published_figures_of_a_packaged_suite_are_metrics_between_0_and_1():
    suite = load_suite("paper-scientific", data={"": "."})
    assert suite.methods["UniSRec, pre-trained"].published["scientific"].metrics["ndcg@10"] == 0.0641
    assert "UniSRec, pre-trained" in suite.left_out
    assert "--file unisrec_pretrained=PATH" in suite.left_out["UniSRec, pre-trained"]


def test_names_become_folders_that_a_file_system_takes(tmp_path):
    assert slug("VQ-Rec, the authors' codes") == "vq-rec-the-authors-codes"
    long, other = slug("ü" * 300), slug("ü" * 301)
    assert len(long.encode()) < 255
    assert long != other
    assert slug("!") != slug("?")
    assert "a method is called ''" in refused(tmp_path, f"{SHOP}\n[methods.\"\"]\nrecipe='popularity'\n")


def test_results_say_that_the_reference_is_not_there():
    results = {"suite": {"reference": "SASRec"}, "tables": {"shop": {"methods": {"a": 1, "b": 2}}},
               "failures": [], "left_out": {}, "missing": []}  # fmt: skip
    assert absent(results) == ["shop: SASRec has no finished run, so the best method is the reference in its place"]
    assert absent({**results, "tables": {"shop": {"methods": {"SASRec": 1, "b": 2}}}}) == []


def test_a_trained_method_has_all_seeds_and_an_untrained_one_a_single_one(tmp_path):
    text = f"seeds = [3, 4]\n{SHOP}\n[methods.a]\nrecipe='popularity'\n[methods.b]\nrecipe='sasrec'\n"
    jobs = load_suite(written(tmp_path, text)).jobs(tmp_path)
    assert [(job.method, job.seed) for job in jobs] == [("a", 3), ("b", 3), ("b", 4)]
    assert jobs[2].recipe.training is not None
    assert jobs[2].recipe.training.seed == 4


def test_a_method_like_another_adds_to_its_settings(tmp_path):
    text = f"""{SHOP}
    [methods.a]
    recipe = "sasrec"
    settings = ["recommender.width=32"]
    [methods.b]
    like = "a"
    settings = ["recommender.loss=bce"]
    """
    config = load_suite(written(tmp_path, text)).jobs(tmp_path)[1].recipe.recommender.config
    assert (config.width, config.loss) == (32, "bce")


def test_common_settings_go_to_the_methods_that_have_their_section(tmp_path):
    text = f"{SHOP}\n[methods.a]\nrecipe='popularity'\n[methods.b]\nrecipe='sasrec'\n"
    jobs = load_suite(written(tmp_path, text), settings=["training.max_seconds=7"]).jobs(tmp_path)
    assert jobs[0].recipe.training is None
    assert jobs[1].recipe.training is not None
    assert jobs[1].recipe.training.max_seconds == 7
    some = ["recommender.dropout=0.3", "evaluation.beam_width=7"]  # popularity has neither, SASRec no beam
    jobs = load_suite(written(tmp_path, f"{text}[methods.c]\nrecipe='tiger'\n"), settings=some).jobs(tmp_path)
    assert (jobs[1].recipe.recommender.config.dropout, jobs[2].recipe.evaluation.beam_width) == (0.3, 7)
    assert jobs[1].recipe.evaluation.beam_width is None
    with pytest.raises(ConfigError, match=r"--set recommender.dropuot=1: no method of suite .* has this setting"):
        load_suite(written(tmp_path, text), settings=["recommender.dropuot=1"]).jobs(tmp_path)


def test_values_of_a_search_may_need_those_of_another():
    def load(settings):
        values = dict(setting.split("=") for setting in settings)
        if int(values.get("a.width", 16)) % int(values.get("a.heads", 1)):
            raise ConfigError("cannot be shared")

    check_space("a", {"a.heads": (2, 3), "a.width": (24, 48)}, load)
    with pytest.raises(ConfigError, match="cannot be shared"):
        check_space("a", {"a.heads": (2, 3, 7), "a.width": (24, 48)}, load)


def test_results_that_no_suite_wrote_are_not_overwritten(tmp_path):
    (tmp_path / "results.json").write_text('{"mine": 1}')
    with pytest.raises(ArtifactError, match=r"results\.json, which no suite wrote"):
        plan(load_suite("quick"), tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[methods.a]\nrecipe='popularity'", "has no data set"),
        (SHOP, "has no method to run"),
        (f"{SHOP}[methods.a]\nrecipe='popularty'", "Did you mean 'popularity'?"),
        (f"{SHOP}[methods.a]\nrecipee='popularity'", "there is no setting 'recipee'. Did you mean 'recipe'?"),
        (f"seed = [1]\n{SHOP}[methods.a]\nrecipe='popularity'", "there is no 'seed'. Did you mean 'seeds'?"),
        (f"seeds = [1, 1]\n{SHOP}[methods.a]\nrecipe='sasrec'", "Give one seed or more, each once"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\nsettings=['training.epoch=3']", "Did you mean 'epochs'?"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\nsettings=['evaluation.part=validation']", "Set it in [protocol]"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\nsettings=['seed=3']", "Set it in seeds"),
        (f"{SHOP}[methods.a]\nrecipe='tiger'\nsettings=['tokenizer.path={{ids}}']", "{ids} is no file of the suite"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\npublished.shop={{'ndgc@10'=0.1}}", "no metric called 'ndgc'"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\npublished.shop={{'ndcg@10'=5}}", "Give a number from 0 to 1"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\npublished.sho={{'ndcg@10'=.1}}", "is not valid TOML"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\ndata=['shap']", "Did you mean 'shop'?"),
        (f"{SHOP}[methods.a]\nlike='b'\n[methods.b]\nrecipe='sasrec'", "no earlier method 'b'"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\n[methods.A]\nrecipe='sasrec'", "differ in signs and capitals only"),
        (f"reference='b'\n{SHOP}[methods.a]\nrecipe='sasrec'", "reference is 'b'"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\nsearch.training.learning_rate={{low=2,high=1}}", "is empty"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\nsearch.training.learning_rat=[1]", "Did you mean 'learning_rate'?"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\nsearch.training.dropout=3", "Give a list of values"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\nsearch.training.learning_rate={{low=1e-4}}", "Give both ends"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\nsearch.training.seed=[1,2]", "seeds are draws"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\nsearch.recommender.n_layers={{low=1.0,high=3.0}}", "whole numbers"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\nsearch.recommender.n_heads=[2,3,7]", "shared by"),
        (f"{SHOP}[methods.a]\nrecipe='hstu'\nsearch.recommender.time=['none','target']", "changes what the method is"),
        (f"{SHOP}[tuning]\nseed=-1\n[methods.a]\nrecipe='sasrec'", "tuning.seed is -1"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\nseeds=[]", "seeds is empty"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\npublished.shop={{'recall@30'=0.1}}", "Add 30 to them"),
        ("[data.shop]\npath='x'\n[data.shop.synthetic]\n[methods.a]\nrecipe='sasrec'", "path and is made up, too"),
        (f"reference='b'\n{SHOP}[methods.a]\nrecipe='sasrec'\n[methods.b]\npublished.shop={{'recall@10'=0.1}}",
         "reference is 'b', which is not run"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\nseeds=[1, 1]", "seed 1 and a on shop, seed 1 are the same run"),
        (f"{SHOP}[methods.a]\nrecipe='popularity'\n[methods.b]\nlike='a'", "are the same run"),
        (f"{SHOP}[methods.a]\nrecipe='popularity'\n[methods.b]\nnote='x'", "nothing to run and nothing to show"),
        (f"{SHOP}[methods.\"a\\nb\"]\nrecipe='popularity'", "Give it a name of letters that can be printed"),
        (f"{SHOP}[methods.a]\nrecipe='hstu'\nsettings=['recommender.time=target']\n[methods.b]\nrecipe='popularity'",
         "told more of their targets than others (a: the time of the target)"),
        (f"{MANY_METRICS}\n{SHOP}[methods.a]\nrecipe='popularity'\n[methods.b]\nrecipe='sasrec'", "never be"),
        ("[data.shop]\nusers=5\n[data.shop.synthetic]\n[methods.a]\nrecipe='popularity'", "but this is made up"),
        (f"[data.'shop!'.synthetic]\n{SHOP}[methods.a]\nrecipe='popularity'", "another data set, 'shop', differ in"),
        (f"protocol=1\n{SHOP}[methods.a]\nrecipe='sasrec'", "Write it as a table"),
        ("[data.shop]\n[methods.a]\nrecipe='sasrec'", "--data shop=PATH"),
        (f"{SHOP}[methods.a]\nrecipe='sasrec'\n[methods.b]\nlike='a'\n{BY_TIME}", "split the data differently"),
    ],
)  # fmt: skip
def test_a_wrong_suite_is_refused_before_anything_is_run(tmp_path, text, message):
    assert message in refused(tmp_path, text)
    assert not (tmp_path / "out").exists()


def test_data_of_another_size_than_the_published_cut_is_refused(tmp_path):
    synthetic_catalogue(SyntheticConfig(n_users=60, n_items=50)).save(tmp_path / "data")
    text = "[data.cut]\npath='data'\nusers=61\n[methods.a]\nrecipe='popularity'"
    assert "has 60 users, but the suite's figures for cut belong to a cut with 61" in refused(tmp_path, text)
    with pytest.raises(ArtifactError, match="There is no folder"):
        plan(load_suite(written(tmp_path, text), data={"cut": str(tmp_path / "nowhere")}), tmp_path / "out")
    with pytest.raises(ConfigError, match="Did you mean 'cut'"):
        load_suite(written(tmp_path, text), data={"cot": "x"})


def test_a_choice_of_nothing_is_refused(tmp_path):
    suite = load_suite("quick")
    with pytest.raises(ConfigError, match=r"runs no method with 'SASRek'.*Did you mean 'SASRec'"):
        plan(suite, tmp_path, only=["SASRek"])
    with pytest.raises(ConfigError, match="has the seeds 0, 1, not 7"):
        plan(suite, tmp_path, seeds=[7])
    chosen = plan(suite, tmp_path, only=["rec"], seeds=[1]).chosen
    assert [(job.method, job.seed) for job in chosen] == [("SASRec", 1)]


# -- searching -------------------------------------------------------------------------------------------------------

SPACE = {
    "a.x": Range(low=0.001, high=1.0, log=True),
    "a.n": Range(low=1, high=4, whole=True),
    "a.word": ("one", "two"),
}


def test_a_search_draws_the_same_settings_again_and_goes_where_values_are_large():
    pytest.importorskip("optuna")
    seen = list[tuple[str, ...]]()

    def measure(number: int, settings: tuple[str, ...]) -> float | None:
        seen.append(settings)
        values = dict(setting.split("=") for setting in settings)
        assert 0.001 <= float(values["a.x"]) <= 1.0
        assert int(values["a.n"]) in (1, 2, 3, 4)
        return None if number == 2 else float(values["a.x"]) + (values["a.word"] == "two")

    study = search(SPACE, Tuning(trials=25), measure)
    again = search(SPACE, Tuning(trials=25), measure)
    assert study == again
    assert seen[:25] == seen[25:]
    assert study.trials[2].value is None
    assert study.best is not None
    assert "a.word=two" in study.best.settings
    late = [trial.value for trial in study.trials[15:]]
    assert sum(map(float, late)) / 10 > sum(float(trial.value or 0) for trial in study.trials[:10]) / 10
    assert search(SPACE, Tuning(trials=3, seed=5), measure).trials[0].settings != study.trials[0].settings


def test_a_search_tries_nothing_twice_while_there_are_other_settings():
    four = {"a.word": ("one", "two"), "a.n": Range(low=1, high=2, whole=True)}
    study = search(four, Tuning(trials=5), lambda number, settings: 0.5)
    assert len({trial.settings for trial in study.trials[:4]}) == 4
    assert study.trials[4].settings in [trial.settings for trial in study.trials[:4]]


def test_a_search_without_optuna_names_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    text = f"{SHOP}[methods.a]\nrecipe='sasrec'\nsearch.training.learning_rate=[0.1]"
    with pytest.raises(MissingDependencyError, match=r"pip install 'tesserec\[tune\]'"):
        plan(load_suite(written(tmp_path, text)), tmp_path / "out")


# -- stages that runs share --------------------------------------------------------------------------------------------


class Listener:
    def __init__(self) -> None:
        self.lines = list[str]()

    def say(self, message: str) -> None:
        self.lines.append(message)

    def task(self, label, total=None):
        return SILENT.task(label, total)


def test_runs_with_a_store_make_a_common_stage_once_and_stay_whole_without_it(tmp_path):
    synthetic_catalogue(SyntheticConfig(n_users=60, n_items=50)).save(tmp_path / "data")
    quick = ["tokenizer.codebook_size=8", "recommender.width=16", "recommender.n_layers=1", "recommender.ff_width=16",
             "recommender.n_heads=1", "recommender.head_width=16", "training.max_steps=1", "training.precision=fp32",
             "recommender.beam_width=4"]  # fmt: skip
    heard = Listener()
    first = run(load_recipe("tiger", quick), tmp_path / "data", tmp_path / "a", store=tmp_path / "store")
    recipe = load_recipe("tiger", [*quick, "training.learning_rate=0.5"])
    second = run(recipe, tmp_path / "data", tmp_path / "b", store=tmp_path / "store", progress=heard)
    keep_misses(first, 20, heard)
    missed, written_at = Misses.load(tmp_path / "a" / MISSES).to_dict(), (tmp_path / "a" / MISSES).stat().st_mtime_ns
    assert (missed["users"], len(missed["levels"])) == (20, len(first.semantic_ids.codebook_sizes))
    assert kept_shares(missed)[-1] == missed["kept"] / 20
    shown = "".join(_missed({"missed": {"shop": {"TIGER": missed}}}, "shop", {"TIGER": 0}))
    assert f">{missed['kept'] / 20:.1%}<" in shown
    assert f"{missed['levels'][0]['loss']:.2f} of {missed['levels'][0]['chance']:.2f}" in shown
    keep_misses(first, 20, heard)
    assert (tmp_path / "a" / MISSES).stat().st_mtime_ns == written_at
    keep_misses(first, 10, heard)
    assert len(Misses.load(tmp_path / "a" / MISSES)) == 10
    shared = [line.partition(":")[0] for line in heard.lines if "shared with another run" in line]
    assert shared == ["embeddings", "tokenizer", "semantic-ids"]
    assert first.semantic_ids.fingerprint == second.semantic_ids.fingerprint
    assert first.about["stages"]["recommender"] != second.about["stages"]["recommender"]
    for stage in (tmp_path / "store").rglob("weights.safetensors"):
        stage.write_bytes(b"damaged")  # a link: the runs' own files are these very ones
    heard.lines.clear()
    run(recipe, tmp_path / "data", tmp_path / "b", store=tmp_path / "store", progress=heard)
    assert "embeddings: cached" in heard.lines
    assert any(line.startswith("recommender: done") for line in heard.lines)
    assert not list((tmp_path / "store" / "checkpoints").glob("*"))


def test_scales_have_round_ticks_within_their_ends():
    straight = around([0.013, 0.052], 0, 100)
    assert all(straight.low <= tick <= straight.high for tick in straight.ticks())
    assert 4 <= len(straight.ticks()) <= 10
    ratios = around([3, 4000], 0, 100, log=True)
    assert {10, 100, 1000} <= {round(tick) for tick in ratios.ticks()}
    assert ratios(3 * (4000 / 3) ** 0.5) == pytest.approx(50)
    assert around([5.0], 0, 100)(5.0) == pytest.approx(50)


def test_a_worker_whose_suite_was_killed_while_it_began_does_nothing(tmp_path):
    """The job is in its pipe by then; done late, it would spoil what the suite's next call has made."""
    work = Work(
        source="popularity", settings=(), data=str(tmp_path), out=str(tmp_path / "a"), store=str(tmp_path / "b")
    )
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    command = [sys.executable, "-P", "-c", WORKER, str(gone.pid)]
    done = subprocess.run(command, input=json.dumps(asdict(work)) + "\n", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    command[-1] = str(os.getpid())
    done = subprocess.run(command, input=json.dumps(asdict(work)) + "\n", capture_output=True, text=True, timeout=60)
    assert "failed" in done.stdout  # there is no data set


def test_a_worker_that_dies_costs_its_own_run_and_is_replaced(tmp_path):
    work = Work(source="no-such-recipe", settings=(), data=str(tmp_path), out=str(tmp_path / "a"), store=str(tmp_path))
    with Crew(1, SILENT) as crew:

        def kill() -> None:
            while crew._places[0].process is None:
                time.sleep(0.001)
            crew._places[0].process.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        first = crew.carry_out("the first", work)
        killer.join()
        assert first is not None
        assert "signal 9" in first.error
        assert read_json(tmp_path / "a" / FAILURE)["run"] == "the first"
        second = crew.carry_out("the second", work)
        assert second is not None
        assert "There is no recipe called 'no-such-recipe'" in second.error


def test_the_plot_of_slices_is_of_the_best_methods_and_names_the_reference_beside_them():
    value = {"value": {"mean": 0.1, "low": 0.0, "high": 0.2}}
    methods = {
        f"m{place}": {"metrics": {"ndcg@10": {"mean": place / 10}}, "slices": {"all": {"ndcg@10": value}}}
        for place in range(10)
    }
    numbers = {name: number for number, name in enumerate(methods)}
    table = {"methods": methods, "slices": {"all": 5}, "reference": "m0"}
    drawn = _slices(table, "ndcg@10", numbers)
    assert "ndcg@10 by slice, the best 8 methods and m0<" in drawn
    assert _slices({**table, "reference": "m9"}, "ndcg@10", numbers).count("the best 8 methods<") == 1
    assert "ndcg@10 by slice, in brackets its users" in drawn
