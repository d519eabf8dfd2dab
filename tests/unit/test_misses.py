"""Why a generative model missed, on a shop of six items."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tesserec.artifacts import read_manifest
from tesserec.errors import ArtifactError, ConfigError
from tesserec.evaluation import Misses, why_missed
from tesserec.recommenders import make_recommender
from tesserec.recommenders.popularity import Popularity
from tesserec.training.config import TrainingConfig
from toy_shop import IDS, split_of

SPLIT = split_of([[0, 1, 2], [3, 4, 5], [2, 3, 0], [5, 1, 4]] * 3, targets=(2, 3))
SMALL = {"width": 16, "ff_width": 16, "n_layers": 1, "n_heads": 1, "head_width": 8, "beam_width": 2}


@pytest.fixture(scope="module")
def tiger():
    training = TrainingConfig(device="cpu", precision="fp32", epochs=1, batch_size=8)
    return make_recommender("tiger", SMALL, training, IDS).fit(SPLIT)


def misses(**changes) -> Misses:
    """Four users and IDs of two levels: kept; lost on level 0, by the search; lost on level 1, twice, by the model."""
    found = Misses(
        card={"part": "validation", "sources": {"dataset": "d"}},
        beam_width=2,
        codebook_sizes=(4, 2),
        users=np.array(["a", "b", "c", "d"]),
        lost_at=np.array([2, 0, 1, 1]),
        ranks=np.array([[1, 2], [3, 1], [2, 4], [1, 8]]),
        log_probs=np.log(np.array([[0.5, 0.5], [0.25, 0.5], [0.5, 0.25], [0.5, 0.125]])),
        above=np.array([0, 1, 2, 2]),
        exact_ranks=None,
        not_candidates=0,
    )
    return replace(found, **changes)


def test_levels_say_who_came_so_far_who_was_lost_and_the_loss_of_all():
    first, second = misses().levels
    assert (first.reached, first.lost, first.median_rank) == (4, 1, 3.0)
    assert (second.reached, second.lost, second.median_rank) == (3, 2, 6.0)
    assert first.loss == pytest.approx(np.log(2) * (1 + 2 + 1 + 1) / 4)
    assert first.chance == pytest.approx(np.log(4))
    assert misses().to_dict()["loss"] == pytest.approx(np.log(2) * (2 + 3 + 3 + 4) / 4)


def test_losses_are_of_the_search_or_of_the_model():
    assert misses().lost_to_search.tolist() == [False, True, False, False]
    exact = misses(exact_ranks=np.array([[1, 1], [3, 3], [2, 2], [1, 9]]))
    assert exact.lost_to_search.tolist() == [False, False, True, False]
    assert exact.to_dict()["lost_to_search_from_top_10"] == 3
    assert exact.certain_widths is not None
    assert exact.certain_widths.tolist() == [1, 3, 2, 9]
    assert misses().estimated_widths.tolist() == [2, 3, 4, 8]
    widths = misses(beam_width=5).to_dict()["widths"]
    assert [point["estimated"] for point in widths[:3]] == [0.0, 0.75, None]  # of wider beams this one knows nothing
    assert [point["certain"] for point in exact.to_dict()["widths"][:3]] == [0.25, 0.75, 1.0]
    assert misses().certain_widths is None


def test_the_text_says_what_is_an_estimate_and_what_is_certain():
    text = misses().text()
    assert "at most 1 (25.0%)" in text
    assert "%" not in next(line for line in text.splitlines() if line.startswith("certain"))
    assert "certain    100.0%" in misses(exact_ranks=np.ones((4, 2), dtype=np.int64)).text()
    assert "no candidates: 3" in misses(not_candidates=3).text()


@pytest.mark.parametrize("part", ["validation", "test"])
def test_the_beam_that_is_followed_is_the_one_that_ranks(tiger, part):
    found = why_missed(tiger, SPLIT, part=part, exact=True)
    ranks = tiger.rank(getattr(SPLIT, part))
    assert found.users.tolist() == list(SPLIT.dataset.user_ids)
    assert np.array_equal(~found.lost, ranks.found)
    tiger.exact = True
    every = tiger.rank(getattr(SPLIT, part))
    tiger.exact = False
    assert found.exact_ranks is not None
    assert np.array_equal(found.exact_ranks[:, -1], every.id_rank)
    assert not (found.lost & (found.certain_widths <= found.beam_width)).any()
    json.dumps(found.to_dict())


def test_masked_targets_are_left_out_and_counted(tiger):
    found = why_missed(tiger, SPLIT, exclude_seen=True)
    assert found.not_candidates == 6  # who had item 2 before
    assert len(found) == 6


def test_users_can_be_drawn_and_the_width_chosen(tiger):
    some = why_missed(tiger, SPLIT, n_users=5, seed=1, beam_width=6)
    assert len(some) == 5
    assert some.beam_width == 6
    assert not some.lost.any()  # as wide as the catalogue
    assert some.users.tolist() == why_missed(tiger, SPLIT, n_users=5, seed=1).users.tolist()


def test_what_cannot_be_followed_is_refused(tiger):
    with pytest.raises(ConfigError, match="popularity scores every item"):
        why_missed(Popularity().fit(SPLIT), SPLIT)
    with pytest.raises(ConfigError, match="Did you mean 'validation'"):
        why_missed(tiger, SPLIT, part="valid")
    with pytest.raises(ConfigError, match="beam_width 0"):
        why_missed(tiger, SPLIT, beam_width=0)
    with pytest.raises(ArtifactError, match="do not belong together"):
        why_missed(tiger, split_of([[0, 1, 2], [3, 4, 5]]))


@pytest.mark.parametrize("exact", [False, True])
def test_what_was_saved_comes_back_and_damage_is_noticed(tiger, tmp_path, exact):
    found = why_missed(tiger, SPLIT, exact=exact, n_users=5)
    found.save(tmp_path / "misses", sources={"recommender": "r"})
    back = Misses.load(tmp_path / "misses")
    assert back.to_dict() == found.to_dict()
    assert (back.card["part"], back.card["n_users"], back.card["method"]) == ("validation", 5, "tiger")
    for name in ("users", "lost_at", "ranks", "log_probs", "above", "exact_ranks"):
        assert np.array_equal(getattr(back, name), getattr(found, name))
    sources = read_manifest(tmp_path / "misses", kind="misses").sources
    assert sources == {**tiger.sources, "recommender": "r"}
    (tmp_path / "misses" / "per_user.parquet").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="tesserec misses --out"):
        Misses.load(tmp_path / "misses")
