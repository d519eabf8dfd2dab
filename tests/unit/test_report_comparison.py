"""Comparing reports: figures worked by hand, wins that are marked, and what is refused."""

import json

import numpy as np
import pytest

from tesserec.errors import ConfigError, DataError
from tesserec.evaluation import ReportComparison, StatisticsConfig, compare_reports
from tesserec.pipeline.comparison import named_reports
from toy_reports import report_of

QUICK = StatisticsConfig(n_resamples=500, n_flips=999)
RANDOM = np.random.default_rng(0)
GOOD = RANDOM.choice([1, 2, 20], size=400, p=[0.4, 0.3, 0.3])
BAD = np.where(RANDOM.random(400) < 0.3, 30, GOOD)  # of the good one's hits, a third are gone


@pytest.fixture(scope="module")
def compared() -> ReportComparison:
    """A good method of two seeds, a bad one of one seed, and one that is as good as the first but for a few users."""
    alike = GOOD.copy()
    alike[:4] = 30
    return compare_reports(
        {
            "good": [report_of(GOOD), report_of(GOOD[::-1].copy(), seed=1)],
            "bad": [report_of(BAD, method="bad")],
            "alike": [report_of(alike, method="alike"), report_of(GOOD[::-1].copy(), method="alike", seed=1)],
        },
        metrics=("recall@1", "recall@10"),
        reference="good",
        statistics=QUICK,
    )


def test_means_and_deviations_are_over_seeds():
    found = compare_reports({"one": [report_of([1, 20, 20, 20]), report_of([1, 1, 1, 20], seed=1)]}, statistics=QUICK)
    recall = found.methods["one"].metrics["recall@10"]
    assert recall.seeds == (0.25, 0.75)
    assert recall.mean == 0.5
    assert recall.deviation == pytest.approx(np.sqrt(0.125))  # of n - 1
    assert found.methods["one"].metrics["recall@1"].mean == 0.5
    single = compare_reports({"one": [report_of([1, 20])]}, statistics=QUICK).methods["one"].metrics["recall@10"]
    assert single.deviation is None


def test_differences_are_paired_by_user_over_the_mean_of_the_seeds(compared):
    seeds = np.mean([GOOD <= 10, GOOD[::-1] <= 10], axis=0)
    difference = (BAD <= 10) - seeds
    found = compared.methods["bad"].differences["recall@10"]
    assert found.mean == pytest.approx(difference.mean())
    assert found.relative == pytest.approx(difference.mean() / seeds.mean())
    half_width = 1.96 * difference.std() / np.sqrt(400)
    assert found.low == pytest.approx(found.mean - half_width, abs=0.15 * half_width)
    assert found.high == pytest.approx(found.mean + half_width, abs=0.15 * half_width)
    unpaired = 1.96 * np.sqrt((BAD <= 10).var() / 400 + seeds.var() / 400)
    assert half_width < 0.9 * unpaired  # which pairing is for


def test_a_win_is_marked_only_where_it_is_significant_after_holm(compared):
    bad, alike = compared.methods["bad"].differences, compared.methods["alike"].differences
    assert compared.n_tests == 4
    assert bad["recall@10"].verdict == "below"
    assert bad["recall@10"].p_holm >= 2 * bad["recall@10"].p
    assert alike["recall@10"].verdict == ""
    assert alike["recall@10"].p_holm > 0.05
    assert compared.methods["good"].differences == {}
    text = compared.text()
    assert " -" in next(line for line in text.splitlines() if line.startswith("bad"))
    assert " -" not in next(line for line in text.splitlines() if line.startswith("alike"))


def test_the_other_way_round_the_good_method_is_above():
    reports = {"good": [report_of(GOOD)], "bad": [report_of(BAD, method="bad")]}
    found = compare_reports(reports, reference="bad", statistics=QUICK)
    assert found.methods["good"].differences["recall@10"].verdict == "above"
    assert " +" in found.text()
    by_default = compare_reports(reports, statistics=QUICK)
    assert by_default.reference == "good"
    assert "name the reference beforehand" in " ".join(by_default.notes)
    assert "name the reference" not in " ".join(found.notes)


