"""Every kind of source, in small, as the real files are written."""

import gzip
import json

import polars as pl
import pytest

from tesserec.data import PrepareConfig, from_frames, prepare
from tesserec.errors import DataError


def write(folder, name, content):
    path = folder / name
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def histories(dataset):
    """User id -> item ids, oldest first."""
    rows = dataset.sequences
    return {
        user: [dataset.catalogue.item_ids[item] for item in row]
        for user, row in zip(dataset.user_ids, rows, strict=True)
    }


def texts(dataset):
    return {row.pop("item_id"): row for row in dataset.items.to_dicts()}


LOG = "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu2\ta\t5\t30\nu1\tb\t4\t20\nu1\ta\t3.5\t1e1\n"
ITEMS = (
    'item_id:token\ttitle:token_seq\tprice:float\tvector:float_seq\nb\tThe "B" &amp; C\t3\t0.1 0.2\na\tA\t\t0.3 0.4\n'
)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_recbole_files(tmp_path, end):
    write(tmp_path, f"shop.inter{end}", LOG)
    write(tmp_path, f"shop.item{end}", ITEMS)
    write(tmp_path, "shop.user", "user_id:token\tage:float\nu1\t30\n")
    dataset = prepare(tmp_path)
    assert histories(dataset) == {"u2": ["a"], "u1": ["a", "b"]}
    assert dataset.catalogue.item_ids == ("b", "a")  # as in the item file
    assert texts(dataset) == {"b": {"title": 'The "B" & C', "price": "3"}, "a": {"title": "A", "price": ""}}
    assert dataset.sequences.times.tolist() == [30, 10, 20]
    assert dataset.report["format"] == "recbole"
    assert dataset.report["files"][str(tmp_path / "shop.user")] == "user attributes, not used"


def test_letter_files_where_the_index_is_no_log(tmp_path):
    write(tmp_path, "Toys.inter.json", '{"0": [2, 0, 2], "1": [1]}')
    write(tmp_path, "Toys.item.json", '{"0": {"title": "zero", "brand": null}, "1": {"title": "one"}}')
    write(tmp_path, "Toys.index.json", '{"0": ["<a_1>"], "1": ["<a_2>"], "2": ["<a_3>"]}')
    dataset = prepare(tmp_path)
    assert histories(dataset) == {"0": ["2", "0", "2"], "1": ["1"]}
    assert texts(dataset) == {
        "0": {"title": "zero", "brand": ""}, "1": {"title": "one", "brand": ""}, "2": {"title": "", "brand": ""},
    }  # fmt: skip
    assert dataset.report["items"]["kept_without_text"] == 1
    assert "semantic IDs" in dataset.report["files"][str(tmp_path / "Toys.index.json")]


def test_without_an_item_file_the_keys_of_the_letter_index_give_the_order_of_items(tmp_path):
    write(tmp_path, "Toys.inter.json", '{"0": [10, 2, 1]}')
    write(tmp_path, "Toys.index.json", json.dumps({str(item): ["<a_0>"] for item in (1, 2, 10)}))
    assert prepare(tmp_path).catalogue.item_ids == ("1", "2", "10")


def test_without_an_item_file_the_attributes_are_the_texts_of_letter_items(tmp_path):
    write(tmp_path, "Toys.inter.json", '{"0": [10, 2, 1, 3]}')
    write(tmp_path, "Toys.attributes.json", '{"10": [7], "2": [5, 7, null], "1": []}')
    dataset = prepare(tmp_path)
    words = {"10": "attribute_7", "2": "attribute_5, attribute_7", "1": "", "3": ""}
    assert texts(dataset) == {item: {"attributes": text} for item, text in words.items()}
    write(tmp_path, "Toys.index.json", json.dumps({str(item): ["<a_0>"] for item in (1, 2, 3, 10)}))
    ordered = prepare(tmp_path)
    assert ordered.catalogue.item_ids == ("1", "2", "3", "10")
    assert texts(ordered) == texts(dataset)
    write(tmp_path, "Toys.attributes.json", '{"10": 7}')
    with pytest.raises(DataError, match=r"Toys.attributes.json: the attributes of item '10' are 7"):
        prepare(tmp_path)
    write(tmp_path, "Toys.item.json", '{"10": {"title": "a spade"}}')
    assert prepare(tmp_path).items.columns == ["item_id", "title"]  # texts are better than numbers


