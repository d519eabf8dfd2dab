"""Bad input: every message says what was wrong, where, and what to do."""

import gzip
import re

import pandas as pd
import polars as pl
import pytest

from tesserec.data import PrepareConfig, from_frames, prepare
from tesserec.errors import ArtifactError, ConfigError, DataError


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


GOOD = "user_id,item_id,timestamp\nu1,a,1\n"


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"There is no file or folder .*nowhere.csv. Check the path"):
        prepare(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match=r"There is no file or folder .*items.csv"):
        prepare(write(tmp_path, "log.csv", GOOD), items=tmp_path / "items.csv")


def test_unknown_format(tmp_path):
    with pytest.raises(ConfigError, match=r"no format of data called 'recbowl'. Did you mean 'recbole'"):
        prepare(write(tmp_path, "log.csv", GOOD), config=PrepareConfig(format="recbowl"))


def test_a_column_that_does_not_exist_is_answered_with_those_that_do(tmp_path):
    log = write(tmp_path, "log.csv", GOOD)
    expected = (
        r"log.csv has no column 'userid' \(wanted for the user\). Did you mean 'user_id'\? Its columns are 'user_id', "
    )
    with pytest.raises(DataError, match=expected):
        prepare(log, config=PrepareConfig(columns=("user=userid",)))
    items = write(tmp_path, "things.csv", "item_id,title\na,A\n")
    with pytest.raises(DataError, match=r"no column 'name'. Its columns are 'item_id', 'title'"):
        prepare(log, items=items, config=PrepareConfig(text_columns=("name",)))


