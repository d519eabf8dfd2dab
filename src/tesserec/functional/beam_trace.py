"""What a beam search did with one item per user: where its ID's prefix fell out, and what the model thought of it.

The search is that of `beam_search`, hypothesis for hypothesis. The target's own prefix goes along as one more query
position of its user, which takes no place in the beam and changes nothing in it. So one pass tells what the beam kept
and what the model says of the target after it was dropped: its exact log-probability and its rank among what the
beam looked at.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tesserec.errors import ConfigError
from tesserec.functional.beam import Growth, Step, grow, keep, require_shape
from tesserec.functional.trie import ConstraintIndex, Restriction


@dataclass(frozen=True, eq=False)
class BeamTrace:
    """One target of each of B users in a beam search over L levels."""

    open: Tensor  # (B,) bool: False: the target was no candidate, and the rest says nothing
    kept: Tensor  # (B, L) bool: after this level the target's prefix was in the beam, as on all levels before
    ranks: Tensor  # (B, L) int64, from 1: of the target's prefix among the children of the beam's hypotheses and itself
    log_probs: Tensor  # (B, L) float32: of the target's code on this level, given its codes before
    above: Tensor  # (B,) int64: IDs in the final beam that are more likely than the target's (or as likely, and before)


@torch.inference_mode()
def trace_targets(
    step: Step,
    index: ConstraintIndex,
    targets: Tensor,
    *,
    beam_width: int,
    restriction: Restriction | None = None,
) -> BeamTrace:
    """Search as `beam_search` does and watch the IDs of the targets.

    Args:
        step: the model, see `Step`; from level 1 on it is asked for one position more than there are hypotheses.
        index: on the model's device.
        targets: (B,) int64 item rows, on the same device.
        beam_width: hypotheses kept per user and level, >= 1.
        restriction: over B rows; None: the whole catalogue is open to everyone.

    Raises:
        ConfigError: `beam_width` < 1, or the model's answer has another shape than the index asks for.
    """
    if beam_width < 1:
        raise ConfigError(f"beam_width is {beam_width}. Keep 1 hypothesis or more.")
    path = index.path_of(targets)  # L + 1 of (B,): the target's node of each depth
    log_probs = step(0, None, None)  # (B, 1, K_0)
    n_users, device = len(log_probs), index.device
    nodes = torch.zeros(n_users, 1, dtype=torch.int64, device=device)
    parents, codes = nodes, nodes
    scores = torch.zeros(n_users, 1, device=device)
    score = torch.zeros(n_users, device=device)  # of the target's prefix
    own = 0  # position of the target's prefix on the previous level
    users = torch.arange(n_users, device=device)
    alive = torch.ones(n_users, dtype=torch.bool, device=device)
    kept, ranks, own_log_probs = list[Tensor](), list[Tensor](), list[Tensor]()
    for level, codebook_size in enumerate(index.codebook_sizes):
        width = nodes.shape[1]
        if level > 0:
            before = index.codes[level - 1][path[level]].long()
            log_probs = step(level, F.pad(parents, (0, 1), value=own), torch.cat([codes, before[:, None]], dim=1))
            own = width
        require_shape(level, log_probs, (n_users, own + 1, codebook_size))
        code = index.codes[level][path[level + 1]].long()
        # While the prefix is in the beam its own position says the same up to rounding; the beam's counts.
        at = torch.where(alive, (nodes == path[level][:, None]).long().argmax(dim=1), own)
        score = torch.where(alive, scores.gather(1, at[:, None].clamp_max(width - 1))[:, 0], score)
        own_log_probs.append(log_probs[users, at, code].float())
        score = score + own_log_probs[-1]
        growth = grow(index, level, nodes, scores, log_probs[:, :width], restriction)
        ranks.append(_before(growth, score, path[level + 1], alive) + 1)
        nodes, parents, scores, _ = keep(growth, beam_width)
        alive = alive & ((nodes == path[level + 1][:, None]) & (scores > -torch.inf)).any(dim=1)
        kept.append(alive)
        codes = index.codes[level][nodes].long().masked_fill(scores == -torch.inf, 0)
    leaf = path[-1][:, None]
    above = (scores > score[:, None]) | ((scores == score[:, None]) & (nodes < leaf))
    reach = restriction if restriction is not None else index.restrict()
    return BeamTrace(
        open=reach.permits(index.n_levels + 1, users, index.position_of[targets].long()),
        kept=torch.stack(kept, dim=1),
        ranks=torch.stack(ranks, dim=1),
        log_probs=torch.stack(own_log_probs, dim=1),
        above=(above & (scores > -torch.inf)).sum(dim=1),
    )


def _before(growth: Growth, score: Tensor, node: Tensor, among_them: Tensor) -> Tensor:
    """(B,) children with a higher score than this node's, or an equal one and an earlier place in the order of codes.

    Args:
        among_them: (B,) bool: whether the node itself is one of the children.
    """
    higher = (growth.scores > score[:, None]).sum(dim=1)
    equal = (growth.scores == score[:, None]) & (score > -torch.inf)[:, None]
    if (equal.sum(dim=1) <= among_them).all():  # nothing but itself: no need to find out which nodes these are
        return higher
    columns = torch.arange(growth.scores.shape[1], device=score.device).expand_as(growth.scores)
    return higher + (equal & (growth.find(columns.where(equal, 0))[0] < node[:, None])).sum(dim=1)
