"""What stays of semantic IDs from one fit to the next, on catalogues small enough to judge by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import adjusted_rand_score

from tesserec.data.catalogue import Catalogue
from tesserec.errors import DataError
from tesserec.evaluation import stability
from tesserec.functional.partitions import adjusted_rand, relabelled
from tesserec.tokenizers.collisions import with_extra_level
from tesserec.tokenizers.semantic_ids import SemanticIds

CATALOGUE = Catalogue(["a", "b", "c", "d"])
OLD = [[0, 0], [0, 1], [1, 0], [1, 1]]


def ids(codes: list[list[int]], catalogue: Catalogue = CATALOGUE) -> SemanticIds:
    return SemanticIds(catalogue, np.array(codes), (4,) * len(codes[0]))


def test_churn_by_hand() -> None:
    """d leaves its first group; a and b swap their second codes."""
    found = stability(ids(OLD), ids([[0, 1], [0, 0], [1, 0], [0, 1]]))
    assert found.churn == (0.25, 0.75)
    assert (found.items, found.added, found.removed, found.changed) == (4, 0, 0, 0.75)


def test_codes_under_other_names_are_churn_but_the_same_structure() -> None:
    names = np.array([3, 1, 0, 2])
    found = stability(ids(OLD), ids(names[np.array(OLD)].tolist()))
    assert found.churn == (0.5, 0.75)  # 1 is still called 1, 0 is not
    assert found.churn_relabelled == (0, 0)
    assert found.rand == (1, 1)


def test_a_code_that_finds_no_partner_is_churn() -> None:
    found = stability(ids([[0], [0], [0], [1]]), ids([[0], [0], [1], [2]]))
    assert found.churn_relabelled == (0.25,)


def test_items_are_matched_by_id_and_those_of_one_side_are_counted() -> None:
    newer = Catalogue(["new", "c", "b", "a"])
    found = stability(ids(OLD), ids([[2, 2], [1, 0], [0, 1], [0, 0]], newer))
    assert (found.items, found.added, found.removed, found.changed) == (3, 1, 1, 0)
    assert found.churn == (0, 0)


def test_places_among_colliding_items_change_ids_but_mean_nothing() -> None:
    crowd = ids([[0], [0], [1], [1]])
    later = SemanticIds(CATALOGUE, np.array([[0, 1], [0, 0], [1, 0], [1, 1]]), (4, 2), "extra-level")
    found = stability(with_extra_level(crowd, 2), later)
    assert found.changed == 0.5
    assert found.churn == (0,)


def test_the_smaller_number_of_levels_counts() -> None:
    found = stability(ids(OLD), ids([[0], [0], [1], [1]]))
    assert found.churn == (0,)
    assert found.changed == 1


def test_ids_without_a_common_item_are_refused() -> None:
    with pytest.raises(DataError, match=r"None of the 4 items .*'a', 'b', 'c'.* among the 2"):
        stability(ids(OLD), ids([[0], [1]], Catalogue(["x", "y"])))


GROUPINGS = st.integers(1, 25).flatmap(lambda n: st.tuples(*[arrays(np.int64, n, elements=st.integers(0, 5))] * 2))


@given(GROUPINGS)
def test_the_rand_index_is_that_of_scikit_learn(groupings: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = groupings
    assert adjusted_rand(one, other) == pytest.approx(adjusted_rand_score(one, other), abs=1e-12)


@given(GROUPINGS, st.permutations(range(6)))
def test_renaming_undoes_any_renaming_and_never_lowers_agreement(
    groupings: tuple[np.ndarray, np.ndarray], names: list[int]
) -> None:
    reference, codes = groupings
    assert (relabelled(np.array(names)[reference], reference) == reference).all()
    agreeing = (relabelled(codes, reference) == reference).sum()
    assert agreeing >= (codes == reference).sum()
    assert agreeing == (relabelled(np.array(names)[codes], reference) == reference).sum()