def test_a_log_whose_columns_are_not_known_says_how_to_name_them(tmp_path):
    log = write(tmp_path, "log.csv", "who,item_id\nu1,a\n")
    with pytest.raises(
        DataError, match=r"none of the columns 'who', 'item_id' is known to hold the user.*--columns user=COLUMN"
    ):
        prepare(log)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", "", "log.csv is empty, or its first line is. It should begin with a line of column names"),
        ("log.csv", "user_id,item_id\n", "log.csv holds no usable event"),
        ("log.jsonl", "\n", "holds no JSON object"),
        ("log.inter.json", "{}", "holds no usable event"),
        ("log.inter", "user_id:token\titem_id:token\n", "holds no usable event"),
    ],
)
def test_empty_data(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        prepare(write(tmp_path, name, content))


def test_nothing_left_after_k_core_shows_where_it_went(tmp_path):
    with pytest.raises(
        DataError, match=r"is left: read: 1 users, 1 items, 1 interactions; .*; 5-core: 0 users.*Lower k_core"
    ):
        prepare(write(tmp_path, "log.csv", GOOD), config=PrepareConfig(k_core=5))


MALFORMED = [
    ("log.csv", GOOD + "u1,b\nu1,c,3\n", 3, "2 fields where 3 are expected: 'u1,b'."),
    ("log.csv", GOOD + "\nu1,b,2,9\nu1,c,3\n", 4, "4 fields where 3 are expected: 'u1,b,2,9'."),
    ("log.csv", GOOD + "\n,b,2\nu1,c,3\n", 4, "the user (column 'user_id') is missing."),
    ("log.csv", GOOD + "u1,b,yesterday\nu1,c,3\n", 3, "timestamp 'yesterday' is neither a number nor a date"),
    ("log.csv", GOOD + "u1,b,\nu1,c,3\n", 3, "timestamp '' is neither a number nor a date"),
    ("log.csv", GOOD + "u1,b,nan\nu1,c,3\n", 3, "timestamp 'nan' is neither a number nor a date"),
    ("log.inter", "user_id:token\titem_id:token\nu1\ta\nu1\nu1\tc\n", 3, "1 fields where 2 are expected"),
    ("log.jsonl", '{"user": 1, "item": "a"}\n{"user": 1, \n{"user": 1, "item": "c"}\n', 2, "not valid JSON"),
    ("log.jsonl", '{"user": 1, "item": "a"}\n[1]\n{"user": 1, "item": "c"}\n', 2, "a list, not a JSON object."),
    ("log.jsonl", '{"user": 1, "item": "a"}\n{"user": 1}\n{"user": 1, "item": "c"}\n', 2,
     "the item (column 'item') is missing"),
    ("log.jsonl", '{"user": 1, "item": "a"}\n{"user": 1, "item": [2]}\n{"user": 1, "item": "c"}\n', 2,
     "'[2]' is no id: ids are text or whole numbers."),
    ("log.jsonl", '{"user": 1, "item": "a"}\n{"user": 1, "item": 1.5}\n{"user": 1, "item": "c"}\n', 2,
     "'1.5' is no id"),
    ("log.jsonl", '{"user": 1, "item": "a"}\n{"user": ' + "[" * 9999 + '\n{"user": 1, "item": "c"}\n', 2,
     "not valid JSON (it is nested too deeply)"),
    ("ml/ratings.dat", "1::a::5::978300760\n1::b::5\n1::c::5::978300761\n", 2,
     "5 fields where 7 are expected: '1::b::5'."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "line", "problem"), MALFORMED)
def test_a_malformed_line_is_named_or_skipped_and_counted(tmp_path, name, content, line, problem):
    path = write(tmp_path, name, content)
    expected = f"{path}, line {line}: {problem}"
    with pytest.raises(DataError, match=re.escape(expected)) as caught:
        prepare(path)
    assert "--on-error skip" in str(caught.value)
    dataset = prepare(path, config=PrepareConfig(on_error="skip"))
    assert [dataset.catalogue.item_ids[item] for item in dataset.sequences[0]] == ["a", "c"]
    assert dataset.report["lines_skipped"]["count"] == 1
    assert dataset.report["lines_skipped"]["examples"][0].startswith(expected)


def test_ratings_must_be_numbers_only_where_a_filter_asks_for_them(tmp_path):
    path = write(tmp_path, "log.csv", "user_id,item_id,rating\nu1,a,5\nu1,b,good\nu1,c,\n")
    assert prepare(path).n_interactions == 3
    with pytest.raises(DataError, match=r"log.csv, line 3: rating 'good' is not a number."):
        prepare(path, config=PrepareConfig(min_rating=3.0))
    dataset = prepare(path, config=PrepareConfig(min_rating=3.0, on_error="skip"))
    assert dataset.n_interactions == 1
    assert dataset.report["lines_skipped"]["count"] == 2


def test_of_many_malformed_lines_all_are_counted_and_the_first_are_shown(tmp_path):
    path = write(tmp_path, "log.csv", GOOD + "u1,b,never\n" * 20)
    skipped = prepare(path, config=PrepareConfig(on_error="skip")).report["lines_skipped"]
    assert skipped["count"] == 20
    assert len(skipped["examples"]) == 5


def test_lines_skipped_before_do_not_shift_the_number_of_a_later_line(tmp_path):
    path = write(tmp_path, "log.csv", GOOD + "\nu1\nu1,b,2\nu1,c,never\n")
    dataset = prepare(path, config=PrepareConfig(on_error="skip"))
    assert [example.split(":")[0] for example in dataset.report["lines_skipped"]["examples"]] == [
        f"{path}, line 4", f"{path}, line 6",
    ]  # fmt: skip


def test_a_table_of_items_with_a_broken_line(tmp_path):
    write(tmp_path, "log.csv", GOOD)
    items = write(tmp_path, "things.jsonl", '{"item": "a", "title": "A"}\n{"item": "b", \n')
    with pytest.raises(DataError, match=r"things.jsonl, line 2: not valid JSON"):
        prepare(tmp_path / "log.csv", items=items)


def test_logs_of_two_formats_in_a_folder_are_listed_unless_one_is_asked_for(tmp_path):
    write(tmp_path, "a.inter", "user_id:token\titem_id:token\ttimestamp:float\nu1\ta\t1\n")
    write(tmp_path, "log.csv", GOOD)
    with pytest.raises(DataError, match=r"logs of two formats: a.inter, and log.csv of format 'table'. Give the one"):
        prepare(tmp_path)
    assert len(prepare(tmp_path, config=PrepareConfig(format="recbole")).catalogue) == 1


ITEMS = "item_id,title\na,A\n"
NO_TABLES = [
    ("items.csv", "", "items.csv is empty"),
    ("items.csv", "item_id,títle\n".encode("latin-1"), "items.csv is not UTF-8 text"),
    ("items.parquet", b"no parquet", "items.parquet is not a Parquet file"),
    ("items.jsonl", '{"item_id": \n', "items.jsonl holds no JSON object"),
    ("items.csv.gz", b"no gzip", "items.csv.gz cannot be decompressed"),
]


@pytest.mark.parametrize(("name", "content", "problem"), NO_TABLES)
def test_a_file_beside_the_log_that_cannot_be_read_is_refused_unless_the_items_are_known(
    tmp_path, name, content, problem
):
    write(tmp_path / "raw", "log.csv", GOOD)
    path = write(tmp_path / "raw", name, content)
    with pytest.raises(DataError, match=rf"{problem}.*may be its table of items: .*--items, or give .*log.csv itself"):
        prepare(tmp_path / "raw")
    items = write(tmp_path, "things.csv", ITEMS)
    files = prepare(tmp_path / "raw", items=items).report["files"]
    assert re.search(rf"ignored: .*{problem}", files[str(path)])
    assert len(prepare(tmp_path / "raw" / "log.csv").catalogue) == 1


def test_files_that_are_not_read_are_named_with_the_reason(tmp_path):
    write(tmp_path, "log.csv", GOOD)
    write(tmp_path, "notes.md", "mine")
    path = write(tmp_path, "items.csv", "code,title\na,A\n")
    files = prepare(tmp_path).report["files"]
    assert "none of its columns 'code', 'title' is known to hold the item's id" in files[str(path)]
    assert files[str(tmp_path / "notes.md")].startswith("ignored")
    named = prepare(tmp_path, config=PrepareConfig(columns=("item_id=code",)))
    assert named.items["title"].to_list() == ["A"]
    write(tmp_path, "log.inter", "user_id:token\titem_id:token\nu\ta\n")
    (tmp_path / "log.csv").unlink()
    assert "--items" in prepare(tmp_path).report["files"][str(path)]


def test_a_table_of_other_items_than_those_of_the_log_is_refused(tmp_path):
    write(tmp_path, "log.csv", GOOD + "u1,b,2\n")
    write(tmp_path, "items.csv", "item_id,title\nA-1,A\n")
    with pytest.raises(
        DataError,
        match=r"None of the 2 items of the log .* such as \['a', 'b'\], the table \['A-1'\]. Name the columns",
    ):
        prepare(tmp_path)
    write(tmp_path, "items.csv", ITEMS)
    assert "1 of 2 items of the log are not in the table of items" in prepare(tmp_path).report["notes"]


def test_where_the_result_cannot_be_written_nothing_is_read(tmp_path):
    (tmp_path / "taken").write_text("mine")
    for out in (tmp_path / "taken", tmp_path / "taken" / "data"):
        with pytest.raises(ArtifactError, match="taken is "):
            prepare(tmp_path / "nowhere.csv", out=out)


@pytest.mark.parametrize("settings", [{"min_rating": float("nan")}, {"min_rating": float("inf")}, {"seed": -1}])
def test_numbers_that_no_filter_can_use_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        PrepareConfig(**settings)


LOG = {"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": [5, 7]}
UNUSABLE = [
    (
        "item_id",
        pl.Series([["a"], ["b"]]),
        r"column 'item_id' is of type List\(String\), but ids must be text or whole",
    ),
    ("item_id", pl.Series([{"x": 1}, {"x": 2}]), "column 'item_id' is of type Struct"),
    ("item_id", pl.Series([b"\xff", b"b"]), "column 'item_id' is of type Binary"),
    ("user_id", pl.Series([True, False]), "column 'user_id' is of type Boolean.*--columns user=COLUMN"),
    ("user_id", pl.Series([1.0, 1.5]), "row 2: user_id is 1.5. Ids must be text or whole numbers"),
    ("user_id", pl.Series([1.0, float("inf")]), "row 2: user_id is inf"),
    ("user_id", pl.Series([1.0, 1e20]), r"row 2: user_id is 1e\+20"),
    ("timestamp", pl.Series([[1], [2]]), r"column 'timestamp' is of type List.*times are numbers or dates"),
    ("timestamp", pl.Series([b"1", b"2"]), "column 'timestamp' is of type Binary"),
    ("timestamp", pl.Series([True, False]), "column 'timestamp' is of type Boolean"),
    ("timestamp", pl.Series([1, 2], dtype=pl.Duration("us")), "column 'timestamp' is of type Duration"),
    ("rating", pl.Series([[1], [2]]), "column 'rating' is of type List.*numbers are wanted"),
]


@pytest.mark.parametrize(("column", "values", "message"), UNUSABLE)
def test_columns_of_a_type_that_cannot_play_their_role(tmp_path, column, values, message):
    pl.DataFrame({**LOG, column: values}).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=rf"log.parquet, .*{message}"):
        prepare(tmp_path / "log.parquet", config=PrepareConfig(min_rating=1.0 if column == "rating" else None))