REVIEWS_2014 = [
    {"reviewerID": "A1", "asin": "B2", "helpful": [0, 1], "reviewText": "x", "overall": 5.0, "unixReviewTime": 200},
    {"reviewerID": "A1", "asin": "B1", "helpful": [0, 0], "reviewText": "y", "overall": 3.0, "unixReviewTime": 100},
]
META_2014 = [
    """{'asin': 'B1', 'title': "Men's &amp; Boys' hat", 'categories': [['Clothing', 'Hats'], ['Clothing', 'Men']]}""",
    "{'asin': 'B2', 'brand': 'Sega', 'categories': [['Games']], 'description': 'Fun.', 'related': {'bought': ['B1']}}",
    "{'asin': 'B9', 'title': 'never reviewed', 'categories': [[]]}",
]


def lines(records):
    return "".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records)


def test_amazon_2014_with_metadata_in_python_literals(tmp_path):
    source = write(tmp_path, "reviews_Toys_5.json.gz", lines(REVIEWS_2014))
    write(tmp_path, "meta_Toys.json.gz", lines(META_2014))
    for where in (source, tmp_path):
        dataset = prepare(where)
        assert dataset.report["format"] == "amazon"
        assert histories(dataset) == {"A1": ["B1", "B2"]}
        assert texts(dataset)["B1"] == {
            "title": "Men's & Boys' hat", "brand": "", "categories": "Clothing, Hats, Men", "features": "",
            "description": "",
        }  # fmt: skip
        assert texts(dataset)["B2"]["brand"] == "Sega"
        assert dataset.report["items"] == {"kept": 2, "kept_without_text": 0, "kept_without_events": 0, "dropped": 1}


def test_amazon_2018_with_a_scraped_script_for_a_title(tmp_path):
    write(
        tmp_path,
        "All_Beauty.json.gz",
        lines(
            [{"overall": 5.0, "verified": True, "reviewerID": "A1", "asin": "B1", "unixReviewTime": 100, "style": {}}]
        ),
    )
    meta = {
        "asin": "B1", "title": "var aPageStart = (new Date()).getTime();", "category": ["Beauty", "</span>"],
        "feature": ["Soft.", "Clean"], "description": [], "brand": "Ivory", "also_buy": ["B2"],
    }  # fmt: skip
    write(tmp_path, "meta_All_Beauty.json.gz", lines([meta, meta]))
    dataset = prepare(tmp_path)
    assert texts(dataset)["B1"] == {
        "title": "", "brand": "Ivory", "categories": "Beauty", "features": "Soft. Clean", "description": "",
    }  # fmt: skip
    assert any("repeat an id" in note for note in dataset.report["notes"])


def test_amazon_2023_has_parent_items_and_milliseconds(tmp_path):
    review = {
        "rating": 4.0,
        "title": "ok",
        "asin": "B7",
        "parent_asin": "B1",
        "user_id": "A1",
        "timestamp": 1588687728923,
    }
    write(tmp_path, "All_Beauty.jsonl.gz", lines([review]))
    meta = {
        "title": "Soap",
        "parent_asin": "B1",
        "store": "Ivory",
        "features": [],
        "categories": [],
        "description": ["Big."],
    }
    write(tmp_path, "meta_All_Beauty.jsonl.gz", lines([meta]))
    dataset = prepare(tmp_path)
    assert histories(dataset) == {"A1": ["B1"]}
    assert dataset.sequences.times.tolist() == [1588687728]
    assert texts(dataset)["B1"] == {
        "title": "Soap", "brand": "Ivory", "categories": "", "features": "", "description": "Big.",
    }  # fmt: skip
    assert any("counts ms" in note for note in dataset.report["notes"])


