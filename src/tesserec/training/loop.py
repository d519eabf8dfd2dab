"""The one training loop. (Interface; see the functions' docstrings.)"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tesserec.progress import SILENT, Progress
from tesserec.training.config import TrainingConfig


@dataclass(frozen=True)
class Step:
    """One optimiser step: parts of similar length whose gradients add up to those of the whole batch."""

    parts: Sequence[Any]  # whatever the objective's `loss` takes; tensors on the CPU, moved by the objective
    n_targets: int  # the loss of the step is the sum over all parts divided by this


class Objective(Protocol):
    """What a recommender gives the loop: which steps an epoch has, and the loss of a part."""

    def n_steps(self, epoch: int) -> int:
        """Optimiser steps of an epoch."""

    def steps(self, epoch: int) -> Sequence[Step]:
        """The steps of an epoch: a function of (seed, epoch) alone, so that a resumed run sees the same ones.

        May be lazy: only `steps(epoch)[i]` is asked for.
        """

    def loss(self, model: nn.Module, part: Any, device: torch.device) -> Tensor:
        """The summed loss of one part (a scalar)."""


def train(
    model: nn.Module,
    objective: Objective,
    config: TrainingConfig,
    *,
    validate: Callable[[nn.Module], float],
    checkpoints: Path | None = None,
    identity: str = "",
    progress: Progress = SILENT,
) -> "TrainingLog":
    """Train `model` in place and leave it with the weights of its best validation."""
    raise NotImplementedError


@dataclass
class TrainingLog:
    """What happened: one row per validation."""

    rows: list[dict[str, float]]
