"""Bad input: every message says what was wrong, where, and what to do."""

import gzip
import re

import polars as pl
import pytest

from tesserec.data import PrepareConfig, from_frames, prepare
from tesserec.errors import ConfigError, DataError


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
