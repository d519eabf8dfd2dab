"""Collisions, and semantic IDs from and to the files of other projects."""

import json
from pathlib import Path

import numpy as np
import pytest

from tesserec.data.catalogue import Catalogue
from tesserec.errors import ConfigError, DataError
from tesserec.tokenizers.collisions import (
    rank_in_group,
    remaining,
    separate_by_assignment,
    separate_by_sinkhorn,
    with_extra_level,
)
from tesserec.tokenizers.imports import read_semantic_ids, write_array, write_index
from tesserec.tokenizers.semantic_ids import SemanticIds

CATALOGUE = Catalogue(["a", "b", "c", "d"])
CODES = np.array([[1, 0], [0, 2], [1, 0], [1, 0]])


def ids(codes: np.ndarray = CODES) -> SemanticIds:
    return SemanticIds(CATALOGUE, codes, (2, 4))


def test_places_in_a_group_follow_the_catalogue() -> None:
    assert rank_in_group(ids()).tolist() == [0, 0, 1, 2]


def test_the_extra_level_makes_ids_unique_with_a_size_fixed_beforehand() -> None:
    told_apart = with_extra_level(ids(), 3)
    assert told_apart.codes.tolist() == [[1, 0, 0], [0, 2, 0], [1, 0, 1], [1, 0, 2]]
    assert told_apart.codebook_sizes == (2, 4, 3)
    assert told_apart.collision_policy == "extra-level"


def test_a_group_that_the_extra_level_cannot_name_is_refused_with_the_size_and_the_remedy() -> None:
    with pytest.raises(
        DataError, match=r"3 items, one of them 'a', share the codes \[1, 0\].*Set extra_level_size to 3"
    ):
        with_extra_level(ids(), 2)


# -- other last codes --------------------------------------------------------------------------------------------------

LINE = np.arange(4.0)[:, None]  # codewords 0, 1, 2, 3 on a line


def on_the_line(places: list[float]) -> tuple[np.ndarray, object]:
    """Items of one dimension, and the last level's view of them."""
    vectors = np.array(places, dtype=np.float32)[:, None]
    return vectors, lambda rows: (vectors[rows].astype(np.float64), LINE)


def test_assignment_moves_items_of_a_prefix_at_the_least_distance_and_leaves_others_alone() -> None:
    vectors, last_level = on_the_line([1.0, 1.1, 1.9, 3.0, 1.0])
    codes = np.array([[0, 1], [0, 1], [0, 2], [1, 0], [2, 1]])  # the last two have prefixes of their own
    found = separate_by_assignment(codes, vectors, last_level)
    assert found.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [2, 1]]
    assert codes[0].tolist() == [0, 1], "the codes that were given must stay as they were"


def test_identical_vectors_get_the_codes_nearest_first_in_catalogue_order() -> None:
    vectors, last_level = on_the_line([2.9, 2.9, 2.9])
    assert separate_by_assignment(np.full((3, 2), 3), vectors, last_level)[:, 1].tolist() == [3, 2, 1]


def test_a_prefix_with_more_items_than_codewords_shares_them_evenly() -> None:
    vectors, last_level = on_the_line([0.0] * 6 + [3.0])
    found = separate_by_assignment(np.array([[0, 0]] * 6 + [[0, 3]]), vectors, last_level)
    assert np.bincount(found[:, 1]).max() == 2
    left = remaining(found, vectors)
    assert (left.items, left.identical) == (6, 6)
    assert "6 of them have a vector identical to another's" in str(left)