def test_movielens_100k(tmp_path):
    flags = "|".join("1" if place in (3, 5) else "0" for place in range(19))
    write(tmp_path, "u.data", "196\t242\t3\t881250949\n196\t1\t4\t881250940\n")
    write(tmp_path, "u.item", f"1|Misérables, Les (1995)|01-Jan-1995||http://x|{flags}\n".encode("latin-1"))
    write(tmp_path, "u.user", "196|49|M|writer|55105\n")
    dataset = prepare(tmp_path)
    assert dataset.report["format"] == "movielens"
    assert histories(dataset) == {"196": ["1", "242"]}
    assert texts(dataset)["1"] == {"title": "Misérables, Les (1995)", "genres": "Animation, Comedy"}
    assert texts(dataset)["242"] == {"title": "", "genres": ""}


def test_movielens_1m(tmp_path):
    write(tmp_path, "ratings.dat", "1::1193::5::978300760\n1::661::3::978300750\n")
    write(tmp_path, "movies.dat", "661::James: A Peach (1996)::Animation|Children's\n1193::Cuckoo (1975)::Drama\n")
    write(tmp_path, "users.dat", "1::F::1::10::48067\n")
    dataset = prepare(tmp_path, config=PrepareConfig(min_rating=4))
    assert histories(dataset) == {"1": ["1193"]}
    assert texts(dataset) == {"1193": {"title": "Cuckoo (1975)", "genres": "Drama"}}


def test_movielens_20m_and_later_next_to_its_other_tables(tmp_path):
    write(tmp_path, "ratings.csv", "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,3.5,1112484676\n")
    write(
        tmp_path,
        "movies.csv",
        'movieId,title,genres\n2,"Jumanji, the film (1995)",Adventure|Fantasy\n29,X,(no genres listed)\n',
    )
    write(tmp_path, "tags.csv", "userId,movieId,tag,timestamp\n1,2,fun,1240597180\n")
    write(tmp_path, "links.csv", "movieId,imdbId,tmdbId\n1,0114709,862\n")
    dataset = prepare(tmp_path)
    assert histories(dataset) == {"1": ["29", "2"]}
    assert texts(dataset)["2"] == {"title": "Jumanji, the film (1995)", "genres": "Adventure, Fantasy"}
    assert texts(dataset)["29"] == {"title": "X", "genres": ""}


def write_table(folder, stem, kind, rows):
    frame = pl.DataFrame(rows)
    if kind == "parquet":
        frame.write_parquet(folder / f"{stem}.parquet")
    elif kind.startswith("jsonl"):
        write(folder, f"{stem}.{kind}", lines(rows))
    elif kind == "json":
        write(folder, f"{stem}.json", json.dumps(rows, indent=1))
    else:
        separator = {"csv": ",", "csv.gz": ",", "tsv": "\t", "semicolon.csv": ";"}[kind]
        write(folder, f"{stem}.{kind}", frame.write_csv(separator=separator))


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "semicolon.csv", "parquet", "jsonl", "jsonl.gz", "json"])
def test_a_folder_with_a_log_and_an_item_table_of_any_kind(tmp_path, kind):
    log = [{"reviewerID": "u1", "asin": "a", "position": 1}, {"reviewerID": "u1", "asin": "b", "position": 0}]
    write_table(tmp_path, "interactions", kind, log)
    write_table(tmp_path, "items", kind, [{"asin": "b", "title": "B, or not; B\tB"}, {"asin": "a", "title": "A"}])
    dataset = prepare(tmp_path)
    assert histories(dataset) == {"u1": ["b", "a"]}
    assert texts(dataset) == {"b": {"title": "B, or not; B B"}, "a": {"title": "A"}}
    assert dataset.report["columns"]["user"].startswith("'reviewerID' of interactions")
    assert dataset.sequences.times is None  # the positions only number the events


