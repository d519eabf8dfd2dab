"""Attributes of items: what counts as one, and what data without any gets told."""

import polars as pl
import pytest

from tesserec.errors import ConfigError, DataError
from tesserec.text.attributes import Attributes, column_attributes, word_attributes


def named(attributes: Attributes) -> list[list[str]]:
    return [[attributes.names[row] for row in rows] for rows in attributes.of_items]


def test_values_of_columns_are_split_and_shared_ones_kept():
    items = pl.DataFrame({
        "item_id": ["a", "b", "c"],
        "category": ["toys| red ", "toys", None],
        "brand": ["toys", "toys", "lonely"],
    })  # fmt: skip
    found = column_attributes(items, ["category", "brand"], separator="|")
    assert found.names == ("brand: toys", "category: toys")
    assert named(found) == [["brand: toys", "category: toys"], ["brand: toys", "category: toys"], []]


def test_lists_are_several_values_and_a_comma_in_them_is_none():
    items = pl.DataFrame({"item_id": ["a", "b"], "tags": [["x, y", "z"], ["z", "x, y", ""]]})
    assert named(column_attributes(items, ["tags"])) == [["tags: x, y", "tags: z"]] * 2


def test_without_separator_a_field_is_one_value():
    items = pl.DataFrame({"item_id": ["a", "b"], "brand": ["A, B", "A, B"]})
    assert column_attributes(items, ["brand"], separator="").names == ("brand: A, B",)


def test_the_most_frequent_are_kept():
    items = pl.DataFrame({"item_id": list("abcd"), "c": ["x,y", "x,y", "x,z", "z"]})
    assert column_attributes(items, ["c"], at_most=2).names == ("c: x", "c: y")


def test_words_of_too_many_items_or_of_one_are_no_attributes():
    rows = [
        f"The thing {'red' if row % 5 == 0 else 'blue' if row % 5 == 1 else ''} number{row} w{'abcdefghij'[row]}"
        for row in range(10)
    ]
    found = word_attributes(pl.DataFrame({"item_id": [str(row) for row in range(10)], "title": rows}))
    assert found.names == ("blue", "red")
    assert named(found) == [["red"], ["blue"], [], [], []] * 2


def test_fingerprints_tell_attributes_apart():
    items = pl.DataFrame({"item_id": list("ab"), "c": ["x,y", "x,y"], "d": ["x", "x"]})
    one, other = column_attributes(items, ["c"]), column_attributes(items, ["d"])
    assert one.fingerprint == column_attributes(items, ["c"]).fingerprint != other.fingerprint


def test_data_without_attributes_is_told_so():
    items = pl.DataFrame({"item_id": ["a", "b"], "brand": ["x", "y"]})
    with pytest.raises(
        DataError, match=r"The 2 items have no attribute in the column\(s\) brand that two of them share"
    ):
        column_attributes(items, ["brand"])
    with pytest.raises(ConfigError, match=r"The items have no column 'brnd'. Did you mean 'brand'"):
        column_attributes(items, ["brnd"])
    with pytest.raises(ConfigError, match="No column of attributes is named"):
        column_attributes(items, [])
    with pytest.raises(DataError, match="among the words of the texts"):
        word_attributes(items)
    with pytest.raises(ConfigError, match="The items have no text"):
        word_attributes(items[["item_id"]])
