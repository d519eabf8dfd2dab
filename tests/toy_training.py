"""A small training for the tests of the loop; `python toy_training.py FOLDER` runs it in a process of its own."""

import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from tesserec.training.config import TrainingConfig
from tesserec.training.loop import Step, TrainingLog, train
from tesserec.training.seeds import seeded

N_STEPS = 10  # per epoch


class Network(nn.Module):
    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class SumOfInputs:
    """Objective: predict the sum of four numbers, six examples per step in `n_parts` parts."""

    def __init__(self, n_parts: int = 3, pause: float = 0.0) -> None:
        self.n_parts, self.pause = n_parts, pause

    def n_steps(self, epoch: int) -> int:
        return N_STEPS

    def steps(self, epoch: int) -> list[Step]:
        numbers = torch.randn(N_STEPS, 6, 4, generator=torch.Generator().manual_seed(epoch))
        return [Step(batch.chunk(self.n_parts), 6) for batch in numbers]

    def loss(self, model: nn.Module, part: Tensor, device: torch.device) -> Tensor:
        time.sleep(self.pause)
        return ((model(part.to(device))[:, 0] - part.to(device).sum(dim=1)) ** 2).sum()


@torch.no_grad()
def closeness(model: nn.Module) -> float:
    """Validation metric: minus the squared error on fixed inputs."""
    x = torch.linspace(-1, 1, 20).view(5, 4)
    return -float(((model(x)[:, 0] - x.sum(dim=1)) ** 2).mean())


def network(dropout: float = 0.3) -> Network:
    with seeded(0):
        return Network(dropout)


def train_toy(checkpoints: Path | None, *, pause: float = 0.0) -> tuple[Network, TrainingLog]:
    model = network()
    config = TrainingConfig(
        epochs=8, learning_rate=0.02, schedule="cosine", device="cpu", precision="fp32", checkpoint_seconds=0.0
    )
    log = train(model, SumOfInputs(pause=pause), config, validate=closeness, checkpoints=checkpoints, identity="toy")
    return model, log


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_toy(Path(sys.argv[1]), pause=0.004)
