"""Losses over the catalogue, summed over targets: a state per target, a vector per item, scores by inner product."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ROUND = 64  # rows of a block: a CPU's bfloat16 kernels are compiled for every new size, half a millisecond each
BLOCK_ENTRIES = {"cpu": 1 << 21, "cuda": 1 << 26}  # logits computed at a time: within the cache of a CPU, busy on a GPU


def softmax_cross_entropy(states: Tensor, vectors: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over all items, without ever holding the whole table of logits.

        loss = sum_b -h_b.e_{y_b} + log sum_i exp(h_b.e_i)

    Blocks of rows go through product, softmax and both gradient products while they are in the cache, so the backward
    pass only scales what the forward pass found: seven times as fast as linear and cross_entropy in bf16 on a CPU,
    twice in fp32, with the memory of one block. Under autocast to bfloat16 the products are in bfloat16.

    Args:
        states: (B, D) h, one per target.
        vectors: (N, D) e, all items.
        targets: (B,) int64 in [0, N).

    Returns:
        A scalar, summed over B. It can be differentiated once. A target whose probability is below 1e-38 counts as one
        of just that; its gradient is not affected.
    """
    # float16 is too narrow for the probabilities of a large catalogue, so its autocast computes in float32 here.
    device = states.device.type
    low = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
    dtype = torch.bfloat16 if low else torch.float32
    loss: Tensor = _SoftmaxCrossEntropy.apply(states, vectors, targets, dtype)  # type: ignore[no-untyped-call]
    return loss


