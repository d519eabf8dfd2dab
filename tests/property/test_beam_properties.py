"""What beam search promises for every catalogue, model and restriction."""

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tesserec.functional.beam import BeamResult, beam_search, expand, rank_targets
from tesserec.functional.exact import exact_scores
from tesserec.functional.trie import ConstraintIndex, Restriction
from toy_decoder import ToyDecoder, dictionary_beam, ranked


class Case:
    """A catalogue, a model of some users, and what each user may get."""

    def __init__(self, codes: Any, sizes: tuple[int, ...], decoder: ToyDecoder, is_open: Any, restriction: Restriction):
        self.codes, self.sizes, self.decoder, self.is_open = codes, sizes, decoder, is_open
        self.index = restriction.index
        self.restriction = None if is_open.all() else restriction
        self.n_users = len(is_open)

    def ids(self, user: int) -> list[tuple[int, ...]]:
        """IDs of the items that are open to the user."""
        return [tuple(row) for row in self.codes[self.is_open[user]].tolist()]

    def beam(self, width: int, certify: int | None = None) -> BeamResult:
        return beam_search(
            self.decoder.stepper(), self.index, beam_width=width, certify=certify, restriction=self.restriction
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    sizes = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    n_items, n_users = draw(st.integers(1, 40)), draw(st.integers(1, 4))
    codes = np.stack([rng.integers(0, size, n_items) for size in sizes], axis=1)
    decoder = ToyDecoder.random(
        n_users,
        sizes,
        seed=draw(st.integers(0, 2**20)),
        peak=draw(st.sampled_from([0.5, 2.0, 6.0])),
        ties=draw(st.booleans()),
    )
    index = ConstraintIndex.build(codes, sizes)
    is_open = np.ones((n_users, n_items), dtype=np.bool_)
    sets, denied = None, None
    if draw(st.booleans()):
        shared = draw(st.booleans())
        masks = rng.random((1 if shared else n_users, n_items)) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
        sets = index.item_sets(masks)
        is_open &= masks
    if draw(st.booleans()):
        n_denied = draw(st.integers(0, 2 * n_items))
        rows, items = rng.integers(0, n_users, n_denied), rng.integers(0, n_items, n_denied)
        denied = (torch.from_numpy(rows), torch.from_numpy(items))
        is_open[rows, items] = False
    return Case(codes, sizes, decoder, is_open, index.restrict(sets, denied=denied))


def answer(result: BeamResult, user: int) -> list[tuple[tuple[int, ...], np.float32]]:
    valid = result.valid[user]
    return list(zip(map(tuple, result.codes[user, valid].tolist()), result.scores[user, valid].numpy()))


@given(cases(), st.integers(1, 12))
def test_restricted_beam_is_a_dictionary_beam_over_the_open_items_bit_for_bit(case: Case, width: int) -> None:
    result = case.beam(width)
    for user in range(case.n_users):
        assert answer(result, user) == dictionary_beam(case.decoder, user, case.ids(user), width)


@given(cases(), st.integers(1, 12))
def test_restricted_beam_is_the_beam_over_a_trie_rebuilt_from_the_open_items(case: Case, width: int) -> None:
    result = case.beam(width)
    for user in range(case.n_users):
        if not case.is_open[user].any():
            assert answer(result, user) == []
            continue
        rebuilt = ConstraintIndex.build(case.codes[case.is_open[user]], case.sizes)
        alone = beam_search(case.decoder.take([user]).stepper(), rebuilt, beam_width=width)
        assert answer(result, user) == answer(alone, 0)
        assert result.exact[user] == alone.exact[0]


@given(cases())
def test_beam_as_wide_as_the_catalogue_equals_exhaustive_ranking(case: Case) -> None:
    result = case.beam(len(case.codes))
    assert result.exact.all()
    for user in range(case.n_users):
        assert answer(result, user) == ranked(case.decoder.scores(user, case.ids(user)))


@given(cases(), st.integers(1, 12), st.integers(1, 12))
def test_certified_list_is_the_exact_one(case: Case, width: int, certify: int) -> None:
    result = case.beam(width, certify)
    for user in np.flatnonzero(result.exact):
        assert answer(result, user)[:certify] == ranked(case.decoder.scores(user, case.ids(user)))[:certify]


@given(cases(), st.integers(1, 12))
def test_batch_of_mixed_requests_answers_each_as_alone(case: Case, width: int) -> None:
    together = case.beam(width)
    for user in range(case.n_users):
        sets = case.index.item_sets(case.is_open[user])
        alone = beam_search(
            case.decoder.take([user]).stepper(), case.index, beam_width=width, restriction=case.index.restrict(sets)
        )
        assert answer(together, user) == answer(alone, 0)
        assert together.exact[user] == alone.exact[0]


@given(cases(), st.integers(1, 12), st.integers(1, 50))
def test_expanded_items_and_ranks_are_those_of_a_slow_count(case: Case, width: int, k: int) -> None:
    result = case.beam(width)
    items, scores = expand(result, case.index, k, restriction=case.restriction)
    targets = torch.arange(case.n_users) % len(case.codes)
    ranks = rank_targets(result, case.index, targets, restriction=case.restriction)
    for user in range(case.n_users):
        beam = answer(result, user)
        listed = [
            (int(item), score)
            for codes, score in beam
            for item in np.flatnonzero((case.codes == np.array(codes)).all(axis=1) & case.is_open[user])
        ]
        assert [
            (item, score) for item, score in zip(items[user].tolist(), scores[user].numpy()) if item >= 0
        ] == listed[:k]
        assert (items[user, len(listed) :] == -1).all()
        assert (scores[user, len(listed) :] == -torch.inf).all()
        target = int(targets[user])
        found = [score for item, score in listed if item == target]
        assert ranks.found[user] == bool(found)
        if found:
            assert ranks.ahead[user] == sum(score > found[0] for _, score in listed)
            assert ranks.tied[user] == sum(score == found[0] for _, score in listed)
            assert ranks.id_rank[user] == 1 + [codes for codes, _ in beam].index(tuple(case.codes[target].tolist()))


@given(cases(), st.integers(1, 7))
@settings(max_examples=50)
def test_exact_scores_are_the_sums_along_the_paths(case: Case, block: int) -> None:
    scores = exact_scores(case.decoder.node_log_probs, case.index, block=block).numpy()
    for user in range(case.n_users):
        expected = case.decoder.scores(user, map(tuple, case.codes.tolist()))
        assert scores[user].tolist() == [expected[tuple(row)] for row in case.codes.tolist()]