class Odd:
    """No value of a table."""


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"user": [Odd(), Odd()], "item": ["a", "b"]}), "frame of interactions cannot be read: "),
        (pd.DataFrame({"user": [1, "a"], "item": ["a", "b"]}), "frame of interactions cannot be read: "),
        (pd.DataFrame([["u", "a", "b"]], columns=["user", "item", "item"]), "Give columns of different names"),
        (pl.DataFrame({"user": pl.Series([Odd()], dtype=pl.Object), "item": ["a"]}), "column 'user' is of type Object"),
        ({"user": ["u"], "item": ["a"]}, "is a dict. Give a Polars or pandas frame"),
    ],
)
def test_frames_with_values_that_are_none(frame, message):
    with pytest.raises(DataError, match=message):
        from_frames(frame)


def test_texts_that_are_objects_or_nested_without_end():
    log = pl.DataFrame({"user": ["u"], "item": ["a"]})
    items = pl.DataFrame({"item": ["a"], "title": pl.Series([Odd()], dtype=pl.Object)})
    with pytest.raises(DataError, match="frame of items: column 'title' holds Python objects"):
        from_frames(log, items)


def test_text_that_is_nested_too_deeply(tmp_path):
    deep = '{"a":' * 600 + "1" + "}" * 600
    write(tmp_path, "log.csv", GOOD)
    write(tmp_path, "items.jsonl", f'{{"item_id": "a", "title": {deep}}}\n')
    with pytest.raises(DataError, match=r"items.jsonl: a value of column 'title' is nested too deeply"):
        prepare(tmp_path)
    with pytest.raises(DataError, match=r"x.inter.json: not valid JSON \(it is nested too deeply\)"):
        prepare(write(tmp_path, "x.inter.json", "[" * 100_000))