class _SoftmaxCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, vectors: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        with torch.autocast(states.device.type, enabled=False):
            n_fillers = -len(states) % ROUND  # rows of zeros, which add nothing to the gradients of `vectors`
            h, e, y = F.pad(states, (0, 0, 0, n_fillers)).to(dtype), vectors.to(dtype), F.pad(targets, (0, n_fillers))
            n_rows = max(1, BLOCK_ENTRIES.get(states.device.type, 1 << 21) // len(e) // ROUND) * ROUND
            likelihood = torch.empty(len(h), dtype=torch.float32, device=h.device)
            d_states = torch.empty(h.shape, dtype=states.dtype, device=h.device) if ctx.needs_input_grad[0] else None
            d_vectors = torch.zeros_like(vectors) if ctx.needs_input_grad[1] else None
            for start in range(0, len(h), n_rows):
                block = slice(start, start + n_rows)
                target = y[block, None]
                p = torch.softmax(h[block] @ e.T, dim=1)  # (R, N)
                likelihood[block] = p.gather(1, target)[:, 0]
                p.scatter_add_(1, target, p.new_full(target.shape, -1.0))  # d loss / d logits = p - onehot(y)
                if d_states is not None:
                    d_states[block] = p @ e
                if d_vectors is not None:
                    d_vectors += p.T @ h[block]
        ctx.save_for_backward(d_states[: len(states)] if d_states is not None else None, d_vectors)
        return -likelihood[: len(states)].clamp_min(1e-38).log().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_states, d_vectors = ctx.saved_tensors
        return (
            None if d_states is None else d_states * grad,
            None if d_vectors is None else d_vectors * grad,
            None,
            None,
        )


@torch.no_grad()
def log_normalizer(states: Tensor, vectors: Tensor) -> Tensor:
    """log sum_i exp(h.e_i) over all vectors, without ever holding the table of logits.

    Blocks of columns stay in the cache between product, exponential and sum: over 33 thousand tokens 1.7 times as fast
    as log-softmax over blocks of rows.

    Args:
        states: (B, D) h.
        vectors: (N, D) e.

    Returns:
        (B,) float32, without a gradient.
    """
    n_columns = max(256, BLOCK_ENTRIES.get(states.device.type, 1 << 21) // 4 // max(len(states), 1))
    parts = list[Tensor]()
    for block in torch.split(vectors, n_columns):
        logits = F.linear(states, block)
        # one pass of log-softmax instead of the three of logsumexp; any column says what was subtracted
        parts.append(logits[:, 0].float() - F.log_softmax(logits, dim=1, dtype=torch.float32)[:, 0])
    return torch.stack(parts).logsumexp(dim=0)


def sampled_softmax(
    states: Tensor,
    vectors: Tensor,
    targets: Tensor,
    negatives: Tensor,
    *,
    log_q: Tensor | None = None,
    correct_target: bool = True,
) -> Tensor:
    """Cross-entropy of the target against shared negatives, by default without correction for how they were drawn.

        loss = sum_b -z_{y_b} + log( exp(z_{y_b}) + sum_{j in S, j != y_b} exp(z_j) ),   z_i = h_b.e_i

    A negative that is the target of a row is left out of that row, so that with S = all items this equals
    `softmax_cross_entropy`.

    Args:
        states: (B, D).
        vectors: (N, D).
        targets: (B,) int64 in [0, N).
        negatives: (S,) int64 in [0, N), shared by all rows.
        log_q: (N,) logarithms of the probabilities by which negatives are drawn; None: no correction.
        correct_target: with `log_q`: True: z_i - log q_i stands in place of every z_i, which for uniform draws changes
            nothing. False: z_j - log(S q_j) in place of those of negatives alone; their sum is then an unbiased
            estimate of that over all items but the target.

    Returns:
        A scalar, summed over B.

    Source: eSASRec's loss (arXiv 2508.06450), with one set of negatives per call instead of one per position;
    corrections: Bengio & Senecal 2008 (adaptive importance sampling), and the logQ correction of two-tower retrieval.
    """
    positive = (states * F.embedding(targets, vectors)).sum(dim=1, keepdim=True)  # (B, 1)
    negative = (states @ F.embedding(negatives, vectors).T).to(positive.dtype)  # (B, S)
    if log_q is not None:
        positive = positive - log_q[targets, None] if correct_target else positive
        negative = negative - log_q[negatives] - (0.0 if correct_target else math.log(len(negatives)))
    negative = negative.masked_fill(negatives == targets[:, None], -torch.inf)
    logits = torch.cat([positive, negative], dim=1).float()
    return F.cross_entropy(logits, torch.zeros_like(targets), reduction="sum")


def in_batch_softmax(
    states: Tensor, vectors: Tensor, targets: Tensor, counts: Tensor, corrupted: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the target against the targets of the other rows, and one more vector of each row's own.

        loss = sum_b -h_b.e_{y_b} + log( exp(h_b.e_{y_b}) + sum_{j != y_b} n_j exp(h_b.e_j) + exp(h_b.f_b) )

    Rows of the same target are no negatives of each other.

    Args:
        states: (B, D).
        vectors: (C, D) of the distinct targets of the whole batch.
        targets: (B,) int64 in [0, C).
        counts: (C,) n, rows of the whole batch that have this target, >= 1.
        corrupted: (B, D) f, a further negative for each row; None: there are none.

    Returns:
        A scalar, summed over B.

    Source: Hou et al. 2023 (VQ-Rec, arXiv 2210.12316), equation 8, with equal targets left out.
    """
    weights = counts.log().expand(len(states), -1).scatter(1, targets[:, None], 0.0)  # (B, C)
    logits = (states @ vectors.T).float() + weights
    if corrupted is not None:
        logits = torch.cat([logits, (states * corrupted).sum(dim=1, keepdim=True).float()], dim=1)
    return F.cross_entropy(logits, targets, reduction="sum")


def binary_cross_entropy(states: Tensor, vectors: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """The target against one negative each, as SASRec was published.

        loss = sum_b -log s(h_b.e_{y_b}) - log(1 - s(h_b.e_{j_b})),   s the logistic function

    Args:
        states: (B, D).
        vectors: (N, D).
        targets: (B,) int64 in [0, N).
        negatives: (B,) int64 in [0, N), one per row and not its target.

    Returns:
        A scalar, summed over B.

    Source: Kang & McAuley 2018 (arXiv 1808.09781), equation 7.
    """
    positive = (states * F.embedding(targets, vectors)).sum(dim=1).float()
    negative = (states * F.embedding(negatives, vectors)).sum(dim=1).float()
    return -(F.logsigmoid(positive) + F.logsigmoid(-negative)).sum()


def calibrated_binary_cross_entropy(
    states: Tensor, vectors: Tensor, targets: Tensor, negatives: Tensor, *, calibration: float
) -> Tensor:
    """The target against shared negatives, its probability s(z) lowered to s(z)^b to make up for their small number.

        loss = 1 / (1 + S) sum_b -b log s(z_{y_b}) - sum_{j in S, j != y_b} log(1 - s(z_j)),   z_i = h_b.e_i
        b    = a (t (1 - 1/a) + 1/a),   a = min(1, S / (N - 1)) the share of the other items that are drawn

    Args:
        states: (B, D).
        vectors: (N, D), N >= 2.
        targets: (B,) int64 in [0, N).
        negatives: (S,) int64 in [0, N), shared by all rows.
        calibration: t in [0, 1]. 0: plain binary cross-entropy; 1: b = a, and s(z)^b estimates the probability.

    Returns:
        A scalar, summed over B.

    Source: Petrov & Macdonald 2023, gSASRec (arXiv 2308.07192), with one set of negatives per call.
    """
    share = min(1.0, len(negatives) / (len(vectors) - 1))
    power = share * (calibration * (1 - 1 / share) + 1 / share)
    positive = (states * F.embedding(targets, vectors)).sum(dim=1).float()
    negative = (states @ F.embedding(negatives, vectors).T).float()
    others = F.softplus(negative).masked_fill(negatives == targets[:, None], 0.0)  # -log(1 - s(z)) = softplus(z)
    return (others.sum() - power * F.logsigmoid(positive).sum()) / (1 + len(negatives))


def labels_cross_entropy(states: Tensor, vectors: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
    """Which of many labels apply, each a question of yes or no; those that do are given as a list.

        loss = sum_b sum_a softplus(z_ba) - sum over (b, a) that apply of z_ba,   z = h.v

    Args:
        states: (B, D) h.
        vectors: (A, D) v, of all labels.
        rows: (n,) int64 in [0, B), and
        labels: (n,) int64 in [0, A): label `labels[i]` applies to row `rows[i]`; each pair at most once.

    Returns:
        A scalar, summed over rows and labels.
    """
    padded = F.pad(states, (0, 0, 0, -len(states) % ROUND))
    logits = (padded @ vectors.T)[: len(states)].float()  # (B, A)
    return F.softplus(logits).sum() - logits[rows, labels].sum()


def other_items(targets: Tensor, n_items: int) -> Tensor:
    """(B,) one uniform draw per target from all the other items (N >= 2), by torch's global generator."""
    drawn = torch.randint(n_items - 1, targets.shape, device=targets.device)
    return drawn + (drawn >= targets)
