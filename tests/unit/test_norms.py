"""Normalisation with a written-out gradient against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tesserec.functional.norms import rms_norm


def inputs(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 16, generator=random, dtype=torch.float64) * 3
    x[0, 0] = 0  # a row of zeros has no direction
    weight = torch.rand(16, generator=random, dtype=torch.float64)
    return x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()


def test_by_hand() -> None:
    assert_close(
        rms_norm(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0]), 0.0), torch.tensor([3.0, 8.0]) / 12.5**0.5
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_those_of_torch(dtype: torch.dtype) -> None:
    x, weight = inputs(dtype)
    ours, theirs = rms_norm(x, weight, 1e-6), F.rms_norm(x, (16,), weight, 1e-6)
    assert_close(ours, theirs)
    towards = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    for found, wanted in zip(
        torch.autograd.grad(ours, (x, weight), towards), torch.autograd.grad(theirs, (x, weight), towards), strict=True
    ):
        assert_close(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_gradients_the_values_are_the_same(dtype: torch.dtype) -> None:
    x, weight = inputs(dtype)
    with torch.inference_mode():
        found = rms_norm(x, weight, 1e-6)
    assert found.dtype == dtype
    assert_close(found, rms_norm(x, weight, 1e-6).detach())
