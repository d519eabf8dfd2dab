"""Beam search inside the catalogue: the best semantic IDs of many users at once, and the items that they name.

A beam is not a copy of its user. The hypotheses of one user are query positions of one row, so that a model computes
what it knows of the user once. It is told from which hypothesis of the previous level each one came, so that step-major
caches are looked up instead of reordered. Scores are unconditional: sums of log-probabilities over *all* codes of each
level, as in Hugging Face's beam search with a prefix constraint. Every row knows whether its list is proven to be that
of exact ranking: scores only fall along a path, so nothing that was dropped can come back.

Sources: constrained decoding on flat tries, STATIC (arXiv 2602.22647); beams over one shared context, xGR (arXiv
2512.11529). **Differences**: below the dense levels no padding to the widest node; hypotheses that do not exist are
marked and never returned; ties go to the ID that comes first in the order of codes, whatever else is in the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tesserec.errors import ConfigError
from tesserec.functional.trie import ConstraintIndex, Restriction

Step = Callable[[int, Tensor | None, Tensor | None], Tensor]
"""One decoding step of a model: step(level, parents, codes) -> log-probabilities.

At level 0 there is one hypothesis per user (W = 1) and `parents` and `codes` are None. Above, hypothesis w of user b
continues hypothesis parents[b, w] of the previous level with the code codes[b, w] of that level; both are (B, W) int64,
and W may differ from level to level. Positions that hold no hypothesis have parent 0 and code 0; what the model says of
them is ignored. The answer is (B, W, codebook_sizes[level]): floats <= 0, log-softmax before any masking, over whatever
the model was trained to normalise over.
"""


@dataclass(frozen=True, eq=False)
class BeamResult:
    """The best IDs of B users, best first; W is at most the beam width, and less where the trie is narrower."""

    codes: Tensor  # (B, W, L) int64; 0 where not valid
    leaves: Tensor  # (B, W) int64 leaf of the index; 0 where not valid
    scores: Tensor  # (B, W) float32 log-probability of the whole ID; -inf where not valid
    exact: Tensor  # (B,) bool: the first `certify` IDs are proven to be those of exact ranking, in its order

    @property
    def valid(self) -> Tensor:
        """(B, W) bool; in each row the valid ones come first. IDs of probability 0 are never valid."""
        return self.scores > -torch.inf


@torch.inference_mode()
def beam_search(
    step: Step,
    index: ConstraintIndex,
    *,
    beam_width: int,
    certify: int | None = None,
    restriction: Restriction | None = None,
) -> BeamResult:
    """The most likely IDs of the catalogue for each user.

    Args:
        step: the model, see `Step`.
        index: on the model's device.
        beam_width: hypotheses kept per user and level, >= 1. As wide as the index has leaves, the result is exact.
        certify: how many of the first IDs `exact` speaks of; by default all of them (`beam_width`).
        restriction: over B rows; None: the whole catalogue is open to everyone.

    Raises:
        ConfigError: `beam_width` < 1, or the model's answer has another shape than the index asks for.
    """
    if beam_width < 1:
        raise ConfigError(f"beam_width is {beam_width}. Keep 1 hypothesis or more.")
    log_probs = step(0, None, None)  # (B, 1, K_0)
    n_users, device = len(log_probs), index.device
    nodes = torch.zeros(n_users, 1, dtype=torch.int64, device=device)
    parents, codes = nodes, nodes
    scores = torch.zeros(n_users, 1, device=device)
    best_dropped = torch.full((n_users,), -torch.inf, device=device)
    for level, codebook_size in enumerate(index.codebook_sizes):
        if level > 0:
            log_probs = step(level, parents, codes)  # (B, W, K_l)
        require_shape(level, log_probs, (*nodes.shape, codebook_size))
        nodes, parents, scores, dropped = keep(grow(index, level, nodes, scores, log_probs, restriction), beam_width)
        best_dropped = torch.maximum(best_dropped, dropped)
        codes = index.codes[level][nodes].long().masked_fill(scores == -torch.inf, 0)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    nodes = nodes.gather(1, order)
    paths = index.codes_of(index.n_levels, nodes.flatten()).view(*nodes.shape, -1)
    paths = paths.masked_fill((scores == -torch.inf)[..., None], 0)
    k = beam_width if certify is None else certify
    last = scores[:, k - 1] if k <= scores.shape[1] else torch.full_like(best_dropped, -torch.inf)
    return BeamResult(paths, nodes, scores, exact=(last > best_dropped) | (best_dropped == -torch.inf))


def require_shape(level: int, log_probs: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a model's answer of another shape than the index asks for.

    Raises:
        ConfigError: the level and both shapes.
    """
    if log_probs.shape != shape:
        raise ConfigError(
            f"At level {level} the model answered with shape {tuple(log_probs.shape)} instead of {shape}. Give "
            "log-probabilities of this level's codes alone."
        )