def test_slices_hold_the_cases_they_are_called_by(compared):
    assert compared.slices["popularity: never trained"] == 100
    assert compared.slices["popularity: head"] == 100
    assert compared.slices["repeat: taken before"] == 40
    assert compared.slices["history: 0 to 4 items"] == 64
    assert compared.slices["history: 20 items or more"] == 96
    rows = np.arange(400) % 10 == 0
    value = compared.methods["bad"].slices["repeat: taken before"]["recall@10"]
    assert value.value.mean == pytest.approx((BAD[rows] <= 10).mean())
    seeds = np.mean([GOOD <= 10, GOOD[::-1] <= 10], axis=0)
    assert value.difference is not None
    assert value.difference.mean == pytest.approx((BAD[rows] <= 10).mean() - seeds[rows].mean())
    assert value.value.low < value.value.mean < value.value.high


def test_reports_that_list_their_users_in_another_order_are_aligned():
    shuffled = report_of(BAD, method="bad").take(np.random.default_rng(1).permutation(400))
    straight = {"good": [report_of(GOOD)], "bad": [report_of(BAD, method="bad")]}
    reports = {**straight, "bad": [shuffled]}
    assert compare_reports(reports, statistics=QUICK).to_dict() == compare_reports(straight, statistics=QUICK).to_dict()


def test_reports_of_other_users_or_targets_are_refused():
    other = report_of(BAD, method="bad")
    other.cases["user_id"] = np.array([f"u{row:04}" for row in range(1, 401)])
    with pytest.raises(
        DataError, match=r"1 users of good are not in a report of bad, 1 are only there \(u0000, u0400\)"
    ):
        compare_reports({"good": [report_of(GOOD)], "bad": [other]})
    other = report_of(BAD, method="bad")
    other.cases["target_id"][7] = "i9"
    with pytest.raises(DataError, match=r"1 users have another target in a report of bad.*u0007: i9 and i7"):
        compare_reports({"good": [report_of(GOOD)], "bad": [other]})


@pytest.mark.parametrize(("field", "value"), [
    ("dataset", "d1"), ("candidates", "all 50 items, less the user's own history"), ("split", "by-time"),
    ("part", "validation"), ("cutoffs", [1, 5]), ("new_field", "of a later version"),
])  # fmt: skip
def test_a_wrong_field_of_the_protocol_is_refused_by_name(field, value):
    other = report_of(BAD, method="bad", card={"protocol": {field: value}})
    with pytest.raises(
        ConfigError, match=rf"good \(seed 0\) and those of bad \(seed 0\) follow different protocols \({field}: "
    ):
        compare_reports({"good": [report_of(GOOD)], "bad": [other]})


def test_a_report_or_seed_given_twice_is_refused():
    with pytest.raises(ConfigError, match=r"given twice, as good \(seed 0\) and as again \(seed 0\)"):
        compare_reports({"good": [report_of(GOOD)], "again": [report_of(GOOD)]})
    later = report_of(GOOD, card={"made": {"at": "2026-01-02T00:00:00+00:00"}})
    with pytest.raises(ConfigError, match=r"Two reports of good have the same settings, inputs and seed \(0\)"):
        compare_reports({"good": [report_of(GOOD), later]})


def test_seeds_of_one_method_differ_in_their_seed_alone():
    wide = report_of(BAD, seed=1)
    wide.card["model"]["config"]["recommender"] = {"width": 128}
    with pytest.raises(
        ConfigError, match=r"good differ in more than their seed \(recommender: None and {'width': 128}"
    ):
        compare_reports({"good": [report_of(GOOD), wide]})


def test_what_cannot_be_compared_is_refused():
    reports = {"good": [report_of(GOOD)], "bad": [report_of(BAD, method="bad")]}
    with pytest.raises(ConfigError, match="no reports"):
        compare_reports({})
    with pytest.raises(ConfigError, match="no reports"):
        compare_reports({"good": []})
    with pytest.raises(ConfigError, match=r"no metric called 'recal'. Did you mean 'recall'"):
        compare_reports(reports, metrics=["recal@10"])
    with pytest.raises(ConfigError, match="each once"):
        compare_reports(reports, metrics=["recall@10", "recall@10"])
    with pytest.raises(ConfigError, match=r"no method called 'god'. Did you mean 'good'"):
        compare_reports(reports, reference="god")
    with pytest.raises(
        ConfigError, match=r"2 tests \(2 methods, 2 metrics\) with 10 flips each could never be significant"
    ):
        compare_reports(reports, statistics=StatisticsConfig(n_flips=10))
    with pytest.raises(ConfigError, match=r"level is 1\.5"):
        StatisticsConfig(level=1.5)


