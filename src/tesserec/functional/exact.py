"""Exact scores of every item of the catalogue under a generative model: the oracle of beam search.

The log-probability of an ID is the sum over its path, so one decoder position per internal node of the trie scores all
items, instead of L positions per item: 19,825 instead of 48,404 on the Beauty IDs of LETTER.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from tesserec.errors import ConfigError
from tesserec.functional.trie import ConstraintIndex

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
    return scores[:, index.leaf_of(torch.arange(index.n_items, device=index.device))]
