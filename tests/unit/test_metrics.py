"""Hand-worked values of the metrics."""

import numpy as np
import pytest

from tesserec.errors import ConfigError
from tesserec.functional.metrics import expected_metric, id_metric, parse_metric


def expected(name: str, ahead: int, tied: int, *, found: bool = True) -> float:
    return float(expected_metric(name, np.array([found]), np.array([ahead]), np.array([tied]))[0])


@pytest.mark.parametrize(
    ("ahead", "tied", "hit", "ndcg"),
    [(0, 65, 0.1538, 0.0699), (8, 5, 0.4, 0.1180), (0, 1, 1.0, 1.0), (2, 1, 1.0, 0.5), (10, 1, 0.0, 0.0)],
)
def test_expected_values_at_ten(ahead, tied, hit, ndcg):
    assert expected("recall@10", ahead, tied) == pytest.approx(hit, abs=5e-5)
    assert expected("ndcg@10", ahead, tied) == pytest.approx(ndcg, abs=5e-5)


def test_mrr_is_the_reciprocal_of_the_place_up_to_the_cutoff():
    assert expected("mrr@10", ahead=3, tied=1) == pytest.approx(0.25)
    assert expected("mrr@3", ahead=3, tied=1) == 0.0


def test_an_unranked_target_counts_zero():
    for name in ("recall@10", "ndcg@10", "mrr@10"):
        assert expected(name, ahead=0, tied=1, found=False) == 0.0


def test_the_papers_way_counts_a_whole_group_as_the_target():
    found, id_rank = np.array([True]), np.array([1])
    assert id_metric("id_recall@10", found, id_rank)[0] == 1.0
    assert expected("recall@10", ahead=0, tied=65) < 0.16


def test_names_are_checked():
    assert parse_metric("mrr@50") == ("mrr", 50)
    with pytest.raises(ConfigError, match="Did you mean 'ndcg'"):
        parse_metric("ndgc@10")
    for name in ("ndcg", "ndcg@0", "ndcg@ten", "ndcg@-1"):
        with pytest.raises(ConfigError, match="ndcg@10"):
            parse_metric(name)
