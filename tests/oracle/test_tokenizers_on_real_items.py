"""Residual k-means on the texts of a real catalogue (Scientific): all codes are used, and are the nearest."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tesserec.data.catalogue import Catalogue
from tesserec.evaluation import inspect_ids
from tesserec.text import TextConfig, encode_items
from tesserec.tokenizers import make_tokenizer

pytestmark = pytest.mark.data


def test_residual_kmeans_of_scientific(real_data: Path) -> None:
    file = real_data / "scientific" / "scientific.item"
    items = pl.read_csv(file, separator="\t", quote_char=None, new_columns=["item_id", "text"])
    catalogue = Catalogue(items["item_id"].to_list())
    embeddings = encode_items(items, catalogue, TextConfig())
    fitted = make_tokenizer("rkmeans").fit(embeddings)
    ids = fitted.encode(embeddings)
    sheet = inspect_ids(ids, texts=items["text"].to_list(), embeddings=embeddings, tokenizer=fitted)

    assert all(level.used == 256 for level in sheet.levels[:3])
    assert sheet.prefixes[3] == len(catalogue)
    assert sheet.collisions.distinct > 3_300  # 3,437 when written, of 4,369 distinct texts
    assert 0 < sheet.collisions.identical_text_items <= 30  # 15 texts belong to two items
    assert sheet.unexplained is not None
    assert sheet.unexplained < 0.15
    assert sheet.neighbours is not None
    assert sheet.neighbours.prefix[0] > 0.5

    residual = embeddings.vectors.astype(np.float64) - fitted.mean  # type: ignore[attr-defined]
    for level, codebook in enumerate(fitted.codebooks):  # the definition, without matrix products
        residual /= np.linalg.norm(residual, axis=1, keepdims=True)
        distances = np.stack([((residual - codeword) ** 2).sum(axis=1) for codeword in codebook.astype(np.float64)])
        np.testing.assert_array_equal(ids.codes[:, level], distances.argmin(axis=0))
        residual -= codebook[ids.codes[:, level]]
