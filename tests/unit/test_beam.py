import numpy as np
import pytest
import torch
from torch import Tensor

from tesserec.errors import ConfigError
from tesserec.functional.beam import BeamResult, beam_search, expand, rank_targets
from tesserec.functional.exact import exact_scores
from tesserec.functional.trie import ConstraintIndex
from toy_decoder import ToyDecoder

# sorted: (0, 1) item 3; (0, 2) item 1; (1, 0) items 0 and 2
CODES = np.array([[1, 0], [0, 2], [1, 0], [0, 1]])
FIRST = torch.tensor([[0.4, 0.6]]).log()
SECOND = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]]).log()  # after 0, after 1


def step(level: int, parents: Tensor | None, codes: Tensor | None) -> Tensor:
    """p(0, 1) = .28, p(0, 2) = .08, p(1, 0) = .3; the rest goes to IDs that no item has."""
    return FIRST[None] if codes is None else SECOND[codes]


@pytest.fixture
def index() -> ConstraintIndex:
    return ConstraintIndex.build(CODES, (2, 3))


def search(index: ConstraintIndex, width: int) -> BeamResult:
    return beam_search(step, index, beam_width=width)


def test_scores_are_unconditional_log_probabilities(index: ConstraintIndex) -> None:
    result = search(index, 3)
    assert result.codes.tolist() == [[[1, 0], [0, 1], [0, 2]]]
    torch.testing.assert_close(result.scores.exp(), torch.tensor([[0.3, 0.28, 0.08]]))


def test_items_of_one_id_share_its_score_in_item_order(index: ConstraintIndex) -> None:
    items, scores = expand(search(index, 3), index, 6)
    assert items.tolist() == [[0, 2, 3, 1, -1, -1]]
    torch.testing.assert_close(scores.exp(), torch.tensor([[0.3, 0.3, 0.28, 0.08, 0, 0]]))


def test_group_larger_than_k_is_cut_at_k_items(index: ConstraintIndex) -> None:
    items, _ = expand(search(index, 3), index, 1)
    assert items.tolist() == [[0]]


def test_certificate_knows_what_was_dropped(index: ConstraintIndex) -> None:
    narrow = beam_search(step, index, beam_width=1)
    assert narrow.codes.tolist() == [[[1, 0]]]
    assert not narrow.exact.item()  # the dropped prefix (0,) has probability .4, the ID that was found .3
    assert beam_search(step, index, beam_width=2).exact.item()  # dropped: (0, 2) at .08
    assert beam_search(step, index, beam_width=3).exact.item()


def test_certificate_can_speak_of_fewer_ids_than_the_beam_has() -> None:
    codes = np.array([[0, 0], [1, 0], [1, 1]])
    first, second = torch.tensor([[0.7, 0.3]]).log(), torch.tensor([[0.9, 0.1], [0.6, 0.4]]).log()
    index = ConstraintIndex.build(codes, (2, 2))

    def peaked(level: int, parents: Tensor | None, codes: Tensor | None) -> Tensor:
        return first[None] if codes is None else second[codes]

    assert beam_search(peaked, index, beam_width=1).exact.item()  # .63 found, .3 dropped
    assert not beam_search(peaked, index, beam_width=1, certify=2).exact.item()


def test_certificate_does_not_hold_where_a_dropped_prefix_could_tie() -> None:
    index = ConstraintIndex.build(np.array([[0, 0], [1, 0]]), (2, 2))
    first, second = torch.tensor([[-2.0, -1.0]]), torch.tensor([[0.0, -torch.inf], [-1.0, -1.0]])

    def tied(level: int, parents: Tensor | None, codes: Tensor | None) -> Tensor:
        return first[None] if codes is None else second[codes]

    result = beam_search(tied, index, beam_width=1)
    assert result.codes.tolist() == [[[1, 0]]]  # at -2, as the dropped (0, 0), which is first in the order of codes
    assert not result.exact.item()


def test_ranks_count_items_not_ids(index: ConstraintIndex) -> None:
    result = search(index, 3)
    of_item_1 = rank_targets(result, index, torch.tensor([1]))
    assert (of_item_1.found.item(), of_item_1.ahead.item(), of_item_1.tied.item()) == (True, 3, 1)
    assert of_item_1.id_rank.item() == 3
    of_item_2 = rank_targets(result, index, torch.tensor([2]))
    assert (of_item_2.ahead.item(), of_item_2.tied.item(), of_item_2.id_rank.item()) == (0, 2, 1)


def test_target_that_no_beam_reached_is_not_found(index: ConstraintIndex) -> None:
    assert not rank_targets(search(index, 1), index, torch.tensor([1])).found.item()


