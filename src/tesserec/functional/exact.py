"""Exact scores of every item of the catalogue under a generative model: the oracle of beam search.

The log-probability of an ID is the sum over its path, so one decoder position per internal node of the trie scores all
items, instead of L positions per item: 19,825 instead of 48,404 on the Beauty IDs of LETTER.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from tesserec.errors import ConfigError
from tesserec.functional.trie import ConstraintIndex, Restriction

NodeLogProbs = Callable[[int, Tensor], Tensor]
"""node_log_probs(level, prefixes (n, level) int64) -> (B, n, codebook_sizes[level]) log-probabilities of the next code.

Prefixes are distinct, in lexicographic order, and shared by all users. The same normalisation as in beam search.
"""


@torch.inference_mode()
def exact_scores(node_log_probs: NodeLogProbs, index: ConstraintIndex, *, block: int = 1024) -> Tensor:
    """The log-probability of every item's ID for each of B users; items that share an ID share its score.

    Args:
        node_log_probs: the model, see `NodeLogProbs`.
        index: on the model's device.
        block: prefixes per call; bounds the model's memory.

    Returns:
        (B, N) float32. Sums are taken in the order of beam search, so that equal log-probabilities give equal scores.

    Raises:
        ConfigError: the model's answer has another shape than the index asks for.
    """
    *_, scores = prefix_scores(node_log_probs, index, block=block)
    return scores[:, index.leaf_of(torch.arange(index.n_items, device=index.device))]


def prefix_scores(node_log_probs: NodeLogProbs, index: ConstraintIndex, *, block: int = 1024) -> Iterator[Tensor]:
    """The log-probability of every prefix, as `exact_scores` computes it: for each depth in turn (B, n_d) float32."""
    scores = torch.zeros(
        1, 1, device=index.device
    )  # of the nodes of each depth in turn; the root's are those of any user
    for level, codebook_size in enumerate(index.codebook_sizes):
        nodes = torch.arange(index.n_nodes(level), device=index.device)
        parts = list[Tensor]()
        for part in torch.split(nodes, block):
            log_probs = node_log_probs(level, index.codes_of(level, part))
            if log_probs.shape[1:] != (len(part), codebook_size):
                raise ConfigError(
                    f"At level {level} the model answered {tuple(log_probs.shape)} to {len(part)} prefixes, not "
                    f"(users, {len(part)}, {codebook_size}). Give log-probabilities of this level's codes alone."
                )
            owner, child = index.children(level, part)
            parts.append(scores[:, part[owner]] + log_probs[:, owner, index.codes[level][child].long()].float())
        scores = torch.cat(parts, dim=1)  # (B, n_{d+1})
        yield scores


@torch.inference_mode()
def prefix_ranks(
    node_log_probs: NodeLogProbs,
    index: ConstraintIndex,
    targets: Tensor,
    *,
    restriction: Restriction | None = None,
    block: int = 1024,
) -> Tensor:
    """The rank of each target's prefix among all prefixes of its length that are open to the user.

    Whatever a beam looks at on a level is part of these, so a beam that is at least as wide as the worst of an ID's
    ranks keeps it. The last rank is the place of the target's ID in exact ranking.

    Args:
        node_log_probs, index, block: as for `exact_scores`.
        targets: (B,) int64 item rows that are open to their users.
        restriction: over B rows; None: the whole catalogue is open to everyone.

    Returns:
        (B, L) int64, from 1; of equal scores the first in the order of codes comes first.
    """
    path = index.path_of(targets)
    ranks = list[Tensor]()
    for level, scores in enumerate(prefix_scores(node_log_probs, index, block=block)):
        nodes, own = torch.arange(scores.shape[1], device=index.device), path[level + 1][:, None]
        if restriction is not None:
            users = torch.arange(len(scores), device=index.device).repeat_interleave(len(nodes))
            is_open = restriction.permits(level + 1, users, nodes.repeat(len(scores)))
            scores = scores.masked_fill(~is_open.view_as(scores), -torch.inf)
        score = scores.gather(1, own)
        before = (scores > score) | ((scores == score) & (nodes < own))
        ranks.append(before.sum(dim=1) + 1)
    return torch.stack(ranks, dim=1)