class Growth(NamedTuple):
    """What may come next: one row per user, in the order of nodes, filled up with -inf."""

    scores: Tensor  # (B, C) float32
    find: Callable[[Tensor], tuple[Tensor, Tensor]]  # columns (B, W') -> their nodes, the hypotheses they continue


def grow(
    index: ConstraintIndex,
    level: int,
    nodes: Tensor,
    scores: Tensor,
    log_probs: Tensor,
    restriction: Restriction | None,
) -> Growth:
    """The children of each user's hypotheses.

    Args:
        index: on the model's device.
        level: of the codes that come next.
        nodes: (B, W) of depth `level`.
        scores: (B, W) float32; -inf where there is no hypothesis.
        log_probs: (B, W, K_l) what `Step` answered.
        restriction: over B rows; None: the whole catalogue is open to everyone.
    """
    layout = _tabled if restriction is None and index.dense[level] is not None else _listed
    return layout(index, level, nodes, scores, log_probs, restriction)


def keep(growth: Growth, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best `width` children of each user's nodes.

    Nodes come and go in their own order, so that the first of equal scores is the first in the order of codes.

    Returns:
        children (B, W'), the hypotheses that they continue (B, W'), their scores (B, W'), the best score dropped (B,).
        Where there is no hypothesis the score is -inf; such places come last.
    """
    n_candidates = growth.scores.shape[1]
    best, column = _top(growth.scores, min(width + 1, n_candidates))
    dropped = best[:, width] if n_candidates > width else torch.full_like(best[:, 0], -torch.inf)
    valid = best[:, :width] > -torch.inf
    used = max(1, int(valid.sum(dim=1).max()))
    valid = valid[:, :used]
    column, order = column[:, :used].masked_fill(~valid, n_candidates).sort(dim=1)
    children, parents = growth.find(column.masked_fill(~valid, 0))
    return children.masked_fill(~valid, 0), parents.masked_fill(~valid, 0), best.gather(1, order), dropped


def _tabled(
    index: ConstraintIndex, level: int, nodes: Tensor, scores: Tensor, log_probs: Tensor, _: Restriction | None
) -> Growth:
    """Every code of every hypothesis: the least work per candidate, where most codes have a child."""
    tables = index.dense[level]
    assert tables is not None
    codebook_size = log_probs.shape[2]

    def find(column: Tensor) -> tuple[Tensor, Tensor]:
        parents = column // codebook_size
        at = nodes.gather(1, parents)
        return index.first_child[level][at].long() + tables.rank[at, column % codebook_size], parents

    grown = log_probs + scores[..., None]  # (B, W, K_l)
    grown += tables.barrier.index_select(0, nodes.flatten()).view(grown.shape)
    return Growth(grown.flatten(1), find)


def _listed(
    index: ConstraintIndex,
    level: int,
    nodes: Tensor,
    scores: Tensor,
    log_probs: Tensor,
    restriction: Restriction | None,
) -> Growth:
    """The children that there are: work for each of them alone, however much nodes differ in size."""
    n_users, n_beams, codebook_size = log_probs.shape
    owner, child = index.children(level, nodes.flatten())  # (C,); owner is the flat number of a hypothesis
    code = index.codes[level].index_select(0, child)
    score = scores.flatten().index_select(0, owner)
    score += log_probs.flatten().index_select(0, owner * codebook_size + code)
    if restriction is not None:
        score.masked_fill_(~restriction.permits(level + 1, owner // n_beams, child), -torch.inf)

    users = torch.arange(n_users + 1, dtype=torch.int32, device=nodes.device)
    starts = torch.searchsorted(owner, users * n_beams, out_int32=True)  # of each user's candidates, and the end
    longest = int(starts.diff().max())
    shift = (users * longest - starts)[:-1].repeat_interleave(n_beams)
    cell = torch.arange(len(owner), dtype=torch.int32, device=nodes.device) + shift.index_select(0, owner)
    grown = torch.full((n_users, longest), -torch.inf, device=nodes.device)
    grown.view(-1).scatter_(0, cell.long(), score)

    def find(column: Tensor) -> tuple[Tensor, Tensor]:
        candidate = column + starts[:-1, None]
        return child[candidate].long(), (owner[candidate] % n_beams).long()

    return Growth(grown, find)


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each row and their columns, best first; of equal scores the first, which `topk` leaves open."""
    best, column = scores.topk(k, dim=1)
    if ((best[:, 1:] == best[:, :-1]) & (best[:, 1:] > -torch.inf)).any():
        column = _keys(scores).topk(k, dim=1).indices
        best = scores.gather(1, column)
    return best, column


def _keys(scores: Tensor) -> Tensor:
    """Integers that are in the order of the scores, and among equal scores in reverse order of columns."""
    bits = scores.view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # as integers, negative floats are in reverse order
    return (ordered.long() << 32) | torch.arange(scores.shape[1] - 1, -1, -1, device=scores.device)


# -- from IDs to items -----------------------------------------------------------------------------------------------


def expand(
    result: BeamResult, index: ConstraintIndex, k: int, *, restriction: Restriction | None = None
) -> tuple[Tensor, Tensor]:
    """The items that the IDs name: every item of an ID has its score; within an ID, items are in item order.

    Returns:
        items (B, k) int64 rows, -1 where there are fewer than k; scores (B, k) float32, -inf there.
    """
    n_users, width = result.leaves.shape
    found = result.valid.flatten().nonzero()[:, 0]
    owner, position = index.children(index.n_levels, result.leaves.flatten()[found])  # (C,)
    owner = found[owner]
    row = owner // width
    if restriction is not None:
        kept = restriction.permits(index.n_levels + 1, row, position)
        owner, position, row = owner[kept], position[kept], row[kept]
    starts = torch.searchsorted(row, torch.arange(n_users, device=row.device))
    place = torch.arange(len(row), device=row.device) - starts[row]
    first = place < k
    items = torch.full((n_users, k), -1, dtype=torch.int64, device=row.device)
    scores = torch.full((n_users, k), -torch.inf, device=row.device)
    items[row[first], place[first]] = index.item_at[position[first]].long()
    scores[row[first], place[first]] = result.scores.flatten()[owner[first]]
    return items, scores


@dataclass(frozen=True, eq=False)
class TargetRanks:
    """Where one target item of each user stands in a beam's result; the same fields as the recommenders' `Ranks`."""

    found: Tensor  # (B,) bool: False where the beam did not reach it or it was not open; the rest says nothing then
    ahead: Tensor  # (B,) int64 open items of IDs with a higher score
    tied: Tensor  # (B,) int64 open items of IDs with the same score, the target included
    id_rank: Tensor  # (B,) int64 1-based place of its ID


def rank_targets(
    result: BeamResult, index: ConstraintIndex, targets: Tensor, *, restriction: Restriction | None = None
) -> TargetRanks:
    """Rank one item per user, targets (B,) int64 item rows, among the items of the beam's IDs."""
    n_users, width = result.leaves.shape
    rows = torch.arange(n_users, device=index.device)
    leaf = index.leaf_of(targets)
    is_target = (result.leaves == leaf[:, None]) & result.valid
    score = torch.where(is_target, result.scores, -torch.inf).amax(dim=1, keepdim=True)
    reach = restriction if restriction is not None else index.restrict()
    n_items = reach.count(index.n_levels, rows.repeat_interleave(width), result.leaves.flatten()).view(n_users, width)
    n_items = n_items * result.valid
    open_ = reach.permits(index.n_levels + 1, rows, index.position_of[targets].long())
    return TargetRanks(
        found=is_target.any(dim=1) & open_,
        ahead=(n_items * (result.scores > score)).sum(dim=1),
        tied=(n_items * (result.scores == score)).sum(dim=1),
        id_rank=is_target.long().argmax(dim=1) + 1,
    )
