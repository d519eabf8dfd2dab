"""Evaluation on a catalogue small enough to rank by hand."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tesserec.data.dataset import Dataset
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split, leave_one_out
from tesserec.errors import ArtifactError, ConfigError
from tesserec.evaluation import Report, evaluate
from tesserec.recommenders.base import ScoringRecommender
from tesserec.recommenders.sasrec import SASRec, SASRecConfig
from tesserec.recommenders.validation import validation_metric
from tesserec.training.config import TrainingConfig
from toy_circles import circles


class Fixed(ScoringRecommender):
    """Scores every item by a constant list."""

    method = "fixed"

    def __init__(self, scores: list[float]) -> None:
        super().__init__(config=None)
        self.scores = np.array(scores, dtype=np.float32)

    full_config = {"method": "fixed"}  # noqa: RUF012
    sources = {}  # noqa: RUF012

    def _fit(self, split, checkpoints, progress):
        pass

    def score(self, histories):
        return np.tile(self.scores, (len(histories), 1))

    def _write(self, folder):
        raise NotImplementedError

    def _read(self, folder):
        raise NotImplementedError


def make_split(rows: list[list[int]], n_items: int = 5) -> Split:
    items = pl.DataFrame({"item_id": [f"i{item}" for item in range(n_items)]})
    return leave_one_out(Dataset(items, tuple(f"u{u}" for u in range(len(rows))), Sequences.from_lists(rows)))


SPLIT = make_split([[0, 1, 2, 3], [1, 0, 3, 4], [4, 4, 2, 2]])  # test targets: 3, 4 and 2; validation: 2, 3 and 2


def report_of(scores: list[float], **options) -> Report:
    return evaluate(Fixed(scores).fit(SPLIT), SPLIT, **options)


def test_a_target_behind_two_items_has_place_three():
    report = report_of([5, 4, 3, 2, 1])  # places of 3, 4 and 2: fourth, fifth, third
    assert report.metrics["recall@1"] == 0.0
    assert report.metrics["recall@5"] == 1.0
    assert report.metrics["mrr@5"] == pytest.approx((1 / 4 + 1 / 5 + 1 / 3) / 3)
    assert report.metrics["id_mrr@5"] == pytest.approx(report.metrics["mrr@5"])
    assert report.from_ties["cases"] == 0.0


def test_equal_scores_share_their_places_and_the_report_says_what_they_earn():
    report = report_of([0, 0, 0, 0, 9])  # target 4 is first; targets 3 and 2 are tied with three others
    assert report.metrics["recall@1"] == pytest.approx(1 / 3)
    assert report.metrics["recall@5"] == 1.0
    assert report.from_ties["recall@5"] == pytest.approx(2 / 3)
    assert report.from_ties["recall@1"] == 0.0
    assert report.metrics["id_recall@5"] == 1.0


def test_seen_items_are_masked_on_request_and_seen_targets_are_counted():
    kept, masked = report_of([5, 4, 3, 2, 1]), report_of([5, 4, 3, 2, 1], exclude_seen=True)
    assert kept.card["protocol"]["seen_targets"] == 1  # the last user took item 2 twice
    assert masked.ranks.found.tolist() == [True, True, False]
    assert masked.metrics["recall@1"] == pytest.approx(1 / 3)  # the first user has seen 0, 1 and 2, so 3 is first
    assert "nothing masked" in kept.card["protocol"]["candidates"]
    assert "history" in masked.card["protocol"]["candidates"]


def test_a_saved_report_gives_the_same_values_back(tmp_path: Path):
    report = report_of([0, 0, 0, 0, 9])
    report.save(tmp_path / "report")
    again = Report.load(tmp_path / "report")
    assert again.metrics == report.metrics
    assert again.card == report.card
    np.testing.assert_array_equal(again.values("ndcg@2"), report.values("ndcg@2"))
    assert again.cases["user_id"].tolist() == ["u0", "u1", "u2"]
    assert again.cases["target_count"].tolist() == [0, 2, 0]


def test_a_report_keeps_the_lists_and_what_they_are_like(tmp_path: Path):
    report = report_of([5, 4, 3, 2, 1])
    report.save(tmp_path / "report")
    for one in (report, Report.load(tmp_path / "report")):
        assert one.ranks.lists is not None
        assert one.ranks.lists.tolist() == [[0, 1, 2, 3, 4, -1, -1, -1, -1, -1]] * 3
    # training events of items 0 to 4 are 2, 2, 0, 0, 2: the mean percentile of all items is .5
    assert report.cases["list_popularity"].tolist() == pytest.approx([0.5] * 3)
    masked = report_of([5, 4, 3, 2, 1], exclude_seen=True)
    assert masked.ranks.lists is not None
    assert masked.ranks.lists[0].tolist() == [3, 4] + [-1] * 8
    assert masked.cases["list_popularity"][0] == pytest.approx((0.2 + 0.7) / 2)


def test_cases_know_repeats_and_the_popularity_of_their_targets():
    split = make_split([[0, 0, 0, 0, 1, 0], [0, 1, 1, 2, 3], [1, 2, 0, 1], [2, 3, 4]])
    cases = evaluate(Fixed([5, 4, 3, 2, 1]).fit(split), split).cases  # events in training: 5, 3, 2, 0 and 0
    assert cases["repeat"].tolist() == [True, False, True, False]
    assert cases["target_count"].tolist() == [5, 0, 3, 0]
    assert cases["target_popularity"].tolist() == [0, 3, 1, 3]


def test_the_card_says_what_training_and_ranking_took():
    made = report_of([5, 4, 3, 2, 1]).card["made"]
    assert made["training_seconds"] is None
    assert made["training_memory"] is None
    assert made["ranking_memory"]["process_bytes"] > 1e7


def test_a_damaged_report_is_refused(tmp_path: Path):
    report_of([5, 4, 3, 2, 1]).save(tmp_path / "report")
    (tmp_path / "report" / "per_user.parquet").write_bytes(b"no parquet")
    with pytest.raises(ArtifactError, match=r"is damaged.*`tesserec evaluate --out`"):
        Report.load(tmp_path / "report")


def test_the_text_names_protocol_and_metrics():
    text = report_of([0, 0, 0, 0, 9]).text()
    for part in ("leave-one-out", "all 5 items", "id_ndcg", "@50", "share their place"):
        assert part in text


def test_a_recommender_of_other_data_is_refused():
    other = make_split([[0, 1, 2, 3], [1, 0, 3, 2]])
    with pytest.raises(ArtifactError, match="do not belong together"):
        evaluate(Fixed([5, 4, 3, 2, 1]).fit(other), SPLIT)


def test_unknown_parts_and_cutoffs_are_refused():
    with pytest.raises(ConfigError, match="Did you mean 'validation'"):
        report_of([5, 4, 3, 2, 1], part="valid")
    with pytest.raises(ConfigError, match="cutoffs"):
        report_of([5, 4, 3, 2, 1], cutoffs=(0, 10))


def test_validation_ranks_the_validation_part_and_can_sample_users():
    recommender = Fixed([1, 2, 9, 3, 4]).fit(SPLIT)  # of the validation targets 2, 3 and 2 the first and last lead
    assert validation_metric(recommender, SPLIT, "recall@1") == pytest.approx(2 / 3)
    sampled = [validation_metric(recommender, SPLIT, "recall@1", n_users=1, seed=seed) for seed in range(20)]
    assert set(sampled) == {0.0, 1.0}
    assert validation_metric(recommender, SPLIT, "recall@1", n_users=1, seed=3) == sampled[3]


def test_validation_can_leave_out_the_items_of_each_history():
    recommender = Fixed([5, 9, 2, 4, 1]).fit(SPLIT)  # histories are 0 1, 1 0 and 4 4
    assert validation_metric(recommender, SPLIT, "recall@1") == 0
    assert validation_metric(recommender, SPLIT, "recall@1", exclude_seen=True) == pytest.approx(1 / 3)


def test_weights_are_chosen_by_the_masking_that_the_card_says():
    cut = circles(40)
    for exclude_seen, words in (
        (False, "validation ndcg@10"),
        (True, "validation ndcg@10, less the user's own history"),
    ):
        training = TrainingConfig(device="cpu", precision="fp32", epochs=1, exclude_seen=exclude_seen)
        model = SASRec(SASRecConfig(width=8, n_layers=1), training).fit(cut)
        value = model.log.rows[0]["validation"]
        assert value == validation_metric(model, cut, "ndcg@10", exclude_seen=exclude_seen)
        assert value != validation_metric(model, cut, "ndcg@10", exclude_seen=not exclude_seen)
        assert evaluate(model, cut).card["model"]["selected_by"] == words
