"""Splits by hand: what may be seen, and what is asked."""

import numpy as np
import polars as pl
import pytest

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
    with pytest.raises(ArtifactError, match=r"holds no manifest.json"):
        Dataset.load(tmp_path / "nothing")
    folder = tmp_path / "data"
    dataset().save(folder)
    np.save(folder / "values.npy", np.zeros(5, dtype=np.int32))
    with pytest.raises(ArtifactError, match=r"is damaged: its manifest counts .* its files "):
        Dataset.load(folder)
    (folder / "values.npy").unlink()
    with pytest.raises(ArtifactError, match=r"is damaged: .*values.npy.*Prepare the data again"):
        Dataset.load(folder)
