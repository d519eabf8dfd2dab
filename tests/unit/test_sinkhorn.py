"""Balanced plans: against plain iterations in double precision, and what the codes made of them promise."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tesserec.errors import ConfigError
from tesserec.functional.sinkhorn import sinkhorn, uniform_codes


def scaled_distances(n_rows: int, n_codewords: int, seed: int = 0) -> Tensor:
    """(B, K) in [-1, 1], as uniform mapping makes them."""
    random = torch.Generator().manual_seed(seed)
    x, e = torch.randn(n_rows, 8, generator=random), torch.randn(n_codewords, 8, generator=random) / 2
    distances = torch.cdist(x, e).square()
    middle = (distances.max() + distances.min()) / 2
    return (distances - middle) / (distances.max() - middle + 1e-5)


def plain(cost: Tensor, temperature: float, n_iters: int) -> Tensor:
    """Rows, then columns, divided by their sums, without logarithms: double precision holds exp(333)."""
    n_rows, n_columns = cost.shape
    plan = torch.exp(-cost.double() / temperature)
    plan = plan / plan.sum()
    for _ in range(n_iters):
        plan = plan / plan.sum(dim=1, keepdim=True) / n_rows
        plan = plan / plan.sum(dim=0, keepdim=True) / n_columns
    return plan * n_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n_rows", "n_codewords"), [(64, 16), (200, 7), (40, 40)])
@pytest.mark.parametrize("n_iters", [1, 2, 50])
def test_the_plan_is_that_of_plain_iterations_in_double_precision(dtype, n_rows, n_codewords, n_iters):
    cost = scaled_distances(n_rows, n_codewords)
    expected = plain(cost, 0.003, n_iters)
    found = sinkhorn(cost.to(dtype), temperature=0.003, n_iters=n_iters)
    assert found.dtype == dtype
    tolerance = 1e-10 if dtype == torch.float64 else 2e-4
    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)
    assert (found.argmax(dim=1) == expected.argmax(dim=1)).float().mean() > (0.999 if dtype == torch.float64 else 0.97)


def test_no_temperature_overflows():
    cost = scaled_distances(50, 10)
    for temperature in (1e-6, 1e-4, 10.0):
        plan = sinkhorn(cost, temperature=temperature, n_iters=30)
        assert torch.isfinite(plan).all()
        torch.testing.assert_close(plan.sum(dim=0), torch.full((10,), 5.0))


def test_factors_that_grow_are_folded_into_the_logarithms():
    """Each row is a unit nearer to its own codeword than to the next, so mass has to move down a chain of them."""
    steps = torch.arange(12.0)
    cost = (steps[:, None] - steps).clamp_min(-3).abs() / 5
    cost[:, 0] -= 5  # every row would rather have the first
    torch.testing.assert_close(
        sinkhorn(cost.double(), temperature=0.02, n_iters=40), plain(cost, 0.02, 40), atol=1e-9, rtol=1e-7
    )


def test_the_plan_has_the_marginals_of_pots_exact_transport():
    ot = pytest.importorskip("ot")
    cost = scaled_distances(60, 12).double()
    plan = sinkhorn(cost, temperature=0.05, n_iters=2000)
    theirs = ot.sinkhorn(np.ones(60), np.full(12, 5.0), cost.numpy(), 0.05, method="sinkhorn_log", numItermax=5000,
                         stopThr=1e-12)  # fmt: skip
    torch.testing.assert_close(plan.sum(dim=1), torch.ones(60, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(plan.sum(dim=0), torch.full((12,), 5.0, dtype=torch.float64))
    np.testing.assert_allclose(plan.numpy(), theirs, atol=1e-6)


def test_rows_may_come_in_any_order():
    cost = scaled_distances(40, 8).double()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    plan = sinkhorn(cost, temperature=0.01, n_iters=20)
    torch.testing.assert_close(sinkhorn(cost[order], temperature=0.01, n_iters=20), plan[order])


def test_uniform_codes_use_codewords_that_the_nearest_would_leave_out():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(512, 4, generator=random) * 0.1 + 1  # a clump beside the codebook
    codebook = torch.randn(16, 4, generator=random)
    nearest = torch.bincount(torch.cdist(x, codebook).argmin(dim=1), minlength=16)
    uniform = torch.bincount(uniform_codes(x, codebook, temperature=0.003, n_iters=50), minlength=16)
    assert nearest.max() > 200
    assert (nearest > 0).sum() < 8
    assert uniform.max() <= 2 * math.ceil(512 / 16)
    assert (uniform > 0).all()


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="temperature is 0"):
        sinkhorn(torch.zeros(2, 2), temperature=0, n_iters=1)
    with pytest.raises(ConfigError, match="n_iters is 0"):
        sinkhorn(torch.zeros(2, 2), temperature=1, n_iters=0)
