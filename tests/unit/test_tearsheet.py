"""The tear-sheet on catalogues small enough to judge by hand."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tesserec.data.catalogue import Catalogue
from tesserec.data.sequences import Sequences
from tesserec.errors import ConfigError, DataError, MissingDependencyError
from tesserec.evaluation import TearSheet, inspect_ids
from tesserec.functional.id_statistics import co_occurrences, nearest_neighbours, popularity_thirds
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers import make_tokenizer
from tesserec.tokenizers.collisions import with_extra_level
from tesserec.tokenizers.semantic_ids import SemanticIds
from toy_items import clustered
from toy_shop import CATALOGUE, CODES, IDS, NAMES, split_of


def test_use_of_levels_by_hand() -> None:
    first, second = inspect_ids(IDS).levels
    assert (first.size, first.used, first.perplexity, first.largest_share) == (4, 2, 2.0, 0.5)
    assert first.entropy_bits == 1.0
    assert second.largest_share == 5 / 6
    assert inspect_ids(IDS).prefixes == (2, 3)


def test_collisions_by_hand() -> None:
    found = inspect_ids(IDS, texts=["x", "x", "y", "z", "z", "other"]).collisions
    assert (found.distinct, found.groups, found.largest_group) == (3, 2, 3)
    assert (found.icr, found.uir, found.dup, found.dist) == (5 / 6, pytest.approx(1 / 6), 0.5, 0.5)
    assert (found.identical_text_groups, found.identical_text_items) == (1, 2)
    assert found.group_sizes == {2: 1, 3: 1}
    assert found.identical_text_group_sizes == {2: 1}
    assert inspect_ids(IDS).collisions.identical_text_groups is None


def test_sharing_by_depth_by_hand() -> None:
    first, both = inspect_ids(IDS).sharing
    assert (first.icr, first.largest_group) == (1, 3)
    assert (both.icr, both.largest_group) == (5 / 6, 3)
    found = inspect_ids(IDS).collisions
    assert found.gini == pytest.approx(2 / 9)  # groups of 1, 2 and 3: mean difference 8/9, over twice their mean
    assert found.entropy_share == pytest.approx(-sum(n / 6 * np.log(n / 6) for n in (1, 2, 3)) / np.log(6))


def test_test_targets_that_share_their_id_cap_what_a_model_can_reach() -> None:
    """Item f tests, whose ID three items have; item c has one of its own."""
    shared = inspect_ids(IDS, split=split_of([[0, 1], [1]], (0, 5))).collisions
    assert (shared.shared_targets, shared.target_ceiling) == (1, pytest.approx(1 / 3))
    own = inspect_ids(IDS, split=split_of([[0, 1], [1]], (0, 2))).collisions
    assert (own.shared_targets, own.target_ceiling) == (0, 1)
    assert inspect_ids(IDS).collisions.target_ceiling is None


def test_thirds_are_of_events_and_keep_equal_counts_together() -> None:
    assert popularity_thirds(np.array([1, 6, 3, 1, 3, 1, 1, 0, 1, 1])).tolist() == [2, 0, 1, 2, 1, 2, 2, 2, 2, 2]
    assert popularity_thirds(np.array([2, 2, 2, 2])).tolist() == [1, 1, 1, 1]  # their middle is the middle
    assert popularity_thirds(np.array([9, 1, 1])).tolist() == [1, 2, 2]  # one item with nearly all events
    assert popularity_thirds(np.zeros(3, dtype=np.int64)).tolist() == [2, 2, 2]


def test_popularity_by_hand() -> None:
    """Events in training: a 3, c 2, then d, e and f 1 each; b none."""
    found = inspect_ids(IDS, split=split_of([[0, 0, 0, 2, 2], [3, 4, 5]])).popularity
    assert found is not None
    assert (found.head.items, found.mid.items, found.tail.items) == (1, 1, 4)
    assert (found.head.events, found.mid.events, found.tail.events) == (3 / 8, 2 / 8, 3 / 8)
    assert (found.head.dist, found.mid.dist, found.tail.dist) == (1, 1, 0.5)
    assert (found.head.icr, found.mid.icr, found.tail.icr) == (1, 0, 1)
    assert (found.head.perplexity, found.mid.perplexity) == (1, 1)
    assert found.tail.perplexity == pytest.approx(2 ** (0.25 * np.log2(4) + 0.75 * np.log2(4 / 3)))
    assert found.perplexity_by_events == pytest.approx(2 ** (5 / 8 * np.log2(8 / 5) + 3 / 8 * np.log2(8 / 3)))
    assert found.largest_share_by_events == 5 / 8
    assert (found.mean_events, found.mean_events_of_colliding) == (8 / 6, 6 / 5)


def test_a_third_without_items_has_no_figures() -> None:
    sheet = inspect_ids(IDS, split=split_of([[0, 1, 2, 3, 4, 5]]))
    assert sheet.popularity is not None
    assert (sheet.popularity.head.items, sheet.popularity.mid.items) == (0, 6)
    assert (sheet.popularity.head.dist, sheet.popularity.head.icr, sheet.popularity.head.perplexity) == (None,) * 3
    assert "head" in sheet.text()


def test_an_extra_level_is_shown_but_counts_neither_as_meaning_nor_as_uniqueness() -> None:
    sheet = inspect_ids(with_extra_level(IDS, 8))
    assert [level.extra for level in sheet.levels] == [False, False, True]
    assert sheet.collisions == inspect_ids(IDS).collisions
    assert sheet.prefixes == (2, 3, 6)
    assert "3 (extra)" in sheet.text()


def test_agreement_of_items_taken_together_by_hand() -> None:
    """a-b together twice, d-c once: of the four directed pairs, two share both codes; 6 and 4 of all 15 pairs do."""
    found = inspect_ids(IDS, split=split_of([[0, 1], [0, 1], [3, 2]])).together
    assert found is not None
    assert found.pairs == 4
    assert found.prefix == (0.5, 0.5)
    assert found.prefix_chance == (6 / 15, 4 / 15)
    assert found.prefix_lift == (0.5 / (6 / 15), 0.5 / (4 / 15))
    assert found.codes == 0.5
    assert found.codes_chance == pytest.approx((6 / 15 + 10 / 15) / 2)


def test_only_the_training_part_is_looked_at() -> None:
    """Every user's last two items are item 0, which therefore is in no pair."""
    pairs = co_occurrences(split_of([[1, 2], [1, 3]]).train, 6, top=5, max_pairs=100, seed=0)
    assert 0 not in {*pairs.left, *pairs.right}


