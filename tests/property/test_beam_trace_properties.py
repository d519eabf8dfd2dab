"""Following one item per user through a beam search, against the search itself and a model that can be enumerated."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tesserec.functional.beam import beam_search
from tesserec.functional.beam_trace import BeamTrace, trace_targets
from tesserec.functional.exact import exact_scores, prefix_ranks
from tesserec.functional.trie import ConstraintIndex
from toy_decoder import ToyDecoder, dictionary_beam, ranked

N_USERS = 3


class Case:
    """A catalogue, a model, a target for each user, and items that users may not get."""

    def __init__(self, sizes: list[int], n_items: int, seed: int, ties: bool, denies: bool) -> None:
        random = np.random.default_rng(seed)
        self.codes = np.stack([random.integers(size, size=n_items) for size in sizes], axis=1)
        self.index = ConstraintIndex.build(self.codes, sizes)
        self.decoder = ToyDecoder.random(N_USERS, sizes, seed=seed, ties=ties)
        self.targets = torch.from_numpy(random.integers(n_items, size=N_USERS))
        self.is_open = np.ones((N_USERS, n_items), dtype=bool)
        self.restriction = None
        if denies:
            rows, items = random.integers(N_USERS, size=n_items), random.integers(n_items, size=n_items)
            self.is_open[rows, items] = False
            self.restriction = self.index.restrict(denied=(torch.from_numpy(rows), torch.from_numpy(items)))

    def trace(self, width: int) -> BeamTrace:
        return trace_targets(
            self.decoder.stepper(), self.index, self.targets, beam_width=width, restriction=self.restriction
        )

    def ids(self, user: int) -> set[tuple[int, ...]]:
        return {tuple(row) for row in self.codes[self.is_open[user]].tolist()}

    def target(self, user: int) -> tuple[int, ...]:
        return tuple(self.codes[int(self.targets[user])].tolist())


cases = st.builds(
    Case,
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.integers(1, 40),
    st.integers(0, 2**20),
    st.booleans(),
    st.booleans(),
)


@given(cases, st.integers(1, 10))
def test_what_is_kept_is_what_the_search_returns(case: Case, width: int) -> None:
    trace = case.trace(width)
    result = beam_search(case.decoder.stepper(), case.index, beam_width=width, restriction=case.restriction)
    for user in range(N_USERS):
        returned = [tuple(row) for row in result.codes[user, result.valid[user]].tolist()]
        assert bool(trace.open[user]) == case.is_open[user, int(case.targets[user])]
        if trace.open[user]:
            assert bool(trace.kept[user, -1]) == (case.target(user) in returned)
        if trace.kept[user, -1]:
            assert int(trace.above[user]) == returned.index(case.target(user))


@given(cases, st.integers(1, 10))
def test_a_prefix_is_kept_exactly_while_its_rank_is_within_the_width(case: Case, width: int) -> None:
    trace = case.trace(width)
    for user in np.flatnonzero(trace.open.numpy()):
        within = (trace.ranks[user] <= width).tolist()
        kept = trace.kept[user].tolist()
        first_lost = kept.index(False) if False in kept else len(kept)
        assert all(within[:first_lost])
        assert first_lost == len(kept) or not within[first_lost]
        assert not any(kept[first_lost:])


@given(cases, st.integers(1, 4))
def test_prefixes_leave_on_the_level_on_which_a_dictionary_beam_drops_them(case: Case, width: int) -> None:
    trace = case.trace(width)
    for user in np.flatnonzero(trace.open.numpy()):
        for depth in range(1, case.codes.shape[1] + 1):
            shorter = ToyDecoder(case.decoder.tables[:depth], case.decoder.codebook_sizes[:depth])
            prefixes = {codes[:depth] for codes in case.ids(user)}
            beam = [codes for codes, _ in dictionary_beam(shorter, user, prefixes, width)]
            assert bool(trace.kept[user, depth - 1]) == (case.target(user)[:depth] in beam)


@given(cases, st.integers(1, 3))
def test_the_likelihood_is_exact_whatever_the_beam_did(case: Case, width: int) -> None:
    trace = case.trace(width)
    exact = exact_scores(case.decoder.node_log_probs, case.index)
    assert torch.allclose(trace.log_probs.sum(dim=1), exact[torch.arange(N_USERS), case.targets], atol=1e-5)


@given(cases)
def test_prefix_ranks_are_places_among_all_open_prefixes_and_a_beam_as_wide_as_the_worst_keeps_the_id(
    case: Case,
) -> None:
    ranks = prefix_ranks(case.decoder.node_log_probs, case.index, case.targets, restriction=case.restriction)
    for user in np.flatnonzero(case.is_open[np.arange(N_USERS), case.targets.numpy()]):
        for depth in range(1, case.codes.shape[1] + 1):
            shorter = ToyDecoder(case.decoder.tables[:depth], case.decoder.codebook_sizes[:depth])
            order = [codes for codes, _ in ranked(shorter.scores(user, {ids[:depth] for ids in case.ids(user)}))]
            assert int(ranks[user, depth - 1]) == order.index(case.target(user)[:depth]) + 1
        worst = int(ranks[user].max())
        assert bool(case.trace(worst).kept[user, -1])
        assert int(case.trace(worst).ranks[user, 0]) == int(ranks[user, 0])  # all codes compete on the first level
