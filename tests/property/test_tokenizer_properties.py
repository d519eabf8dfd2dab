"""What holds for any codes and any points."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tesserec.data.catalogue import Catalogue
from tesserec.functional.id_statistics import chance_agreement, entropy_bits, prefix_groups
from tesserec.functional.kmeans import balanced_codes
from tesserec.tokenizers.collisions import rank_in_group, with_extra_level
from tesserec.tokenizers.semantic_ids import SemanticIds


def codes() -> st.SearchStrategy[np.ndarray]:
    """(2 to 30 items, levels) codes from 0 to 3."""
    return arrays(np.int64, st.tuples(st.integers(2, 30), st.integers(1, 4)), elements=st.integers(0, 3))


def ids(rows: np.ndarray) -> SemanticIds:
    return SemanticIds(Catalogue([str(row) for row in range(len(rows))]), rows, (4,) * rows.shape[1])


@given(codes())
def test_the_extra_level_makes_every_id_unique(rows: np.ndarray) -> None:
    assert with_extra_level(ids(rows), len(rows)).group_sizes.max() == 1


@given(codes(), codes())
def test_appended_items_leave_earlier_places_alone(rows: np.ndarray, more: np.ndarray) -> None:
    n_levels = min(rows.shape[1], more.shape[1])
    rows, more = rows[:, :n_levels], more[:, :n_levels]
    before, after = rank_in_group(ids(rows)), rank_in_group(ids(np.concatenate([rows, more])))
    np.testing.assert_array_equal(after[: len(rows)], before)


@given(codes())
def test_prefix_groups_are_those_of_the_first_codes(rows: np.ndarray) -> None:
    for depth, group in enumerate(prefix_groups(rows)):
        _, expected = np.unique(rows[:, : depth + 1], axis=0, return_inverse=True)
        np.testing.assert_array_equal(group, expected.reshape(-1))


@given(codes())
def test_chance_is_the_share_of_agreeing_pairs(rows: np.ndarray) -> None:
    group = prefix_groups(rows)[-1]
    same = group[:, None] == group
    n_items = len(group)
    np.testing.assert_allclose(chance_agreement(group), (same.sum() - n_items) / (n_items * (n_items - 1)))


@given(st.lists(st.integers(0, 50), min_size=1).filter(any))
def test_entropy_lies_between_one_code_and_equal_use(counts: list[int]) -> None:
    assert -1e-9 <= entropy_bits(np.array(counts)) <= np.log2(len(counts)) + 1e-9


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 1000))
def test_balanced_codes_never_exceed_the_capacity(n_items: int, n_codewords: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, codebook = random.normal(size=(n_items, 3)), random.normal(size=(n_codewords, 3))
    capacity = -(-n_items // n_codewords)
    found = balanced_codes(x, codebook, capacity)
    assert found.min() >= 0
    assert np.bincount(found).max() <= capacity