def test_two_logs_in_a_folder_are_listed(tmp_path):
    write(tmp_path, "train.csv", GOOD)
    write(tmp_path, "test.csv", GOOD)
    with pytest.raises(DataError, match=r"holds 2 logs of format 'table': test.csv, train.csv. Give the one to read"):
        prepare(tmp_path)


def test_two_tables_of_items_in_a_folder_are_listed(tmp_path):
    write(tmp_path, "log.csv", GOOD)
    write(tmp_path, "a.csv", "item_id,title\na,A\n")
    write(tmp_path, "b.csv", "item_id,title\na,A\n")
    with pytest.raises(DataError, match=r"2 tables that could describe the items: a.csv, b.csv. Name one with --items"):
        prepare(tmp_path)


def test_a_folder_without_a_log_is_described(tmp_path):
    write(tmp_path, "notes.md", "x")
    write(tmp_path, "data.csv", "who,what\n1,2\n")
    write(tmp_path, "empty.csv", "")
    with pytest.raises(DataError, match="not recognised") as caught:
        prepare(tmp_path)
    for shown in (
        "data.csv (who, what)",
        "notes.md",
        "empty.csv is empty",
        "--columns user=COLUMN",
        "--format (recbole, ",
    ):
        assert shown in str(caught.value)


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="It holds: no files"):
        prepare(tmp_path)