def test_large_catalogues_are_separated_in_blocks_that_keep_prefixes_whole(monkeypatch) -> None:
    random = np.random.default_rng(0)
    vectors = random.uniform(0, 3, size=(60, 1)).astype(np.float32)
    codes = np.stack([np.arange(60) // 4, np.zeros(60, dtype=np.int64)], axis=1)
    calls = []

    def last_level(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        calls.append(len(rows))
        return vectors[rows].astype(np.float64), LINE

    whole = separate_by_assignment(codes, vectors, last_level)
    monkeypatch.setattr("tesserec.tokenizers.collisions.ROWS_AT_A_TIME", 10)
    np.testing.assert_array_equal(separate_by_assignment(codes, vectors, last_level), whole)
    assert calls == [60] + [8] * 7 + [4]
    assert remaining(whole, vectors).items == 0


def test_the_sinkhorn_loop_separates_different_items_and_never_identical_ones() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(6, 8)).astype(np.float32)
    vectors[5] = vectors[4]
    codebook = random.normal(size=(16, 8))
    codes = np.zeros((6, 2), dtype=np.int64)
    found = separate_by_sinkhorn(codes, vectors, lambda rows: (vectors[rows].astype(np.float64), codebook))
    assert len({tuple(row) for row in found[:5].tolist()}) == 5
    assert found[4].tolist() == found[5].tolist()
    left = remaining(found, vectors)
    assert (left.items, left.identical) == (2, 2)


# -- index files -------------------------------------------------------------------------------------------------------


def test_an_index_file_comes_back_as_it_went(tmp_path: Path) -> None:
    write_index(ids(), tmp_path / "x.index.json")
    assert json.loads((tmp_path / "x.index.json").read_text())["b"] == ["<a_0>", "<b_2>"]
    back = read_semantic_ids(tmp_path / "x.index.json", CATALOGUE)
    np.testing.assert_array_equal(back.codes, CODES)
    assert back.codebook_sizes == (2, 4)


def test_an_array_comes_back_as_it_went(tmp_path: Path) -> None:
    write_array(ids(), tmp_path / "codes.npy")
    back = read_semantic_ids(tmp_path / "codes.npy", CATALOGUE, codebook_sizes=(256, 256))
    np.testing.assert_array_equal(back.codes, CODES)
    assert back.codebook_sizes == (256, 256)


def test_an_index_is_read_in_catalogue_order_and_its_further_items_are_ignored(tmp_path: Path) -> None:
    index = {"z": ["<a_5>"], "d": ["<a_3>"], "c": ["<a_2>"], "b": ["<a_1>"], "a": ["<a_0>"]}
    (tmp_path / "i.json").write_text(json.dumps(index))
    assert read_semantic_ids(tmp_path / "i.json", CATALOGUE).codes.tolist() == [[0], [1], [2], [3]]


def test_items_without_a_code_are_refused_or_share_a_code_of_their_own(tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", np.array([[0, 3], [-1, -1], [1, 1], [-1, -1]], dtype=np.int16))
    with pytest.raises(DataError, match=r"no code for 2 of 4 items, such as \['b', 'd'\].*uncoded='reserve'"):
        read_semantic_ids(tmp_path / "codes.npy", CATALOGUE)
    reserved = read_semantic_ids(tmp_path / "codes.npy", CATALOGUE, uncoded="reserve")
    assert reserved.codes.tolist() == [[0, 3], [2, 4], [1, 1], [2, 4]]
    assert reserved.codebook_sizes == (3, 5)
    assert reserved.config["items_without_code"] == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "does not hold an index"),
        ('{"a": ["<a_1>"], "b": ["<a_1>", "<b_2>"]}', "item 'b': found .* Expected a list of 1 codes"),
        ('{"a": ["<b_1>"]}', "item 'a': found .* one letter per level"),
        ('{"a": ["1"]}', "Expected tokens such as"),
        ('{"other": ["<a_1>"]}', "no code for any of the 4 items"),
    ],
)
def test_a_malformed_index_names_the_place(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "i.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_semantic_ids(tmp_path / "i.json", CATALOGUE)


def test_arrays_of_another_kind_or_shape_are_refused(tmp_path: Path) -> None:
    for array, message in (
        (np.zeros((4, 2)), "Give whole numbers"),
        (np.zeros((3, 2), dtype=int), "3 rows for 4 items"),
    ):
        np.save(tmp_path / "codes.npy", array)
        with pytest.raises(DataError, match=message):
            read_semantic_ids(tmp_path / "codes.npy", CATALOGUE)
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as an array"):
        read_semantic_ids(tmp_path / "bad.npy", CATALOGUE)
    with pytest.raises(DataError, match="There is no file"):
        read_semantic_ids(tmp_path / "none.npy", CATALOGUE)
    (tmp_path / "x.csv").write_text("a")
    with pytest.raises(DataError, match=r"read from \.json"):
        read_semantic_ids(tmp_path / "x.csv", CATALOGUE)


def test_more_levels_than_letters_are_no_index(tmp_path: Path) -> None:
    wide = SemanticIds(CATALOGUE, np.zeros((4, 27), dtype=np.int64), (1,) * 27)
    with pytest.raises(ConfigError, match="up to 26 levels, these IDs have 27"):
        write_index(wide, tmp_path / "x.json")
