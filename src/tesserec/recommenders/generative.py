"""What every model that generates semantic IDs shares: ranking and recommending by beam, or by scoring every ID.

A method brings a `Decoder` per batch of users: its network with their histories read in. Which items may be
recommended, the search, the places of targets and the way back from IDs to items are the same for all of them.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from tesserec.data.sequences import Sequences
from tesserec.data.splits import Cases, Split
from tesserec.errors import ConfigError
from tesserec.functional.beam import beam_search, expand, rank_targets
from tesserec.functional.exact import exact_scores
from tesserec.functional.trie import ConstraintIndex, ItemSets, Restriction
from tesserec.progress import SILENT, Progress
from tesserec.recommenders.base import Candidates, Ranks, Recommendations, Recommender, blocks, top_k
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.types import FloatArray, IntArray


class Decoder(Protocol):
    """A model with the histories of B users read in."""

    def step(self, level: int, parents: Tensor | None, codes: Tensor | None) -> Tensor:
        """One step of a beam search; see `tesserec.functional.beam.Step`."""

    def node_log_probs(self, level: int, prefixes: Tensor) -> Tensor:
        """All nodes of a level at once; see `tesserec.functional.exact.NodeLogProbs`."""


class Decoding(NamedTuple):
    """A batch of users that are decoded together."""

    rows: IntArray  # (B,) their places among the histories
    decoder: Decoder
    restriction: Restriction | None  # what each of them may get; None: everything


class GenerativeRecommender(Recommender):
    """Recommends the items whose semantic IDs are the most likely continuation of a history."""

    is_generative = True
    needs_semantic_ids = True

    def __init__(self, config: Any, semantic_ids: SemanticIds) -> None:
        """config: has `beam_width`, hypotheses kept per user."""
        super().__init__(config)
        self.semantic_ids = semantic_ids
        self.beam_width, self.exact = config.beam_width, False  # how items are ranked; may be changed at any time

    @abstractmethod
    def decoders(self, histories: Sequences, users: IntArray | None) -> Iterator[tuple[IntArray, Decoder]]:
        """The histories, M sequences of item rows, read in by batches of users: (rows, decoder), every row once.

        Args:
            users: (M,) rows of the users in the training data, or None: users that were not trained on.
        """

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the network is."""

    def require_own_ids(self, split: Split) -> None:
        """Refuse data whose items the semantic IDs do not describe."""
        if split.dataset.catalogue.fingerprint != self.semantic_ids.catalogue.fingerprint:
            raise ConfigError(
                f"The semantic IDs describe {len(self.semantic_ids.catalogue)} items, the data set has {split.n_items} "
                "(or the same in another order). Make the IDs from the embeddings of this data set."
            )

    # -- answering -------------------------------------------------------------------------------------------------

    @property
    def ranking(self) -> str:
        return "exact, every semantic ID scored" if self.exact else f"beam of {self.beam_width}, constrained"

    def _recommend(self, histories: Sequences, k: int, candidates: Candidates) -> Recommendations:
        items = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        index = self.index
        for rows, decoder, restriction in self.decodings(histories, None, candidates):
            if self.exact:
                items[rows], scores[rows] = top_k(_open_scores(decoder, index, candidates, rows), k)
            else:
                items[rows], scores[rows] = self._best_items(decoder, index, restriction, k)
        return Recommendations(self.fitted_catalogue, items, scores)

    def _best_items(
        self, decoder: Decoder, index: ConstraintIndex, restriction: Restriction | None, k: int
    ) -> tuple[IntArray, FloatArray]:
        """The k best items of each of B users by beam, and their scores: (B, k), -1 and -inf where there are fewer."""
        result = beam_search(decoder.step, index, beam_width=max(self.beam_width, k), restriction=restriction)
        items, scores = expand(result, index, k, restriction=restriction)
        return items.cpu().numpy(), scores.cpu().numpy()

    def rank(
        self, cases: Cases, *, exclude_seen: bool = False, list_length: int = 0, progress: Progress = SILENT
    ) -> Ranks:
        found, exact = np.zeros((2, len(cases)), dtype=np.bool_)
        ahead, tied, id_rank = np.zeros((3, len(cases)), dtype=np.int64)
        lists = np.full((len(cases), list_length), -1, dtype=np.int64)
        index = self.index
        with progress.task("ranking", len(cases)) as task:
            for block in blocks(len(cases)):
                part = cases.take(np.arange(len(cases))[block])
                candidates = Candidates(denied=part.histories if exclude_seen else None)
                for rows, decoder, restriction in self.decodings(part.histories, part.users, candidates):
                    at, targets = block.start + rows, part.targets[rows]
                    if self.exact:
                        every = _open_scores(decoder, index, candidates, rows)
                        found[at], ahead[at], tied[at], id_rank[at] = self._exact_ranks(every, targets)
                        exact[at] = True
                        if list_length:
                            lists[at] = top_k(every, list_length)[0]
                    else:
                        result = beam_search(decoder.step, index, beam_width=self.beam_width, restriction=restriction)
                        wanted = torch.from_numpy(targets).to(index.device)
                        ranks = rank_targets(result, index, wanted, restriction=restriction)
                        found[at], ahead[at] = ranks.found.cpu().numpy(), ranks.ahead.cpu().numpy()
                        tied[at], id_rank[at] = ranks.tied.cpu().numpy(), ranks.id_rank.cpu().numpy()
                        exact[at] = result.exact.cpu().numpy()
                        if list_length:
                            lists[at] = expand(result, index, list_length, restriction=restriction)[0].cpu().numpy()
                    task.advance(len(rows))
        return Ranks(found, ahead, np.maximum(tied, 1), id_rank, exact, lists if list_length else None)

    @property
    def index(self) -> ConstraintIndex:
        """The trie of all IDs, on the network's device."""
        return self.semantic_ids.trie().to(self.device)

    @torch.inference_mode()
    def decodings(self, histories: Sequences, users: IntArray | None, candidates: Candidates) -> Iterator[Decoding]:
        """The histories by batches of users, each with the part of the trie that is open to it."""
        index = self.index
        shared: ItemSets | None = None
        if candidates.allowed is not None and candidates.allowed.ndim == 1:
            shared = index.item_sets(candidates.allowed)
        for rows, decoder in self.decoders(histories, users):
            restriction = None
            if candidates.allowed is not None:
                restriction = index.restrict(shared if shared else index.item_sets(candidates.allowed[rows]))
            if candidates.denied is not None:
                denied_rows, places = candidates.denied.take(rows).positions()
                items = candidates.denied.values[places].astype(np.int64)
                pairs = torch.from_numpy(denied_rows).to(index.device), torch.from_numpy(items).to(index.device)
                restriction = (restriction or index.restrict()).deny(*pairs)
            yield Decoding(rows, decoder, restriction)

    def _exact_ranks(self, scores: FloatArray, targets: IntArray) -> tuple[Any, Any, Any, Any]:
        """Found, ahead, tied, place of the ID (equal scores in the order of codes, as in beams) from scores (B, N)."""
        ids = self.semantic_ids
        target, target_id = scores[np.arange(len(scores)), targets][:, None], ids.group_of_item[targets][:, None]
        by_id = np.argsort(ids.group_of_item, kind="stable")
        firsts = np.cumsum(ids.group_sizes) - ids.group_sizes
        best = np.maximum.reduceat(scores[:, by_id], firsts, axis=1)  # (B, distinct IDs), -inf where no item is open
        before = (best > target) | ((best == target) & (np.arange(len(firsts)) < target_id))
        found = np.isfinite(target[:, 0])
        return found, (scores > target).sum(axis=1), (scores == target).sum(axis=1), before.sum(axis=1) + 1

    # -- saving ----------------------------------------------------------------------------------------------------

    def _extra_sources(self) -> dict[str, str]:
        return {"semantic_ids": self.semantic_ids.fingerprint}


def _open_scores(decoder: Decoder, index: ConstraintIndex, candidates: Candidates, rows: IntArray) -> FloatArray:
    """(B, N) exact scores of every item, -inf for those that are no candidates."""
    scores = exact_scores(decoder.node_log_probs, index).cpu().numpy()
    allowed = candidates.allowed
    part = allowed[rows] if allowed is not None and allowed.ndim == 2 else allowed
    Candidates(part, candidates.denied.take(rows) if candidates.denied is not None else None).mask(scores)
    return scores
