"""Embeddings and semantic IDs as saved values: what is refused, and what comes back."""

from pathlib import Path

import numpy as np
import pytest

from tesserec.data.catalogue import Catalogue
from tesserec.errors import ArtifactError, DataError
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.semantic_ids import SemanticIds

CATALOGUE = Catalogue(["a", "b", "c"])
IDS = SemanticIds(CATALOGUE, np.array([[0, 1], [1, 0], [0, 1]]), (2, 3), codebooks=(np.ones((2, 4)), np.ones((3, 4))),
                  config={"method": "x"})  # fmt: skip


def test_semantic_ids_come_back_as_they_were(tmp_path: Path) -> None:
    IDS.save(tmp_path / "ids")
    back = SemanticIds.load(tmp_path / "ids")
    assert back.fingerprint == IDS.fingerprint
    assert (back.codebook_sizes, back.collision_policy, back.config) == ((2, 3), "share", {"method": "x"})
    assert [table.shape for table in back.codebooks] == [(2, 4), (3, 4)]


def test_all_items_of_an_id_are_found() -> None:
    assert IDS.items_of([0, 1]).tolist() == [0, 2]
    assert IDS.items_of([1, 1]).tolist() == []


def test_codes_outside_their_codebook_or_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match="Level 1 has codes from 0 to 3, but its codebook has 3"):
        SemanticIds(CATALOGUE, np.array([[0, 1], [1, 0], [0, 3]]), (2, 3))
    with pytest.raises(DataError, match=r"Codes of shape \(2, 2\) do not fit 3 items"):
        SemanticIds(CATALOGUE, np.zeros((2, 2), dtype=np.int64), (2, 3))


def test_embeddings_come_back_as_they_were(tmp_path: Path) -> None:
    vectors = np.arange(18, dtype=np.float32).reshape(3, 2, 3)
    Embeddings(CATALOGUE, vectors, ("x", "y"), {"encoder": "lsa"}, {"axes": np.eye(2)}).save(tmp_path / "e")
    back = Embeddings.load(tmp_path / "e")
    np.testing.assert_array_equal(back.vectors, vectors)
    np.testing.assert_array_equal(back.state["axes"], np.eye(2))
    assert (back.attributes, back.config, back.catalogue.item_ids) == (("x", "y"), {"encoder": "lsa"}, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("value", "file"), [(IDS, "semantic_ids.parquet"), (Embeddings(CATALOGUE, np.ones((3, 2))), "vectors.npy")]
)
@pytest.mark.parametrize("damage", ["gone", "empty", "cut"])
def test_damaged_files_are_refused(tmp_path: Path, value, file: str, damage: str) -> None:
    value.save(tmp_path / "x")
    path = tmp_path / "x" / file
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(ArtifactError, match="is damaged"):
        type(value).load(tmp_path / "x")