def test_columns_can_be_named(tmp_path):
    log = write(tmp_path, "log.csv", "who,what,rating,when\n1,b,5,2024-05-02\n1,a,5,2024-05-01 10:30:00\n")
    items = write(tmp_path, "things.csv", "sku,name,extra\na,A,x\n")
    config = PrepareConfig(columns=("user=who", "item=what", "time=when", "item_id=sku"), text_columns=("name",))
    dataset = prepare(log, items=items, config=config)
    assert histories(dataset) == {"1": ["a", "b"]}
    assert texts(dataset) == {"a": {"name": "A"}, "b": {"name": ""}}
    assert dataset.sequences.times.tolist() == [1714559400, 1714608000]


def test_a_log_without_a_header_is_read_by_places(tmp_path):
    log = write(tmp_path, "ratings_Toys.csv", "A1,B1,5.0,1400000000\nA1,B2,2.0,1300000000\n")
    dataset = prepare(log, config=PrepareConfig(columns=("user=#1", "item=#2", "rating=#3", "time=#4")))
    assert histories(dataset) == {"A1": ["B2", "B1"]}
    with pytest.raises(DataError, match="no header line, give places: user=#1"):
        prepare(log)


def test_frames_of_polars_and_pandas():
    log = pl.DataFrame({"user": [1, 1], "item": ["a", "b"], "time": [2, 1]})
    items = pl.DataFrame({"item": ["a"], "tags": [["x", "y"]]})
    for convert in (lambda frame: frame, lambda frame: frame.lazy(), lambda frame: frame.to_pandas()):
        dataset = from_frames(convert(log), convert(items))
        assert histories(dataset) == {"1": ["b", "a"]}
        assert texts(dataset)["a"] == {"tags": "x, y"}


def test_whole_ids_that_pandas_made_floats_are_whole_again():
    dataset = from_frames(pl.DataFrame({"user": [1.0, 1.0], "item": [7.0, 8.0]}))
    assert histories(dataset) == {"1": ["7", "8"]}
    with pytest.raises(DataError, match=r"interactions, row 1: item is 8.5. Ids must be text or whole numbers"):
        from_frames(pl.DataFrame({"user": [1.0, 1.0], "item": [7.0, 8.5]}))


def test_dates_of_frames_are_times():
    log = pl.DataFrame({"user": ["u", "u"], "item": ["a", "b"], "day": ["2024-01-02", "2024-01-01"]})
    dataset = from_frames(log.with_columns(pl.col("day").str.to_date()), config=PrepareConfig(columns=("time=day",)))
    assert histories(dataset) == {"u": ["b", "a"]}
    assert dataset.sequences.times.tolist() == [1704067200, 1704153600]


@pytest.mark.parametrize(
    ("values", "unit", "seconds"),
    [
        (["2024-05-01", "2024-05-02 10:30:00", "2024-05-02T10:30"], "auto", [1714521600, 1714645800, 1714645800]),
        (["2024-05-01T10:30:00Z", "2024-05-01T10:30:00+02:00"], "auto", [1714559400, 1714552200]),
        (["1714521600000", "1714521601500"], "auto", [1714521600, 1714521601]),
        ([1714521600000000, 1714521601500000], "auto", [1714521600, 1714521601]),
        ([1714521600000000000], "auto", [1714521600]),
        ([978300760, 1e9], "auto", [978300760, 1000000000]),
        (["9.78300760E8", "978300761"], "auto", [978300760, 978300761]),
        ([5000, 7000], "ms", [5, 7]),
        ([1714521600000], "s", [1714521600000]),
    ],
)
def test_times_become_seconds(values, unit, seconds):
    log = pl.DataFrame(
        {"user": range(len(values)), "item": ["a"] * len(values), "time": pl.Series(values, strict=False)}
    )
    dataset = from_frames(log, config=PrepareConfig(timestamp_unit=unit))
    assert dataset.sequences.times.tolist() == seconds


ZONED = ["2024-01-02T00:00:00+02:00", "2024-01-02T00:00:00Z", "2024-01-02 01:00:00", "2024/01/03", "2024-1-4 5:00:00"]