def test_a_prepared_data_set_is_no_source(tmp_path):
    prepare(write(tmp_path, "log.csv", GOOD), out=tmp_path / "out")
    with pytest.raises(DataError, match=r"out is an artefact of ours already"):
        prepare(tmp_path / "out")


def test_a_file_that_is_not_of_the_format_it_is_said_to_be(tmp_path):
    path = write(tmp_path, "log.csv", GOOD)
    with pytest.raises(DataError, match=r"log.csv is no log of MovieLens: its name would be u.data or"):
        prepare(path, config=PrepareConfig(format="movielens"))
    with pytest.raises(DataError, match=r"log.csv, line 1: not valid JSON"):
        prepare(path, config=PrepareConfig(format="letter"))
    with pytest.raises(DataError, match=r"none of the columns 'user_id,item_id,timestamp' is known to hold the user"):
        prepare(path, config=PrepareConfig(format="recbole"))
    with pytest.raises(DataError, match=r"holds no JSON object"):
        prepare(write(tmp_path, "log.jsonl", "not JSON\n"), config=PrepareConfig(format="amazon"))


def test_text_of_another_encoding_and_damaged_files(tmp_path):
    with pytest.raises(DataError, match=r"is not UTF-8 text. Convert it"):
        prepare(write(tmp_path, "log.csv", GOOD.encode() + "u1,é,3\n".encode("latin-1")))
    with pytest.raises(DataError, match="cannot be decompressed"):
        prepare(write(tmp_path, "log.csv.gz", gzip.compress(GOOD.encode() * 1000)[:60]))
    with pytest.raises(DataError, match="cannot be decompressed"):
        prepare(write(tmp_path, "log.jsonl.gz", b"no gzip"))
    with pytest.raises(DataError, match="is not a Parquet file"):
        prepare(write(tmp_path, "log.parquet", b"no parquet"))
    with pytest.raises(DataError, match=r"Toys.inter.json, line 1: not valid JSON"):
        prepare(write(tmp_path, "Toys.inter.json", '{"0": [1,'))
    with pytest.raises(DataError, match="the history of user '0' is 7"):
        prepare(write(tmp_path, "Toys.inter.json", '{"0": 7}'))
    with pytest.raises(DataError, match="holds a JSON list"):
        prepare(write(tmp_path, "Toys.inter.json", "[]"))


def test_histories_that_were_cut_already_are_refused(tmp_path):
    path = write(tmp_path, "x.train.inter", "user_id:token\titem_id_list:token_seq\titem_id:token\nu\ta b\tc\n")
    with pytest.raises(DataError, match="holds one history per line"):
        prepare(path)


def test_min_rating_needs_ratings():
    with pytest.raises(ConfigError, match="min_rating is set, but no column of ratings was found"):
        from_frames(pl.DataFrame({"user": [1], "item": [1]}), config=PrepareConfig(min_rating=3.0))


def test_one_column_name_twice(tmp_path):
    with pytest.raises(DataError, match="column name 'item_id' occurs more than once"):
        prepare(write(tmp_path, "log.csv", "user_id,item_id,item_id\nu,a,b\n"))
