"""Splits by hand: what may be seen, and what is asked."""

import shutil

import numpy as np
import polars as pl
import pytest

from tesserec.artifacts import read_manifest, write_artifact
from tesserec.data import Dataset, Sequences, by_time, leave_one_out
from tesserec.data.catalogue import Catalogue
from tesserec.errors import ArtifactError, DataError

ITEMS = pl.DataFrame({"item_id": list("abcde")})
ROWS = [[0, 1, 2, 3], [4, 0], [1, 1, 2]]
TIMES = np.array([10, 20, 30, 40, 15, 35, 5, 6, 31])


def dataset(times=None):
    sequences = Sequences.from_lists(ROWS)
    offsets = np.concatenate([[0], np.cumsum(sequences.lengths)])
    return Dataset(ITEMS, ("u", "v", "w"), Sequences.from_offsets(sequences.values, offsets, times))


def shown(sequences):
    return [row.tolist() for row in sequences]


def test_leave_one_out_cuts_the_last_two_events_of_users_with_three():
    split = leave_one_out(dataset())
    assert shown(split.train) == [[0, 1], [4, 0], [1]]
    assert split.validation.users.tolist() == split.test.users.tolist() == [0, 2]
    assert shown(split.validation.histories) == [[0, 1], [1]]
    assert split.validation.targets.tolist() == [2, 1]
    assert shown(split.test.histories) == [[0, 1, 2], [1, 1]]
    assert split.test.targets.tolist() == [3, 2]
    assert split.train_counts.tolist() == [2, 2, 0, 0, 1]


def test_parts_of_a_split_share_one_array_of_values():
    data = dataset()
    split = leave_one_out(data)
    for part in (split.train, split.validation.histories, split.test.histories):
        assert part.values is data.sequences.values


def test_splitting_by_time_asks_for_the_first_event_of_each_period():
    split = by_time(dataset(TIMES), validation_from=30, test_from=35)
    assert shown(split.train) == [[0, 1], [4], [1, 1]]
    assert split.validation.users.tolist() == [0, 2]
    assert split.validation.targets.tolist() == [2, 2]
    assert split.test.users.tolist() == [0, 1]
    assert shown(split.test.histories) == [[0, 1, 2], [4]]
    assert split.test.targets.tolist() == [3, 0]


def test_splitting_by_time_needs_times_in_order_and_parts_that_hold_something():
    with pytest.raises(DataError, match="no event times"):
        by_time(dataset(), validation_from=1, test_from=2)
    with pytest.raises(DataError, match="must be earlier than test_from"):
        by_time(dataset(TIMES), validation_from=2, test_from=2)
    with pytest.raises(DataError, match="leaves no test part"):
        by_time(dataset(TIMES), validation_from=30, test_from=100)


def test_an_id_per_sequence_and_unique_items_are_required():
    with pytest.raises(DataError, match="2 user ids for 3 sequences"):
        Dataset(ITEMS, ("u", "v"), Sequences.from_lists(ROWS))
    with pytest.raises(DataError, match=r"1 item ids occur more than once.*'a'"):
        Catalogue(["a", "b", "a"])
    with pytest.raises(DataError, match="catalogue is empty"):
        Catalogue([])


def test_items_are_found_by_id_and_unknown_ones_are_named_or_left_out():
    catalogue = Catalogue(["a", "b"])
    assert catalogue.index_of("b") == 1
    assert catalogue.known(["b", "x", "a"]).tolist() == [1, 0]
    with pytest.raises(DataError, match="no item 'x' in the catalogue of 2 items"):
        catalogue.index_of("x")


def test_a_saved_split_part_loads_with_the_times_of_its_own_events(tmp_path):
    data = dataset(TIMES)
    part = Dataset(ITEMS, ("w", "u"), data.sequences.take(np.array([2, 0])))
    part.save(tmp_path / "part")
    loaded = Dataset.load(tmp_path / "part")
    assert shown(loaded.sequences) == [[1, 1, 2], [0, 1, 2, 3]]
    assert loaded.sequences.times.tolist() == [5, 6, 31, 10, 20, 30, 40]


def test_damaged_or_missing_data_sets_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"There is no folder .*nothing"):
        Dataset.load(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match=r"holds no manifest.json.*make one with `tesserec prepare`"):
        Dataset.load(tmp_path)
    folder = tmp_path / "data"
    dataset(TIMES).save(folder)
    (folder / "times.npy").unlink()
    with pytest.raises(ArtifactError, match=r"data \(dataset\) is damaged: .*missing.*again with `tesserec prepare`"):
        Dataset.load(folder)


def saved_with(folder, **arrays):
    """A data set whose fingerprint is right although its arrays do not fit together."""
    dataset(TIMES).save(folder / "whole")
    manifest = read_manifest(folder / "whole")
    with write_artifact(folder / "data", kind="dataset", config=manifest.config, sizes=manifest.sizes) as staging:
        for file in ("items.parquet", "users.parquet", "values.npy", "offsets.npy", "times.npy", "report.json"):
            shutil.copy(folder / "whole" / file, staging)
        for name, array in arrays.items():
            np.save(staging / f"{name}.npy", array)
    return folder / "data"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"values": np.array([0, 1, 2, 9, 0, 1, 1, 1, 2])}, "Event 3 is of item row 9, but there are 5 items"),
        ({"values": np.array([0, 1, -1, 3, 0, 1, 1, 1, 2])}, "Event 2 is of item row -1"),
        ({"values": np.zeros(9)}, "item rows are float64"),
        ({"values": np.zeros((9, 1), dtype=int)}, r"shape \(9, 1\)"),
        ({"values": np.zeros(5, dtype=int)}, "its manifest counts .* its files "),
        ({"offsets": np.array([0, 6, 4, 9])}, "Sequence 1 goes from 6 to 4"),
        ({"offsets": np.array([0, 4, 6, 8])}, "does not divide 9 events among 3 users"),
        ({"offsets": np.array([0.0, 4, 6, 9])}, "starts are float64"),
        ({"times": np.arange(5)}, r"times are int64 of shape \(5,\)"),
        ({"times": np.array(["now"] * 9)}, "times are <U3"),
    ],
)
def test_a_data_set_whose_parts_do_not_fit_together_is_refused(tmp_path, arrays, message):
    with pytest.raises(ArtifactError, match=rf"is damaged: .*{message}"):
        Dataset.load(saved_with(tmp_path, **arrays))


def test_sequences_of_items_that_are_not_in_the_table_are_refused():
    with pytest.raises(DataError, match="item row 7, but there are 5 items"):
        Dataset(ITEMS, ("u",), Sequences.from_lists([[0, 7]]))
