"""Dropout whose random numbers cost a byte and a tenth of the time of PyTorch's on a CPU.

`torch.nn.functional.dropout` draws one Bernoulli number after another on a single thread; in a bf16 TIGER step that is
the largest single item of the profile. Here eight elements share one 64-bit random integer, and the comparison and
scaling are vectorised. The draws come from PyTorch's global CPU generator, so seeds and checkpoints work as usual.
"""

import torch
from torch import Tensor, nn

LEVELS = 256  # one random byte per element, so probabilities are multiples of 1/256


def keep_mask(like: Tensor, p: float) -> Tensor:
    """Independent entries of 0 (with probability p) or 1 / (1 - p), of the shape, dtype and device of `like`.

    On a CPU p is rounded to the nearest multiple of 1/256 (0.1 becomes 0.1016) and the scale follows suit, so the
    expectation of the mask is exactly 1.
    """
    if like.device.type != "cpu":
        return torch.empty_like(like).bernoulli_(1 - p).div_(1 - p)
    dropped = min(round(p * LEVELS), LEVELS - 1)
    n = like.numel()
    words = torch.empty(-(-n // 8), dtype=torch.int64).random_(-(2**63), None)
    pairs = words.view(torch.int16)  # two bytes each: the high byte serves one element, the low byte another
    mask = torch.empty(2, pairs.numel(), dtype=torch.int16)
    torch.bitwise_right_shift(pairs, 1, out=mask[0])  # halved, so that the subtraction below cannot overflow
    torch.bitwise_left_shift(pairs, 8, out=mask[1])
    mask[1].bitwise_right_shift_(1)
    threshold = (-(2**15) + dropped * (2**16 // LEVELS)) >> 1
    mask.sub_(threshold).bitwise_right_shift_(15).add_(1)  # the sign: -1 below the threshold, 0 above; now 0 and 1
    return mask.view(-1)[:n].to(like.dtype).mul_(LEVELS / (LEVELS - dropped)).view(like.shape)


def dropout(x: Tensor, p: float, *, training: bool) -> Tensor:
    """Zero entries of x with probability p and scale the others by 1 / (1 - p); x itself when not training."""
    return x * keep_mask(x.detach(), p) if training and p > 0 else x


class Dropout(nn.Module):
    """`torch.nn.Dropout` with cheaper random numbers."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, training=self.training)
