from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tesserec.functional.trie import ConstraintIndex
from toy_decoder import dictionary_trie


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], tuple[int, ...]]:
    sizes = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    items = draw(st.lists(st.tuples(*(st.integers(0, size - 1) for size in sizes)), min_size=1, max_size=30))
    return np.array(items), sizes


@given(catalogues())
def test_trie_offers_exactly_the_codes_of_a_dictionary_trie(catalogue: Any) -> None:
    codes, sizes = catalogue
    index = ConstraintIndex.build(codes, sizes)
    children = dictionary_trie(map(tuple, codes.tolist()))
    assert sum(index.n_nodes(depth) for depth in range(len(sizes))) == len(children)
    for prefix, continuations in children.items():
        assert index.next_codes(prefix).tolist() == sorted(continuations)


@given(catalogues())
def test_way_down_and_way_up_agree(catalogue: Any) -> None:
    codes, sizes = catalogue
    index = ConstraintIndex.build(codes, sizes)
    for depth in range(index.n_levels + 1):
        owner, child = index.children(depth, torch.arange(index.n_nodes(depth)))
        assert child.tolist() == list(range(index.n_nodes(depth + 1)))
        assert torch.equal(index.parents(depth + 1, child), owner)
    assert (index.codes_of(index.n_levels, index.leaf_of(torch.arange(len(codes)))).numpy() == codes).all()
    groups = [index.items_of_leaf(leaf).tolist() for leaf in range(index.n_nodes(index.n_levels))]
    assert groups == [np.flatnonzero((codes == codes[group[0]]).all(axis=1)).tolist() for group in groups]


@given(catalogues(), st.data())
def test_every_node_counts_the_allowed_items_that_are_not_denied(catalogue: Any, data: st.DataObject) -> None:
    codes, sizes = catalogue
    n_items, n_rows = len(codes), data.draw(st.integers(1, 3))
    masks = data.draw(
        st.none() | st.lists(st.lists(st.booleans(), min_size=n_items, max_size=n_items), min_size=1, max_size=3)
    )
    pairs = data.draw(st.none() | st.lists(st.tuples(st.integers(0, n_rows - 1), st.integers(0, n_items - 1))))
    index = ConstraintIndex.build(codes, sizes)
    set_of_row = [data.draw(st.integers(0, len(masks) - 1)) for _ in range(n_rows)] if masks else None
    restriction = index.restrict(
        None if masks is None else index.item_sets(np.array(masks)),
        set_of_row=None if set_of_row is None else torch.tensor(set_of_row),
        denied=None if pairs is None else tuple(torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T),
    )
    for row in range(n_rows):
        is_open = np.ones(n_items, dtype=np.bool_) if set_of_row is None else np.array(masks[set_of_row[row]])
        is_open[[item for owner, item in pairs or [] if owner == row]] = False
        for depth in range(index.n_levels + 1):
            nodes = torch.arange(index.n_nodes(depth))
            prefixes = index.codes_of(depth, nodes).numpy()
            expected = [is_open[(codes[:, :depth] == prefix).all(axis=1)].sum() for prefix in prefixes]
            rows = torch.full_like(nodes, row)
            assert restriction.count(depth, rows, nodes).tolist() == expected
            assert restriction.permits(depth, rows, nodes).tolist() == [count > 0 for count in expected]
