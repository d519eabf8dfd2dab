"""Dropout with cheap random numbers is dropout."""

import pytest
import torch

from tesserec.functional.dropout import Dropout, dropout, keep_mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_entries_are_dropped_with_probability_p_and_keep_their_expectation(dtype, p):
    torch.manual_seed(0)
    mask = keep_mask(torch.zeros(1000, 1001, dtype=dtype), p)
    dropped = (mask == 0).float().mean().item()
    assert dropped == pytest.approx(round(p * 256) / 256, abs=0.002)
    assert mask.dtype == dtype
    assert mask.float().mean().item() == pytest.approx(1, abs=0.01)
    assert len(mask.unique()) == 2


def test_entries_are_independent():
    torch.manual_seed(1)
    dropped = (keep_mask(torch.zeros(512, 4096), 0.3) == 0).float()
    share = dropped.mean()
    assert (dropped.mean(dim=0) - share).abs().max() < 0.12  # five deviations of 512 draws
    for distance in (1, 2, 3, 4, 8, 1024, 2048):
        both = (dropped[:, :-distance] * dropped[:, distance:]).mean()
        assert both == pytest.approx(float(share**2), abs=0.003)
    flat = dropped.flatten()
    half = len(flat) // 2  # the two bytes of a random word serve entries that far apart
    assert (flat[:half] * flat[half:]).mean() == pytest.approx(float(share**2), abs=0.003)


def test_the_seed_decides():
    x = torch.ones(1000)
    torch.manual_seed(3)
    first = dropout(x, 0.5, training=True)
    assert not torch.equal(first, dropout(x, 0.5, training=True))
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x, 0.5, training=True))


def test_nothing_is_dropped_in_evaluation_or_at_probability_zero():
    x = torch.randn(10)
    assert Dropout(0.5).eval()(x) is x
    assert dropout(x, 0.0, training=True) is x


def test_gradients_pass_where_entries_were_kept():
    x = torch.ones(1000, requires_grad=True)
    y = dropout(x, 0.5, training=True)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