def test_denied_items_leave_ranking_but_their_siblings_stay_reachable(index: ConstraintIndex) -> None:
    restriction = index.restrict(denied=(torch.tensor([0]), torch.tensor([0])))
    result = beam_search(step, index, beam_width=3, restriction=restriction)
    assert expand(result, index, 4, restriction=restriction)[0].tolist() == [[2, 3, 1, -1]]
    sibling = rank_targets(result, index, torch.tensor([2]), restriction=restriction)
    assert (sibling.found.item(), sibling.ahead.item(), sibling.tied.item()) == (True, 0, 1)
    behind = rank_targets(result, index, torch.tensor([3]), restriction=restriction)
    assert (behind.ahead.item(), behind.id_rank.item()) == (1, 2)
    assert not rank_targets(result, index, torch.tensor([0]), restriction=restriction).found.item()


def test_nothing_allowed_gives_an_empty_answer(index: ConstraintIndex) -> None:
    restriction = index.restrict(index.item_sets(np.zeros(4, dtype=np.bool_)))
    result = beam_search(step, index, beam_width=3, restriction=restriction)
    assert not result.valid.any()
    items, scores = expand(result, index, 2, restriction=restriction)
    assert items.tolist() == [[-1, -1]]
    assert scores.tolist() == [[-np.inf, -np.inf]]
    assert not rank_targets(result, index, torch.tensor([0]), restriction=restriction).found.item()


@pytest.mark.parametrize("item", range(4))
def test_single_allowed_item_is_the_answer(index: ConstraintIndex, item: int) -> None:
    restriction = index.restrict(index.item_sets(np.arange(4) == item))
    result = beam_search(step, index, beam_width=3, restriction=restriction)
    assert result.exact.item()
    assert expand(result, index, 3, restriction=restriction)[0].tolist() == [[item, -1, -1]]


def test_catalogue_of_one_item_is_the_answer() -> None:
    index = ConstraintIndex.build(np.array([[1, 2]]), (2, 3))
    result = search(index, 20)
    assert (result.codes.tolist(), result.exact.item()) == ([[[1, 2]]], True)


def test_ids_of_probability_zero_are_never_answered() -> None:
    index = ConstraintIndex.build(np.array([[0], [1], [2]]), (3,))
    impossible = torch.tensor([[[0.0, 1.0, 0.0]]]).log()
    result = beam_search(lambda level, parents, codes: impossible, index, beam_width=3)
    assert expand(result, index, 3)[0].tolist() == [[1, -1, -1]]


def test_equal_scores_go_to_the_first_id_in_the_order_of_codes() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 6, (100, 3))
    index = ConstraintIndex.build(codes, (6, 6, 6))
    result = beam_search(ToyDecoder.random(2, (6, 6, 6), seed=0, ties=True).stepper(), index, beam_width=7)
    first = sorted({tuple(row) for row in codes.tolist()})[:7]
    assert [[tuple(row) for row in user] for user in result.codes.tolist()] == [first, first]


def test_lists_are_the_same_on_any_number_of_threads() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 16, (4000, 3))
    index = ConstraintIndex.build(codes, (16, 16, 16))
    decoder = ToyDecoder.random(64, (16, 16, 16), seed=1)
    n_threads = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            results.append(beam_search(decoder.stepper(), index, beam_width=20))
    finally:
        torch.set_num_threads(n_threads)
    for other in results[1:]:
        assert torch.equal(results[0].codes, other.codes)
        assert torch.equal(results[0].scores, other.scores)


def test_exact_scoring_does_not_depend_on_the_block() -> None:
    rng = np.random.default_rng(2)
    index = ConstraintIndex.build(rng.integers(0, 5, (60, 3)), (5, 5, 5))
    decoder = ToyDecoder.random(3, (5, 5, 5), seed=2)
    sizes = []

    def counted(level: int, prefixes: Tensor) -> Tensor:
        sizes.append(len(prefixes))
        return decoder.node_log_probs(level, prefixes)

    whole = exact_scores(decoder.node_log_probs, index)
    assert torch.equal(exact_scores(counted, index, block=4), whole)
    assert max(sizes) == 4


def test_model_that_answers_another_shape_is_refused(index: ConstraintIndex) -> None:
    with pytest.raises(
        ConfigError, match=r"At level 1 the model answered with shape \(1, 2, 2\) instead of \(1, 2, 3\)"
    ):
        beam_search(lambda level, parents, codes: torch.zeros(1, 1 if codes is None else 2, 2), index, beam_width=3)
    with pytest.raises(ConfigError, match=r"answered \(1, 2, 2\) to 2 prefixes, not \(users, 2, 3\)"):
        exact_scores(lambda level, prefixes: torch.zeros(1, len(prefixes), 2), index)


def test_beam_without_hypotheses_is_refused(index: ConstraintIndex) -> None:
    with pytest.raises(ConfigError, match="beam_width is 0"):
        search(index, 0)
