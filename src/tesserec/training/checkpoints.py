"""Checkpoints: all that an interrupted training needs to go on as if nothing had happened.

One file, written beside its place and renamed into it, so that a process killed at any moment leaves the old checkpoint
or the new one. It holds tensors and plain values only and is read with `weights_only=True`: no code runs on load.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tesserec.errors import TrainingError

FILE = "checkpoint.pt"
FORMAT = 1

Weights = dict[str, Tensor]


@dataclass
class Position:
    """How far training has come."""

    epoch: int = 0  # the current epoch, 0-based
    index: int = 0  # the next step within it
    step: int = 0  # optimiser steps taken in all
    seconds: float = 0.0  # spent in earlier processes and this one
    epoch_loss: float = 0.0  # summed over the targets of this epoch so far
    epoch_targets: int = 0
    best_value: float = -float("inf")  # of the validation metric
    best_step: int = 0
    validated_step: int = 0  # when the latest validation was
    without_gain: int = 0  # validations since the best one
    finished: bool = False
    rows: list[dict[str, float]] = field(default_factory=list)  # the log


@dataclass
class Checkpoint:
    """A position and the tensors that belong to it."""

    position: Position
    model: Weights
    optimizer: dict[str, Any]
    scaler: dict[str, Any]  # of fp16's loss scaling, else empty
    best: Weights  # empty before the first validation


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, identity: str) -> None:
    """Replace the checkpoint in `folder`, all at once."""
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / f".{FILE}.partial"
    content = {"format": FORMAT, "identity": identity, **vars(checkpoint), "position": asdict(checkpoint.position)}
    torch.save(content, staging)
    staging.replace(folder / FILE)


def load_checkpoint(folder: Path, *, identity: str, device: torch.device) -> Checkpoint | None:
    """The checkpoint in `folder`, or None if there is none.

    Args:
        folder: where `save_checkpoint` wrote.
        identity: of the run that wants to go on: configuration, data and whatever else decides the weights.
        device: where the tensors are wanted.

    Raises:
        TrainingError: the checkpoint is damaged, or belongs to a run of another identity.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        if content.pop("format") != FORMAT:
            raise ValueError("it was written by another version of tesserec")
        found = content.pop("identity")
        checkpoint = Checkpoint(**{**content, "position": Position(**content["position"])})
    except Exception as error:  # torch.load raises many kinds on damaged files
        raise TrainingError(f"{path} cannot be resumed ({error}). Delete it to train from the beginning.") from None
    if found != identity:
        raise TrainingError(
            f"{path} belongs to a run of another configuration or data ({found}, this run is {identity}). "
            "Delete it to train from the beginning, or choose another folder for checkpoints."
        )
    return checkpoint