def test_the_last_places_among_companions_are_shared_by_those_tied_for_them() -> None:
    histories = Sequences.from_lists([[0, 1], [0, 1], [0, 2], [0, 3], [0, 4]])
    pairs = co_occurrences(histories, 6, top=2, max_pairs=100, seed=0)
    weights = {
        int(right): float(weight) for left, right, weight in zip(pairs.left, pairs.right, pairs.weights) if left == 0
    }
    assert weights == {1: 1.0, 2: pytest.approx(1 / 3), 3: pytest.approx(1 / 3), 4: pytest.approx(1 / 3)}


def test_repeats_in_a_history_count_once_and_an_item_is_not_its_own_companion() -> None:
    pairs = co_occurrences(Sequences.from_lists([[0, 0, 1], [0]]), 6, top=5, max_pairs=100, seed=0)
    assert sorted(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == [(0, 1), (1, 0)]


def test_histories_are_drawn_when_there_are_too_many_pairs() -> None:
    histories = Sequences.from_lists([[0, 1], [2, 3], [4, 5]])
    assert len(co_occurrences(histories, 6, top=5, max_pairs=1, seed=0).left) == 2
    assert len(co_occurrences(histories, 6, top=5, max_pairs=3, seed=0).left) == 6


def test_nearest_neighbours_by_hand() -> None:
    vectors = np.array([[1.0, 0.0], [5.0, 0.5], [0.0, 1.0], [0.1, 9.0]])
    pairs = nearest_neighbours(vectors, np.array([0, 2]), 1)
    assert list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == [(0, 1), (2, 3)]


def test_codes_of_clusters_keep_neighbours_and_random_codes_do_not() -> None:
    items = clustered(300)
    fitted = make_tokenizer("rkmeans", {"n_levels": 2, "codebook_size": 8}).fit(items)
    kept = inspect_ids(fitted.encode(items), embeddings=items, tokenizer=fitted)
    assert kept.neighbours is not None
    assert kept.neighbours.prefix[0] > 0.8
    assert kept.unexplained is not None
    assert 0 < kept.unexplained < 0.5
    random_codes = np.random.default_rng(0).integers(8, size=(300, 2))
    lost = inspect_ids(SemanticIds(items.catalogue, random_codes, (8, 8)), embeddings=items)
    assert lost.neighbours is not None
    assert lost.neighbours.prefix_lift[0] == pytest.approx(1, abs=0.2)
    assert lost.unexplained is None


def test_the_sheet_is_json_and_text() -> None:
    sheet = inspect_ids(IDS, texts=NAMES, split=split_of([[0, 1], [3, 2]]))
    back = json.loads(json.dumps(sheet.to_dict()))
    assert back["collisions"]["icr"] == 5 / 6
    assert back["levels"][0]["perplexity"] == 2.0
    text = sheet.text()
    assert "ICR 0.8333" in text
    assert "often taken together" in text
    assert "needs" not in text


def test_histories_without_pairs_and_items_without_vectors_leave_a_gap_not_an_error() -> None:
    zeros = Embeddings(CATALOGUE, np.zeros((6, 2), dtype=np.float32))
    sheet = inspect_ids(IDS, split=split_of([[0], [1]]), embeddings=zeros)
    assert (sheet.together, sheet.neighbours) == (None, None)
    assert "no embeddings or histories" in sheet.text()


def test_parts_of_another_catalogue_are_refused() -> None:
    with pytest.raises(DataError, match="2 texts for 6 items"):
        inspect_ids(IDS, texts=["x", "y"])
    with pytest.raises(DataError, match="The embeddings and the semantic IDs are of different catalogues"):
        inspect_ids(IDS, embeddings=clustered(6))
    others = SemanticIds(Catalogue(["x", "y", "z", "u", "v", "w"]), np.array(CODES), (4, 2))
    with pytest.raises(DataError, match="The split and the semantic IDs are of different catalogues"):
        inspect_ids(others, split=split_of([[0, 1]]))


def sheets() -> list[TearSheet]:
    wide = SemanticIds(CATALOGUE, np.arange(6 * 12).reshape(6, 12) % 5, (5,) * 12)
    return [
        inspect_ids(IDS),
        inspect_ids(with_extra_level(IDS, 8), texts=NAMES, split=split_of([[0, 1], [3, 2]])),
        inspect_ids(wide, split=split_of([[0, 1], [3, 2]])),
    ]


def test_every_sheet_can_be_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for number, sheet in enumerate(sheets()):
        path = tmp_path / f"{number}.png"
        sheet.plot(path)
        assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"ends in \.png"):
        inspect_ids(IDS).plot(tmp_path / "sheet.tabloid")
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        inspect_ids(IDS).plot(tmp_path / "0.png" / "sheet.png")


def test_drawing_without_matplotlib_names_the_extra(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"tesserec\[plot\]"):
        inspect_ids(IDS).plot(tmp_path / "sheet.png")
