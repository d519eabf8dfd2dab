"""Assignments in which every codeword gets an equal share, by optimal transport."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tesserec.errors import ConfigError

PASSES_AT_A_TIME = 7  # by products, before their factors are looked at
LARGEST_FACTOR = 1e12  # beyond which passes go back to logarithms
NOTHING = -69.0  # e^-69 = 1e-30 stands for all that is less: denormal numbers take ten times as long


def sinkhorn(cost: Tensor, *, temperature: float, n_iters: int) -> Tensor:
    """Balance a batch of assignments so that every codeword gets an equal share.

    The first pass computes in logarithms, so that no `temperature` overflows. What it finds is a plan of ordinary
    numbers, whose next passes are matrix-vector products, about ten times as fast; should their factors grow beyond
    LARGEST_FACTOR, they are folded into the logarithms and the plan is made anew.

    Args:
        cost: (B, K) float, finite; smaller is closer. Not modified.
        temperature: > 0, in the units of `cost`. Towards 0 the plan becomes a hard assignment.
        n_iters: row-then-column passes, >= 1.

    Returns:
        (B, K) plan. Columns sum to B/K, up to rounding; rows to 1 only in the limit of many passes.

    Raises:
        ConfigError: `temperature` or `n_iters` is out of range.

    Source: Cuturi 2013 (arXiv 1306.0895), Algorithm 1, computed in log space; folding: Schmitzer 2019 (arXiv
    1610.06519), section 3.1.
    """
    if temperature <= 0 or n_iters < 1:
        raise ConfigError(f"temperature is {temperature}, n_iters is {n_iters}. Use a value above 0, and 1 or more.")
    share = cost.shape[0] / cost.shape[1]  # of every codeword, in rows
    log_kernel = cost / -temperature  # (B, K)
    g = torch.zeros_like(cost[0])  # (K,) log of the columns' factors
    done = 0
    while done < n_iters:
        f = -_logsumexp(log_kernel + g, dim=1)  # (B, 1) log of the rows' factors
        g = math.log(share) - _logsumexp(log_kernel + f, dim=0)[0]
        plan, done = (log_kernel + f + g).clamp_(min=NOTHING).exp_(), done + 1
        u, v = torch.ones_like(f[:, 0]), torch.ones_like(g)
        while done < n_iters:
            n_passes, next_u, next_v = min(PASSES_AT_A_TIME, n_iters - done), u, v
            for _ in range(n_passes):
                next_u = 1 / (plan @ next_v)
                next_v = share / (plan.T @ next_u)
            if not _all_ordinary(next_u, next_v):
                break
            u, v, done = next_u, next_v, done + n_passes
        g = g + v.log()
    return plan * u[:, None] * v


def _logsumexp(x: Tensor, dim: int) -> Tensor:
    """As torch.logsumexp with keepdim; what is less than NOTHING of the largest term counts as just that."""
    largest = x.amax(dim, keepdim=True)
    return largest + (x - largest).clamp_(min=NOTHING).exp_().sum(dim, keepdim=True).log_()


def _all_ordinary(*factors: Tensor) -> bool:
    """Whether all numbers lie within 1 / LARGEST_FACTOR and LARGEST_FACTOR; those that are not finite do not."""
    return all(low > 1 / LARGEST_FACTOR and high < LARGEST_FACTOR for low, high in map(torch.aminmax, factors))


def uniform_codes(residual: Tensor, codebook: Tensor, *, temperature: float, n_iters: int) -> Tensor:
    """Codes of a batch such that all codewords are used about equally: each row's largest share of a balanced plan.

    Distances are first moved and scaled to [-1, 1] by the extremes of the whole batch, so `temperature` means the same
    whatever the codebook. The smaller the batch is against the codebook, the less the codes have to do with nearness:
    a pair of rows gets codes whose distance rank among 256 is about a hundred.

    Args:
        residual: (B, D) float.
        codebook: (K, D) of the same type.
        temperature, n_iters: of `sinkhorn`.

    Returns:
        (B,) int64. Equal rows have equal shares, so that rounding alone decides whether their codes are equal.

    Source: Zheng et al. 2024 (LC-Rec, arXiv 2311.09049), uniform semantic mapping; scaling as in its public code.
    """
    distances = torch.cdist(residual, codebook).square()  # (B, K)
    low, high = distances.aminmax()
    middle = (high + low) / 2
    scaled = (distances - middle) / (high - middle + 1e-5)
    return sinkhorn(scaled, temperature=temperature, n_iters=n_iters).argmax(dim=1)


def doubly_stochastic(logits: Tensor, *, temperature: float, n_iters: int) -> Tensor:
    """The doubly stochastic matrix of a square of logits: exp(logits / temperature), rows and columns scaled to sum 1.

    The gradient is that of the limit of many passes, P * (G - a 1' - 1 b') / temperature for the gradient G of P, where
    a and b take away what would change the sums of rows and columns; they are found by as many passes.

    Args:
        logits: (K, K) float, finite. Computed in float32 at least, autocast or not.
        temperature: > 0, in the units of the logits. Towards 0 the matrix becomes a permutation.
        n_iters: row-then-column passes, >= 1.

    Returns:
        (K, K), columns sum to 1 up to rounding, rows in the limit of many passes. It can be differentiated once.

    Raises:
        ConfigError: `temperature` or `n_iters` is out of range.

    Source: Mena et al. 2018 (Gumbel-Sinkhorn, arXiv 1802.08665), section 3; the gradient by the implicit function
    theorem, as in Eisenberger et al. 2022 (arXiv 2205.06688).
    """
    plan: Tensor = _DoublyStochastic.apply(logits, temperature, n_iters)  # type: ignore[no-untyped-call]
    return plan


class _DoublyStochastic(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, temperature: float, n_iters: int) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            wide = logits if logits.dtype == torch.float64 else logits.float()
            plan = sinkhorn(-wide, temperature=temperature, n_iters=n_iters)
        ctx.save_for_backward(plan)
        ctx.temperature, ctx.n_iters = temperature, n_iters
        return plan

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (plan,) = ctx.saved_tensors
        with torch.autocast(plan.device.type, enabled=False):
            weighted = plan * grad  # (K, K)
            rows, columns = weighted.sum(dim=1), weighted.sum(dim=0)
            row_sums, column_sums = plan.sum(dim=1), plan.sum(dim=0)
            a, b = torch.zeros_like(rows), torch.zeros_like(columns)
            for _ in range(ctx.n_iters):
                a = (rows - plan @ b) / row_sums
                b = (columns - plan.T @ a) / column_sums
            return (weighted - plan * (a[:, None] + b)) / ctx.temperature, None, None


@torch.no_grad()
def best_permutation(logits: Tensor) -> Tensor:
    """The one-to-one assignment of rows to columns with the largest sum of logits.

    It is what `doubly_stochastic` tends to as the temperature falls (Mena et al. 2018, theorem 1).

    Args:
        logits: (K, K) float, finite.

    Returns:
        (K,) int64, the column of each row; every column occurs once.
    """
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(logits.double().cpu().numpy(), maximize=True)
    return torch.from_numpy(np.asarray(columns, dtype=np.int64)).to(logits.device)


def gumbel(like: Tensor) -> Tensor:
    """Standard Gumbel noise of the shape, dtype and device of `like`, by torch's global generator."""
    return -torch.empty_like(like).exponential_().log()
