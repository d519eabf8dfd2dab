"""The k largest scores, ties and missing candidates included, against a plain sort."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tesserec.recommenders.base import top_k

scores = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 12)),
    elements=st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0]),
)


@given(scores, st.integers(1, 14))
def test_top_k_is_a_stable_sort_of_every_row(table, k):
    items, best = top_k(table.copy(), k)
    for row, found, values in zip(table, items.tolist(), best.tolist(), strict=True):
        order = [item for item in np.argsort(-row, kind="stable").tolist() if row[item] > -np.inf][:k]
        assert found == order + [-1] * (k - len(order))
        assert values == row[order].tolist() + [-np.inf] * (k - len(order))
