"""Random codes: uniform, by seed and item id, and of no use for the texts."""

import numpy as np
import pytest

from tesserec.data.catalogue import Catalogue
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers import make_tokenizer
from tesserec.tokenizers.random_codes import RandomCodes


def items(n_items: int = 4000) -> Embeddings:
    vectors = np.random.default_rng(0).normal(size=(n_items, 6)).astype(np.float32)
    return Embeddings(Catalogue([f"i{row}" for row in range(n_items)]), vectors)


def fitted(**settings) -> RandomCodes:
    return make_tokenizer("random", {"n_levels": 5, "codebook_size": 10, "collisions": "share", **settings}).fit(
        items()
    )


def test_codes_are_uniform_and_levels_independent():
    codes = fitted().encode(items()).codes
    expected, chi_square = 4000 / 10, []
    for level in range(5):
        counts = np.bincount(codes[:, level], minlength=10)
        chi_square.append(((counts - expected) ** 2 / expected).sum())
    assert max(chi_square) < 30  # 9 degrees of freedom: exceeded once in 2,300
    pairs = np.bincount(codes[:, 0] * 10 + codes[:, 1], minlength=100)
    assert ((pairs - 40) ** 2 / 40).sum() < 150  # 99 degrees of freedom


def test_another_seed_gives_other_codes_and_another_text_does_not():
    first, other = fitted().encode(items()), fitted(seed=1).encode(items())
    assert (first.codes == other.codes).mean() == pytest.approx(0.1, abs=0.02)
    moved = Embeddings(items().catalogue, items().vectors[::-1].copy())
    assert np.array_equal(fitted().encode(moved).codes, first.codes)


def test_equal_texts_have_codes_of_their_own_and_codes_reconstruct_nothing_but_the_mean():
    same = Embeddings(items().catalogue, np.tile(items().vectors[:1], (4000, 1)))
    assert len(fitted().encode(same).group_sizes) > 3500
    tokenizer = fitted()
    ids = tokenizer.encode(items())
    assert ids.codebooks == ()
    assert np.allclose(tokenizer.reconstruct(ids.codes), items().vectors.mean(axis=0), atol=1e-6)
