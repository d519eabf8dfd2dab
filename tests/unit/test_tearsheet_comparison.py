"""Several tokenizers side by side: the table, the picture, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from tesserec.data.catalogue import Catalogue
from tesserec.errors import ConfigError, DataError
from tesserec.evaluation import Subject, TearSheetComparison, compare_ids, inspect_ids, stability
from tesserec.evaluation.tearsheet_comparison import same_recipe_families
from tesserec.tokenizers import make_tokenizer
from tesserec.tokenizers.semantic_ids import SemanticIds
from toy_items import clustered
from toy_shop import CATALOGUE, IDS, NAMES, split_of

EMBEDDINGS = clustered(60)


@pytest.fixture(scope="module")
def three() -> TearSheetComparison:
    """Two seeds of one tokenizer, and random codes."""
    settings = {"n_levels": 2, "codebook_size": 4, "collisions": "share"}
    subjects: dict[str, Subject | SemanticIds] = {}
    for seed in (0, 1):
        fitted = make_tokenizer("rkmeans", {**settings, "seed": seed}).fit(EMBEDDINGS)
        subjects[f"rkmeans-{seed}"] = Subject(fitted.encode(EMBEDDINGS), None, EMBEDDINGS, fitted)
    codes = np.random.default_rng(0).integers(4, size=(60, 2))
    subjects["random"] = SemanticIds(EMBEDDINGS.catalogue, codes, (4, 4))
    return compare_ids(subjects, embeddings=EMBEDDINGS)


def test_every_sheet_is_that_of_the_tokenizer_alone(three: TearSheetComparison) -> None:
    fitted = make_tokenizer("rkmeans", {"n_levels": 2, "codebook_size": 4, "collisions": "share"}).fit(EMBEDDINGS)
    alone = inspect_ids(fitted.encode(EMBEDDINGS), embeddings=EMBEDDINGS, tokenizer=fitted)
    assert three.sheets["rkmeans-0"] == alone
    assert alone.unexplained is not None
    assert three.sheets["random"].unexplained is None


def test_tokenizers_that_differ_in_the_seed_alone_are_a_family_whose_stability_is_measured(
    three: TearSheetComparison,
) -> None:
    assert three.families == (("rkmeans-0", "rkmeans-1"),)
    assert [(pair.first, pair.second) for pair in three.pairs] == [("rkmeans-0", "rkmeans-1")]


def test_every_pair_is_measured_when_asked_for() -> None:
    other = SemanticIds(CATALOGUE, IDS.codes[::-1].copy(), IDS.codebook_sizes)
    found = compare_ids({"a": IDS, "b": other, "c": IDS}, every_pair=True)
    assert [(pair.first, pair.second) for pair in found.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found.pairs[0].figures == stability(IDS, other)
    assert found.families == ()
    assert compare_ids({"a": IDS, "b": other}).pairs == ()


def test_families_are_equal_recipes_of_different_seeds() -> None:
    recipe = {"method": "rqvae", "width": 8}
    recipes = {
        "zero": {**recipe, "seed": 0},
        "copy": {**recipe, "seed": 0},
        "one": {**recipe, "seed": 1, "text": {"seed": 5}},
        "two": {**recipe, "seed": 2, "text": {"seed": 0}},
        "wide": {**recipe, "width": 16, "seed": 1},
        "last": {**recipe, "seed": 3},
        "file": {"method": "file", "path": "x"},
        "unknown": {},
    }
    assert same_recipe_families(recipes) == (("zero", "last"), ("one", "two"))


def test_the_table_has_a_row_for_every_tokenizer_in_every_part(three: TearSheetComparison) -> None:
    parts = three.text().split("\n\n")
    assert parts[0] == "60 items, 3 tokenizers"
    codes, collisions, neighbours, pairs = parts[1:]
    for part in (codes, collisions, neighbours):
        assert [line.split()[0] for line in part.splitlines()[2:]] == ["rkmeans-0", "rkmeans-1", "random"]
    assert "2 x 4" in codes
    assert "rkmeans-0 and rkmeans-1" in pairs
    assert "popularity" not in three.text()


def test_the_mean_of_a_family_of_three_is_in_the_table() -> None:
    seeds = {
        str(seed): SemanticIds(CATALOGUE, IDS.codes, IDS.codebook_sizes, config={"method": "x", "seed": seed})
        for seed in range(3)
    }
    lines = compare_ids(seeds).text().splitlines()
    mean = next(line for line in lines if line.startswith("mean of 3 pairs of 0, 1, 2"))
    assert mean.split("  ")[-1] == "1.000 / 1.000"


def test_popularity_and_text_stand_in_the_table() -> None:
    text = compare_ids({"a": IDS, "b": IDS}, texts=NAMES, split=split_of([[0, 1, 2], [3, 2, 2]])).text()
    assert "head / mid / tail" in text
    assert "often taken together" in text
    assert "test targets" in text


def test_the_comparison_is_json(three: TearSheetComparison) -> None:
    back = json.loads(json.dumps(three.to_dict()))
    assert list(back["sheets"]) == ["rkmeans-0", "rkmeans-1", "random"]
    assert back["sheets"]["random"]["collisions"]["icr"] == three.sheets["random"].collisions.icr
    assert back["stability"][0]["figures"]["rand"] == list(three.pairs[0].figures.rand)
    assert back["families"] == [["rkmeans-0", "rkmeans-1"]]


def test_ids_of_different_catalogues_are_refused_and_both_are_named() -> None:
    other = SemanticIds(Catalogue(["x", "y"]), np.array([[0], [1]]), (2,))
    with pytest.raises(DataError, match="mine and theirs are of different catalogues"):
        compare_ids({"mine": IDS, "also": IDS, "theirs": other})
    with pytest.raises(ConfigError, match="no semantic IDs"):
        compare_ids({})


def test_every_comparison_can_be_drawn(three: TearSheetComparison, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    split = split_of([[0, 1, 2], [3, 2, 2]])
    wide = SemanticIds(CATALOGUE, np.arange(6 * 12).reshape(6, 12) % 5, (5,) * 12)
    many = compare_ids({"narrow": IDS, "wide": wide}, texts=NAMES, split=split, every_pair=True)
    for number, comparison in enumerate((three, many, compare_ids({"alone": IDS}))):
        path = tmp_path / f"{number}.png"
        comparison.plot(path)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_is_refused(three: TearSheetComparison, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match=r"ends in \.png"):
        three.plot(tmp_path / "sheet.tabloid")
    with pytest.raises(ConfigError, match=r"none.sheet\.png cannot be written: No such file or directory"):
        three.plot(tmp_path / "none" / "sheet.png")
