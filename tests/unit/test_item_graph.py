"""The item graph, worked by hand on eight items."""

import numpy as np
import polars as pl
import pytest

from tesserec.data import Dataset
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split, leave_one_out
from tesserec.recommenders.item_graph import ItemGraph, ItemGraphConfig, rings, text_features, transition_counts

# The last two of each user are held out: training sees 0 1 2 | 0 1 3 | 0 4 | 1 5 | 5 5 0.
SEQUENCES = [[0, 1, 2, 6, 7], [0, 1, 3, 6, 7], [0, 4, 2, 7], [1, 5, 6, 2], [5, 5, 0, 1, 6]]


def split(texts: list[str] | None = None) -> Split:
    items = pl.DataFrame({"item_id": list("abcdefgh"), **({"title": texts} if texts else {})})
    return leave_one_out(Dataset(items, tuple("uvwxy"), Sequences.from_lists(SEQUENCES)))


def lists(sequences: Sequences) -> list[list[int]]:
    return [items.tolist() for items in sequences]


def test_edges_are_consecutive_pairs_of_the_training_part_alone():
    counts = transition_counts(split().train, 8)
    rows, columns = counts.nonzero()
    found = {(int(a), int(b)): int(c) for a, b, c in zip(rows, columns, counts.data, strict=True)}
    assert found == {(0, 1): 2, (0, 4): 1, (1, 2): 1, (1, 3): 1, (1, 5): 1, (5, 0): 1}


def test_rings_order_by_count_then_popularity_and_exclude_source_and_nearer_items():
    cut = split()
    features = text_features(split(["", "", "", "", "", "", "", ""]).dataset)
    first, second = rings(transition_counts(cut.train, 8), features, cut.train_counts)
    assert lists(first) == [[1, 4], [5, 2, 3], [], [], [], [0], [], []]
    assert lists(second) == [[5, 2, 3], [0], [], [], [], [1, 4], [], []]


def test_similar_texts_move_a_successor_forward():
    cut = split(["", "red pen", "blue ink", "red pen", "", "", "", ""])
    first, _ = rings(transition_counts(cut.train, 8), text_features(cut.dataset), cut.train_counts)
    assert lists(first)[1] == [3, 5, 2]


def test_the_list_takes_from_the_latest_two_items_in_turn():
    graph = ItemGraph().fit(split())
    # From b: ring one f, c, d; ring two a. From a: ring one b, e; ring two f, c, d. Then the rest.
    assert graph.recommend([["a", "b"]], k=8).ids() == [["f", "c", "d", "a", "b", "e", "g", "h"]]
    assert graph.recommend([["a", "b"]], k=4, exclude_seen=True).ids() == [["f", "c", "d", "e"]]


def test_users_with_the_same_latest_two_items_get_the_same_list():
    graph = ItemGraph().fit(split())
    scores = graph.score(Sequences.from_lists([[3, 0, 1], [6, 6, 0, 1]]))
    assert np.array_equal(scores[0], scores[1])


def test_texts_can_be_left_out():
    with_texts = ["x", "red pen", "blue ink", "red pen", "x", "x", "x", "x"]
    plain = ItemGraph(ItemGraphConfig(features="none")).fit(split(with_texts))
    assert plain.recommend([["b"]], k=3).ids() == [["f", "c", "d"]]


@pytest.mark.data
def test_the_beauty_graph_has_the_edges_that_the_authors_count(real_data):
    from tesserec.data import prepare

    dataset = prepare(real_data / "beauty")
    assert transition_counts(leave_one_out(dataset).train, len(dataset.catalogue)).nnz == 114_582


@pytest.mark.data
def test_the_untrained_graph_reaches_its_known_level_on_scientific(real_data):
    from tesserec.data import prepare
    from tesserec.evaluation import evaluate

    cut = leave_one_out(prepare(real_data / "scientific"))
    metrics = evaluate(ItemGraph().fit(cut), cut).metrics
    assert metrics["ndcg@10"] == pytest.approx(0.0678, abs=0.002)
    assert metrics["recall@10"] == pytest.approx(0.1061, abs=0.002)
