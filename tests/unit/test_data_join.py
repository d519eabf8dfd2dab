"""Several data sets as one: ids, item tables, times, splits, what is refused, and balanced training on the result."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from tesserec.cli.main import app
from tesserec.data import Dataset, Sequences, by_time, join, join_datasets, leave_one_out
from tesserec.errors import ArtifactError, DataError
from tesserec.text.templates import render
from tesserec.training.batching import balanced_order


def shop(rows: list[list[int]], *, times: bool = False, **columns: list[str]) -> Dataset:
    n_items = max(map(max, rows)) + 1
    items = pl.DataFrame({"item_id": [f"i{row}" for row in range(n_items)], **columns})
    sequences = Sequences.from_lists(rows)
    if times:
        sequences = Sequences(sequences.values, sequences.starts, sequences.stops, np.arange(len(sequences.values)))
    return Dataset(items, tuple(f"u{row}" for row in range(len(rows))), sequences)


BOOKS = shop([[0, 1, 2, 1], [2, 0, 1]], title=["Emma", "Ulysses", "Dubliners"])
FILMS = shop([[1, 0, 1]], title=["Vertigo", "Rope"], year=["1958", "1948"])


def test_ids_carry_their_domain_and_rows_follow_each_other():
    joint = join_datasets({"books": BOOKS, "films": FILMS})
    assert joint.catalogue.item_ids == ("books:i0", "books:i1", "books:i2", "films:i0", "films:i1")
    assert joint.user_ids == ("books:u0", "books:u1", "films:u0")
    assert [row.tolist() for row in joint.sequences] == [[0, 1, 2, 1], [2, 0, 1], [4, 3, 4]]
    assert joint.items["year"].to_list() == ["", "", "", "1958", "1948"]
    assert joint.items["domain"].to_list() == ["books"] * 3 + ["films"] * 2
    assert [row["items"] for row in joint.report["joined"]] == [3, 2]


def test_views_of_a_data_set_are_joined_as_they_are():
    part = Dataset(BOOKS.items, ("u1",), BOOKS.sequences.take(np.array([1])))
    assert [row.tolist() for row in join_datasets({"a": part, "b": FILMS}).sequences] == [[2, 0, 1], [4, 3, 4]]


def test_texts_leave_the_domain_out_unless_it_is_named(tmp_path: Path):
    join_datasets({"books": BOOKS, "films": FILMS}).save(tmp_path / "joint")
    items = Dataset.load(tmp_path / "joint").items
    assert render(items)[3] == "Vertigo. 1958"
    assert render(items, "{domain}: {title}")[0] == "books: Emma"


def test_splits_are_those_of_the_parts():
    joint = leave_one_out(join_datasets({"books": BOOKS, "films": FILMS}))
    assert joint.test.targets.tolist() == [1, 1, 4]
    assert joint.validation.targets.tolist() == [2, 0, 3]


def test_times_are_kept_where_all_have_them():
    timed = shop([[0, 1, 0, 1, 0, 1]], times=True)
    joint = join_datasets({"a": timed, "b": timed})
    assert joint.sequences.times is not None
    assert by_time(joint, validation_from=2, test_from=4).test.targets.tolist() == [0, 2]
    mixed = join_datasets({"a": timed, "b": FILMS})
    assert mixed.sequences.times is None
    assert mixed.report["notes"] == ["times are not kept: b has none"]


def test_what_cannot_be_joined_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="There is 1 data set to join"):
        join_datasets({"a": BOOKS})
    with pytest.raises(DataError, match="domain name 'a:b' is empty or holds one of ':,'"):
        join_datasets({"a:b": BOOKS, "c": FILMS})
    with pytest.raises(DataError, match="items of ab have a column 'domain' already"):
        join_datasets({"ab": join_datasets({"a": BOOKS, "b": FILMS}), "c": BOOKS})
    with pytest.raises(DataError, match="do not fit together"):
        join_datasets({"a": FILMS, "b": shop([[0]], year=[["1958"]])})
    for name in ("books", "films"):
        (BOOKS if name == "books" else FILMS).save(tmp_path / name / "data")
    folders = [tmp_path / "books" / "data", tmp_path / "films" / "data"]
    with pytest.raises(DataError, match="More than one data set is called 'data'"):
        join(folders, tmp_path / "joint")
    with pytest.raises(DataError, match="1 names for 2 data sets"):
        join(folders, tmp_path / "joint", names=["books"])
    with pytest.raises(ArtifactError, match=r"holds no manifest.json"):
        join([folders[0], tmp_path], tmp_path / "joint")
    join(folders, tmp_path / "joint", names=["books", "films"])
    with pytest.raises(ArtifactError, match="joint exists"):
        join(folders, tmp_path / "joint", names=["books", "films"])


def test_the_command_line_joins(tmp_path: Path):
    BOOKS.save(tmp_path / "books")
    FILMS.save(tmp_path / "films")
    arguments = ["join", str(tmp_path / "books"), str(tmp_path / "films"), "--out"]
    told = CliRunner().invoke(app, [*arguments, str(tmp_path / "joint")])
    assert "saved to" in told.stdout
    named = CliRunner().invoke(app, [*arguments, str(tmp_path / "named"), "--names", "a,b", "--json"])
    assert json.loads(named.stdout)["sizes"] == {"users": 3, "items": 5, "interactions": 10}
    assert Dataset.load(tmp_path / "named").catalogue.item_ids[0] == "a:i0"
    again = CliRunner().invoke(app, [*arguments, str(tmp_path / "joint")])
    assert again.exit_code == 2
    assert "joint exists" in again.stderr


def test_a_balanced_order_has_as_many_rows_of_each_domain():
    domains = np.repeat([0, 1, 2], [80, 15, 5])
    order = balanced_order(domains, np.random.default_rng(0))
    assert Counter(domains[order].tolist()) == {0: 34, 1: 34, 2: 34}
    times = Counter(order.tolist())
    assert all(times[row] <= 1 for row in range(80))
    assert all(times[row] in (2, 3) for row in range(80, 95))
    assert all(times[row] in (6, 7) for row in range(95, 100))
    assert np.array_equal(order, balanced_order(domains, np.random.default_rng(0)))
    assert not np.array_equal(order, balanced_order(domains, np.random.default_rng(1)))
