"""What preparation keeps, drops and reports."""

import json

import numpy as np
import polars as pl
import pytest

from tesserec.config import build, to_dict
from tesserec.data import Dataset, PrepareConfig, from_frames, leave_one_out, prepare
from tesserec.errors import ConfigError, DataError

LOG = pl.DataFrame(
    [
        ("u1", "a", 10, 5.0), ("u1", "a", 10, 5.0), ("u1", "b", 20, 2.0), ("u1", "a", 30, 4.0),
        ("u2", "c", 5, 5.0), ("u2", "b", 5, 4.0), ("u3", "a", 7, 1.0),
    ],
    schema=["user_id", "item_id", "timestamp", "rating"], orient="row",
)  # fmt: skip
ITEMS = pl.DataFrame({"item_id": ["z", "c", "b", "a"], "title": ["never bought", "C", None, "A"]})


def told(dataset):
    ids = dataset.catalogue.item_ids
    return {
        user: "".join(ids[item] for item in row) for user, row in zip(dataset.user_ids, dataset.sequences, strict=True)
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"u1": "aba", "u2": "cb", "u3": "a"}),
        ({"repeats": "keep"}, {"u1": "aaba", "u2": "cb", "u3": "a"}),
        ({"repeats": "first"}, {"u1": "ab", "u2": "cb", "u3": "a"}),
        ({"repeats": "last"}, {"u1": "ba", "u2": "cb", "u3": "a"}),
        ({"min_rating": 4.0}, {"u1": "aa", "u2": "cb"}),
        ({"items_without_text": "drop"}, {"u1": "aa", "u2": "c", "u3": "a"}),
        ({"k_core": 2}, {"u1": "aa"}),  # without c, u2 has one event left; without u2, b has
        ({"k_core": 2, "repeats": "first", "items_without_text": "keep"}, None),
    ],
)
def test_policies(settings, expected):
    if expected is None:
        with pytest.raises(
            DataError, match=r"Nothing of the frame of interactions is left: read: 3 users.*Lower k_core"
        ):
            from_frames(LOG, ITEMS, config=PrepareConfig(**settings))
    else:
        assert told(from_frames(LOG, ITEMS, config=PrepareConfig(**settings))) == expected


def test_the_report_counts_what_every_step_dropped():
    dataset = from_frames(LOG, ITEMS, config=PrepareConfig(min_rating=2.0, k_core=2))
    stages = [(row["stage"], row["interactions"], row["dropped"]) for row in dataset.report["stages"]]
    assert stages == [("read", 7, 0), ("rated 2 or more", 6, 1), ("repeats: exact", 5, 1), ("2-core", 2, 3)]
    assert dataset.report["items"] == {"kept": 1, "kept_without_text": 0, "kept_without_events": 0, "dropped": 3}
    assert dataset.report["users_with_fewer_than_3_events"] == 1


def test_items_keep_the_order_of_their_table_and_those_never_bought_can_stay():
    assert from_frames(LOG, ITEMS).catalogue.item_ids == ("c", "b", "a")
    dataset = from_frames(LOG, ITEMS, config=PrepareConfig(items_without_events="keep"))
    assert dataset.catalogue.item_ids == ("z", "c", "b", "a")
    assert dataset.report["items"]["kept_without_events"] == 1
    assert told(dataset) == {"u1": "aba", "u2": "cb", "u3": "a"}


def test_items_without_text_do_not_stay_as_items_without_events():
    config = PrepareConfig(items_without_events="keep", items_without_text="drop")
    assert from_frames(LOG, ITEMS, config=config).catalogue.item_ids == ("z", "c", "a")


def test_the_order_of_unlisted_items_depends_on_neither_the_log_nor_the_names():
    names = [f"item{number:03d}" for number in range(300)]
    forward = from_frames(pl.DataFrame({"user": ["u"] * 300, "item": names})).catalogue.item_ids
    backward = from_frames(pl.DataFrame({"user": ["u"] * 300, "item": names[::-1]})).catalogue.item_ids
    assert forward == backward
    order = np.array([names.index(name) for name in forward])
    assert abs(np.corrcoef(order, np.arange(300))[0, 1]) < 0.2