@pytest.mark.parametrize("order", [1, -1])
def test_dates_may_differ_in_form_from_row_to_row(order):
    dates, seconds = ZONED[::order], [1704146400, 1704153600, 1704157200, 1704240000, 1704344400][::order]
    log = pl.DataFrame({"user": range(len(dates)), "item": ["a"] * len(dates), "time": dates})
    assert from_frames(log).sequences.times.tolist() == seconds


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ([20240102, 20231231], [1704153600, 1703980800]),
        (["20240102", "20231231"], [1704153600, 1703980800]),
        ([202401021230, 202312312359], [1704198600, 1704067140]),
        ([20240102123000, 20231231235959], [1704198600, 1704067199]),
    ],
)
def test_compact_dates_are_dates_and_that_is_noted(values, seconds):
    log = pl.DataFrame({"user": ["u", "v"], "item": ["a", "b"], "time": values})
    dataset = from_frames(log)
    assert dataset.sequences.times.tolist() == seconds
    assert f"column 'time' holds dates such as {values[0]}, not counts of seconds" in dataset.report["notes"]


def test_numbers_that_are_not_all_dates_or_whose_unit_is_said_are_counts():
    log = pl.DataFrame({"user": ["u", "v"], "item": ["a", "b"], "time": [20240102, 20240199]})
    assert from_frames(log).sequences.times.tolist() == [20240102, 20240199]
    log = log.with_columns(time=pl.Series([20240102, 20240103]))
    assert from_frames(log, config=PrepareConfig(timestamp_unit="s")).sequences.times.tolist() == [20240102, 20240103]


def test_13_and_13_point_0_are_one_id_in_json_lines(tmp_path):
    write(
        tmp_path, "log.jsonl", lines([{"user": 1, "item": 13}, {"user": 1.0, "item": 13.0}, {"user": 1, "item": "x"}])
    )
    write(tmp_path, "items.jsonl", lines([{"item": 13.0, "title": "A"}, {"item": "x", "title": "B"}]))
    dataset = prepare(tmp_path, config=PrepareConfig(repeats="keep"))
    assert histories(dataset) == {"1": ["13", "13", "x"]}
    assert texts(dataset) == {"13": {"title": "A"}, "x": {"title": "B"}}


def test_ids_of_letter_histories_are_one_by_one_ids(tmp_path):
    assert histories(prepare(write(tmp_path, "x.inter.json", '{"u": [1, 1.0, "1", 2]}'))) == {"u": ["1", "1", "1", "2"]}
    with pytest.raises(DataError, match=r"x.inter.json: '\[2\]' is no id"):
        prepare(write(tmp_path, "x.inter.json", '{"u": [1, [2]]}'))


def test_ids_and_texts_in_bytes_are_utf_8(tmp_path):
    log = pl.DataFrame({"user": ["u"], "item": ["é".encode()]})
    items = pl.DataFrame({"item": ["é".encode()], "title": [b"<b>A</b>"]})
    assert texts(from_frames(log, items)) == {"é": {"title": "A"}}


@pytest.mark.parametrize(
    ("log", "content", "items", "table"),
    [
        ("LOG.CSV", "user_id,item_id\nu,a\n", "Items.JSONL", '{"item_id": "a", "title": "A"}'),
        ("Log.Csv.gz", "user_id,item_id\nu,a\n", "ITEMS.TSV", "item_id\ttitle\na\tA\n"),
        ("X.INTER", "user_id:token\titem_id:token\nu\ta\n", "X.Item", "item_id:token\ttitle:token\na\tA\n"),
        ("X.Inter.JSON", '{"u": ["a"]}', "x.item.json", '{"a": {"title": "A"}}'),
        ("BOOKS.JSON", '{"reviewerID": "u", "asin": "a", "unixReviewTime": 9}',
         "META_BOOKS.JSON", '{"asin": "a", "title": "A"}'),
        ("RATINGS.DAT", "u::a::5::978300760\n", "Movies.DAT", "a::A::Drama\n"),
    ],
)  # fmt: skip
def test_files_may_be_named_in_capitals(tmp_path, log, content, items, table):
    write(tmp_path, log, content)
    write(tmp_path, items, table)
    dataset = prepare(tmp_path)
    assert histories(dataset) == {"u": ["a"]}
    assert texts(dataset)["a"]["title"] == "A"
