import numpy as np
import pytest
import torch

from tesserec.errors import ConfigError, DataError
from tesserec.functional.trie import ConstraintIndex

# sorted: (0, 1) item 3; (0, 2) item 1; (1, 0) items 0 and 2
CODES = np.array([[1, 0], [0, 2], [1, 0], [0, 1]])


@pytest.fixture
def index() -> ConstraintIndex:
    return ConstraintIndex.build(CODES, (2, 3))


def test_trie_offers_the_codes_that_continue_a_prefix(index: ConstraintIndex) -> None:
    assert index.next_codes([]).tolist() == [0, 1]
    assert index.next_codes([0]).tolist() == [1, 2]
    assert index.next_codes([1]).tolist() == [0]


def test_trie_offers_no_code_after_an_unknown_prefix(index: ConstraintIndex) -> None:
    sparse = ConstraintIndex.build(np.array([[3, 0, 1], [5, 2, 2]]), (8, 3, 3))
    for prefix in ([0], [4], [7], [3, 1], [5, 1], [5, 0]):
        assert sparse.next_codes(prefix).tolist() == []
    assert index.next_codes([1]).tolist() == [0]


def test_nodes_are_numbered_in_the_order_of_codes(index: ConstraintIndex) -> None:
    assert [index.n_nodes(depth) for depth in range(4)] == [1, 2, 3, 4]
    assert index.item_at.tolist() == [3, 1, 0, 2]
    assert index.codes_of(2, torch.arange(3)).tolist() == [[0, 1], [0, 2], [1, 0]]
    owner, child = index.children(1, torch.tensor([1, 0, 1]))
    assert (owner.tolist(), child.tolist()) == ([0, 1, 1, 2], [2, 0, 1, 2])
    assert index.parents(2, torch.tensor([0, 1, 2])).tolist() == [0, 0, 1]


def test_items_that_share_an_id_come_in_item_order(index: ConstraintIndex) -> None:
    assert index.leaf_of(torch.arange(4)).tolist() == [2, 1, 2, 0]
    assert index.items_of_leaf(2).tolist() == [0, 2]


def test_denied_items_count_only_inside_the_allowed_set(index: ConstraintIndex) -> None:
    leaves, first_row = torch.arange(3), torch.zeros(3, dtype=torch.int64)
    sets = index.item_sets(np.array([True, True, False, False]))  # items 0 and 1
    denied = (torch.tensor([0, 0, 0]), torch.tensor([2, 3, 3]))  # none of which is allowed
    restriction = index.restrict(sets, denied=denied)
    assert restriction.count(2, first_row, leaves).tolist() == [0, 1, 1]
    assert restriction.permits(2, first_row, leaves).tolist() == [False, True, True]
    closed = index.restrict(sets, denied=(torch.tensor([0]), torch.tensor([0])))
    assert closed.permits(2, first_row, leaves).tolist() == [False, True, False]
    assert closed.permits(1, first_row[:2], torch.arange(2)).tolist() == [True, False]


@pytest.mark.parametrize(
    ("size", "dtype"), [(256, torch.uint8), (257, torch.int16), (2**15, torch.int16), (2**15 + 1, torch.int32)]
)
def test_codes_take_the_smallest_type_that_holds_them(size: int, dtype: torch.dtype) -> None:
    index = ConstraintIndex.build(np.array([[size - 1], [0]]), (size,))
    assert index.codes[0].dtype == dtype
    assert index.next_codes([]).tolist() == [0, size - 1]


def test_ids_of_more_bits_than_a_machine_word_are_sorted_correctly() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2048, (500, 8))
    codes[100:300, :6] = codes[0, :6]  # so that the last levels decide
    codes[300:400] = codes[200:300]
    index = ConstraintIndex.build(codes, (2048,) * 8)
    assert index.item_at.tolist() == np.lexsort(codes.T[::-1]).tolist()
    assert (index.codes_of(8, index.leaf_of(torch.arange(500))).numpy() == codes).all()


def test_index_takes_less_than_90_bytes_per_item() -> None:
    rng = np.random.default_rng(0)
    for n_items, n_levels, size in ((2000, 4, 256), (20_000, 4, 256), (20_000, 8, 2048), (20_000, 6, 4)):
        index = ConstraintIndex.build(rng.integers(0, size, (n_items, n_levels)), (size,) * n_levels)
        assert index.n_bytes < 90 * n_items
    barely_dense = np.stack(np.meshgrid(*[[0, 1]] * 12), axis=-1).reshape(-1, 12)  # 2 children of 8, everywhere
    index = ConstraintIndex.build(barely_dense, (8,) * 12)
    assert all(level is not None for level in index.dense)
    assert index.n_bytes < 90 * len(barely_dense)


def test_only_full_first_levels_are_dense() -> None:
    codes = np.random.default_rng(0).integers(0, 16, (1000, 4))
    codes[:, 3] = 0
    index = ConstraintIndex.build(codes, (16, 16, 16, 1))  # 16, 15.7 and 3.5 children of 16 codewords, then 1 of 1
    assert [level is not None for level in index.dense] == [True, True, False, False]


def test_codes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=r"Level 1 has codes from 0 to 2, but its codebook has 2 codewords"):
        ConstraintIndex.build(CODES, (2, 2))
    with pytest.raises(DataError, match=r"Level 0 has codes from -1 to 1"):
        ConstraintIndex.build(CODES - np.array([1, 0]) * (CODES[:, :1] == 0), (2, 3))
    with pytest.raises(DataError, match=r"shape \(4, 2\) do not fit 3 levels"):
        ConstraintIndex.build(CODES, (2, 3, 4))
    with pytest.raises(DataError, match="0 items cannot be indexed"):
        ConstraintIndex.build(CODES[:0], (2, 3))


def test_masks_of_another_catalogue_are_refused(index: ConstraintIndex) -> None:
    with pytest.raises(ConfigError, match=r"Masks of shape \(1, 5\) do not fit 4 items"):
        index.item_sets(np.ones(5, dtype=np.bool_))