def test_items_missing_from_the_table_follow_it_without_text():
    dataset = from_frames(LOG, ITEMS.filter(pl.col("item_id") == "b"))
    assert dataset.catalogue.item_ids[0] == "b"
    assert dataset.items["title"].to_list() == ["", "", ""]
    assert dataset.report["items"]["kept_without_text"] == 3


def test_tied_times_are_counted():
    report = from_frames(LOG, ITEMS).report["order"]
    assert report == {
        "by": "time", "ties": "file", "events_tied_with_the_one_before": 1, "users_whose_last_two_events_are_tied": 1,
    }  # fmt: skip


def test_a_saved_data_set_is_memory_mapped_and_the_same(tmp_path):
    source = tmp_path / "log.csv"
    LOG.write_csv(source)
    config = PrepareConfig(k_core=2)
    plain, saved = prepare(source, config=config), prepare(source, config=config, out=tmp_path / "out")
    assert isinstance(saved.sequences.values, np.memmap)
    assert isinstance(saved.sequences.times, np.memmap)
    assert saved.fingerprint == plain.fingerprint
    assert told(saved) == told(plain)
    assert saved.items.equals(plain.items)
    assert saved.report == plain.report == json.loads((tmp_path / "out" / "report.json").read_text())
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert build(PrepareConfig, manifest["config"], where="manifest") == config


def test_users_with_fewer_than_three_events_train_and_are_not_evaluated():
    dataset = from_frames(LOG, ITEMS)
    assert dataset.report["users_with_fewer_than_3_events"] == 2
    split = leave_one_out(dataset)
    assert split.test.users.tolist() == [0]
    assert split.train.lengths.tolist() == [1, 2, 1]
    with pytest.raises(DataError, match="None of the 2 users has 3 events"):
        leave_one_out(from_frames(LOG.filter(pl.col("user_id") != "u1")))


def test_preparing_tells_what_it_finds():
    class Listener:
        said: list[str] = []  # noqa: RUF012

        def say(self, message):
            self.said.append(message)

    from_frames(LOG, ITEMS, progress=Listener())
    assert "read: 3 users, 3 items, 7 interactions" in Listener.said
    assert "repeats: exact: 3 users, 3 items, 6 interactions (1 dropped)" in Listener.said


def test_config_round_trips_and_refuses_nonsense():
    config = PrepareConfig(columns=("user=u",), k_core=5, min_rating=4.0)
    assert build(PrepareConfig, to_dict(config), where="prepare") == config
    assert build(PrepareConfig, {"columns": "user=u,item=i", "k_core": "5"}, where="prepare").columns == (
        "user=u",
        "item=i",
    )
    with pytest.raises(ConfigError, match=r"k_core is 0. Use 1"):
        PrepareConfig(k_core=0)
    with pytest.raises(ConfigError, match=r"no role 'usr'. Did you mean 'user'"):
        PrepareConfig(columns=("usr=x",))
    with pytest.raises(ConfigError, match="Write role=column"):
        PrepareConfig(columns=("user",))
    with pytest.raises(ConfigError, match=r"prepare: there is no setting 'kcore'. Did you mean 'k_core'"):
        build(PrepareConfig, {"kcore": 5}, where="prepare")


def test_the_same_source_gives_the_same_fingerprint_and_another_log_another():
    assert from_frames(LOG, ITEMS).fingerprint == from_frames(LOG, ITEMS).fingerprint
    assert from_frames(LOG, ITEMS).fingerprint != from_frames(LOG.head(6), ITEMS).fingerprint


def test_a_loaded_data_set_reads_texts_only_when_asked(tmp_path):
    from_frames(LOG, ITEMS).save(tmp_path / "out")
    loaded = Dataset.load(tmp_path / "out")
    assert "items" not in vars(loaded)
    assert loaded.items["title"].to_list() == ["C", "", "A"]