def test_notes_are_of_methods_that_chance_or_a_narrow_beam_concerns():
    one = {"model": {"seed": None}}
    beam = {"model": {"ranking": "beam of 5, constrained"}}
    reports = {"fixed": [report_of(GOOD, card=one)], "beam": [report_of(BAD, method="beam", card=beam)]}
    notes = " ".join(compare_reports(reports, statistics=QUICK).notes)
    assert "fewer than 3 seeds of beam:" in notes
    assert "exact, every item scored: fixed; beam of 5, constrained: beam" in notes
    assert "a beam of 5 ends there: at larger cut-offs, targets behind it are misses of beam" in notes
    beam["model"]["ranking"] = "beam of 10, constrained"
    reports["beam"] = [report_of(BAD, method="beam", card=beam)]
    assert "ends there" not in " ".join(compare_reports(reports, statistics=QUICK).notes)
    further = compare_reports(reports, metrics=["id_recall@20"], statistics=QUICK)
    assert "a beam of 10 ends there" in " ".join(further.notes)


def test_a_search_may_find_the_settings_of_another_method_but_no_seed_counts_twice():
    same = {"default": [report_of(GOOD)], "tuned": [report_of(GOOD)]}
    found = compare_reports(same, reference="default", statistics=QUICK, may_repeat=["tuned"])
    assert found.methods["tuned"].differences["recall@10"].p == 1
    with pytest.raises(ConfigError, match=r"given twice, as tuned \(seed 0\) and as tuned \(seed 0\)"):
        compare_reports({"tuned": [report_of(GOOD), report_of(GOOD)]}, may_repeat=["tuned"])


def test_the_comparison_is_json_and_markdown(compared):
    found = json.loads(json.dumps(compared.to_dict()))
    assert found["methods"]["bad"]["differences"]["recall@10"]["verdict"] == "below"
    assert found["methods"]["good"]["metrics"]["recall@10"]["seeds"] == [pytest.approx(0.7, abs=0.1)] * 2
    page = compared.markdown()
    assert page.count("\n| bad |") == 3  # metrics, differences, cost
    assert "|:---|---:|" in page
    assert "fewer than 3 seeds of good, bad, alike" in page.replace("Fewer", "fewer")


def test_slices_are_columns_where_there_are_more_methods_than_slices(compared):
    assert "popularity: head  " in compared.text()
    many = compare_reports({f"m{n}": [report_of(GOOD[:100], method=f"m{n}")] for n in range(12)}, statistics=QUICK)
    table = many.markdown().partition("by slice")[2].splitlines()
    assert len(many.slices) < len(many.methods)
    assert table[2].startswith("|  | popularity: never trained |")
    assert table[4].startswith("| users | 25 |")
    assert table[5].startswith("| m0 | ")


def test_older_reports_are_compared_without_the_slices_that_they_cannot_tell():
    older = [report_of(GOOD), report_of(BAD, method="bad")]
    for report in older:
        del report.cases["repeat"], report.cases["target_popularity"]
    found = compare_reports({"good": older[:1], "bad": older[1:]}, statistics=QUICK)
    assert {label.split(":")[0] for label in found.slices} == {"history"}
    assert "evaluate again" in " ".join(found.notes)


def test_no_report_is_lost_where_names_meet(tmp_path):
    """The end of a path, or a label, may be what another source is called."""
    for place, (folder, method) in enumerate(
        (("old", "toy"), ("toy", "toy"), ("popularity", "toy"), ("a", "popularity"))
    ):
        report_of([1, 2 + place], method=method, card={"model": {"sources": {"dataset": folder}}}).save(
            tmp_path / folder
        )
    found = named_reports([f"toy={tmp_path / 'old'}", tmp_path / "toy", tmp_path / "popularity", tmp_path / "a"])
    assert len(found) == 4
    assert {report.cases["target_id"].size for of_method in found.values() for report in of_method} == {2}
    assert next(iter(found)) == "toy"
    assert list(found)[-1] == "popularity"
