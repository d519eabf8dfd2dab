"""The own history as a recommender, by hand."""

import numpy as np
import polars as pl

from tesserec.data import Dataset
from tesserec.data.sequences import Sequences
from tesserec.data.splits import leave_one_out
from tesserec.evaluation import evaluate
from tesserec.recommenders.own_history import OwnHistory
from tesserec.recommenders.popularity import Popularity

# The last two of each user are held out: item 0 is the most popular of training, then 1 and 2.
SEQUENCES = [[0, 1, 0, 2, 2], [0, 1, 2, 1, 0], [0, 3, 4, 3, 5]]
SPLIT = leave_one_out(Dataset(pl.DataFrame({"item_id": list("abcdef")}), tuple("xyz"), Sequences.from_lists(SEQUENCES)))


def test_the_latest_item_is_first_an_item_has_its_latest_place_and_the_rest_goes_by_popularity():
    model = OwnHistory().fit(SPLIT)
    assert SPLIT.train_counts.tolist() == [4, 2, 1, 1, 1, 0]
    assert model.recommend([["d", "e", "d"], ["f"], ["c", "b"]], k=6).ids()[0][:4] == ["d", "e", "a", "b"]
    assert model.recommend([["f"]], k=3).ids() == [["f", "a", "b"]]
    assert model.recommend([["c", "b"]], k=3).ids() == [["b", "c", "a"]]


def test_a_target_taken_before_stands_where_the_history_has_it_from_its_end():
    assert OwnHistory().fit(SPLIT).rank(SPLIT.test).ahead.tolist() == [0, 2, 5]


def test_without_the_history_it_is_popularity():
    own, popular = (evaluate(made().fit(SPLIT), SPLIT, exclude_seen=True) for made in (OwnHistory, Popularity))
    assert own.metrics == popular.metrics
    np.testing.assert_array_equal(own.values("recall@1"), popular.values("recall@1"))
