"""Product codes of embeddings with several attributes per item."""

import numpy as np
import pytest

from tesserec.data.catalogue import Catalogue
from tesserec.errors import ConfigError, DataError
from tesserec.functional.whitening import whiten
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers import load_tokenizer, make_tokenizer
from tesserec.tokenizers.pq import PQ
from toy_items import clustered

NAMES = ("title", "brand", "text")


def attributes(n_items: int = 90, *, seed: int = 0) -> Embeddings:
    """Three attributes of width 10."""
    parts = [clustered(n_items, seed=seed + 10 * attribute) for attribute in range(3)]
    return Embeddings(parts[0].catalogue, np.stack([part.vectors for part in parts], axis=1), NAMES)


def fitted(method: str = "pq", **settings: object) -> PQ:
    tokenizer = make_tokenizer(method, {"n_levels": 6, "codebook_size": 8, "collisions": "share", **settings})
    tokenizer.fit(attributes())
    assert isinstance(tokenizer, PQ)
    return tokenizer


@pytest.mark.parametrize("settings", [{}, {"pca_width": 5}, {"method": "opq", "n_rotations": 3}, {"pca_width": 128}])
def test_codes_of_an_attributes_levels_depend_on_that_attribute_alone(settings):
    tokenizer, items = fitted(**settings), attributes()
    codes = tokenizer.encode(items).codes
    for attribute in range(3):
        vectors = items.vectors.copy()
        vectors[:, attribute] = attributes(seed=1).vectors[:, attribute]
        changed = tokenizer.encode(Embeddings(items.catalogue, vectors, NAMES)).codes
        own = slice(2 * attribute, 2 * attribute + 2)
        assert (changed[:, own] != codes[:, own]).any(axis=0).all()
        np.testing.assert_array_equal(np.delete(changed, own, axis=1), np.delete(codes, own, axis=1))


@pytest.mark.parametrize("pca_width", [None, 4, 5])
def test_every_code_is_the_nearest_centroid_of_its_piece(pca_width):
    tokenizer, items = fitted(pca_width=pca_width), attributes()
    codes = tokenizer.encode(items).codes
    x = items.vectors if pca_width is None else whiten(items.vectors, *tokenizer.whitening)
    half = -(-x.shape[2] // 2)
    for level, table in enumerate(tokenizer.codebooks):
        piece = x[:, level // 2, half * (level % 2) : half * (level % 2) + half]
        piece = np.pad(piece, ((0, 0), (0, half - piece.shape[1])))  # width 5 in two pieces of 3
        distances = ((piece[:, None, :] - table) ** 2).sum(axis=2)
        np.testing.assert_array_equal(codes[:, level], distances.argmin(axis=1))


@pytest.mark.parametrize("method", ["pq", "opq"])
def test_a_reloaded_tokenizer_encodes_new_items_the_same_and_reconstructs_attributes(method, tmp_path):
    tokenizer = fitted(method, pca_width=6)
    tokenizer.save(tmp_path / "tokenizer")
    loaded = load_tokenizer(tmp_path / "tokenizer")
    new = attributes(seed=3)
    np.testing.assert_array_equal(loaded.encode(new).codes, tokenizer.encode(new).codes)
    items = attributes()
    again = loaded.reconstruct(loaded.encode(items).codes)
    assert again.shape == items.vectors.shape
    assert again.dtype == np.float32
    errors = ((again - items.vectors) ** 2).sum() / ((items.vectors - items.vectors.mean(axis=0)) ** 2).sum()
    assert errors < 0.6


def test_one_attribute_and_one_text_per_item_get_the_same_codes():
    plain = clustered()
    single = Embeddings(plain.catalogue, plain.vectors[:, None], ("title",))
    settings = {"n_levels": 4, "codebook_size": 8, "pca_width": 8}
    one, other = (make_tokenizer("pq", settings).fit(items) for items in (plain, single))
    np.testing.assert_array_equal(one.encode(plain).codes, other.encode(single).codes)
    assert other.reconstruct(other.encode(single).codes).shape == single.vectors.shape


def test_levels_that_attributes_cannot_share_out_are_refused():
    with pytest.raises(ConfigError, match=r"n_levels is 4, but the items have 3 attributes \(title, brand, text\).*12"):
        make_tokenizer("pq", {"n_levels": 4, "codebook_size": 8}).fit(attributes())


def test_embeddings_with_another_number_of_attributes_are_refused():
    tokenizer = fitted()
    with pytest.raises(DataError, match="have 0 attributes per item, but the tokenizer was fitted on 3"):
        tokenizer.encode(clustered())
    two = Embeddings(Catalogue(["a"]), np.ones((1, 2, 10)), ("title", "brand"))
    with pytest.raises(DataError, match="have 2 attributes per item, but the tokenizer was fitted on 3"):
        tokenizer.encode(two)


def test_items_without_an_attribute_share_its_codes_and_collide_only_where_they_share_all():
    items = attributes()
    vectors = items.vectors.copy()
    vectors[:20, 1] = 0.0  # as encode_items leaves empty texts
    vectors[:5] = 0.0
    blank = Embeddings(items.catalogue, vectors, NAMES)
    for policy, largest in (("share", 5), ("extra-level", 1)):
        ids = make_tokenizer("pq", {"n_levels": 6, "codebook_size": 8, "pca_width": 8, "collisions": policy})
        ids = ids.fit(blank).encode(blank)
        assert len(np.unique(ids.codes[:20, 2:4], axis=0)) == 1
        assert ids.group_sizes[ids.group_of_item[0]] >= largest
        assert policy == "share" or (ids.group_sizes == 1).all()


def test_an_out_of_range_width_is_refused():
    with pytest.raises(ConfigError, match="pca_width is 0"):
        make_tokenizer("pq", {"pca_width": 0})
