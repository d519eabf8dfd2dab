"""Settings of the one training loop."""

from dataclasses import dataclass
from typing import Literal

from tesserec.errors import ConfigError
from tesserec.functional.metrics import parse_metric


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, how fast, in which precision; what is learned is the recommender's business."""

    epochs: int = 100  # at most; early stopping usually ends sooner
    max_steps: int | None = None  # optimiser steps at most, None: as many as the epochs have
    max_seconds: float | None = (
        None  # training time at most (validation included); such a run is not exactly repeatable
    )
    batch_size: int = 256  # training targets (TIGER) or users (SASRec) per optimiser step
    tokens_per_part: int = 8192  # a batch is computed in parts of similar length of about so many tokens
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "inverse-sqrt"] = "constant"
    warmup_steps: int = 0
    clip_norm: float | None = 1.0  # largest gradient norm, None: not clipped
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", "mps"
    sharded: bool = False  # several processes: cut weights, gradients and optimiser state into shards (FSDP)
    compile: bool = False  # torch.compile: faster steps after a minute or so of compilation
    validate_every: int = 1  # epochs between validations
    metric: str = "ndcg@10"  # of the validation part; the best weights by it are kept
    exclude_seen: bool = False  # validate with the items of each history left out, as `evaluation.exclude_seen` does
    patience: int = 10  # validations without a better value before training stops
    validation_users: int | None = None  # validate on so many users drawn once by the seed, None: all
    checkpoint_seconds: float = 60.0  # time between checkpoints
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("epochs", "batch_size", "tokens_per_part", "learning_rate", "validate_every", "patience")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ConfigError(f"training.{name} is {getattr(self, name)}. Use a value above 0.")
        for name in ("max_steps", "max_seconds", "clip_norm", "validation_users"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"training.{name} is {value}. Use a value above 0, or none.")
        for name in ("weight_decay", "warmup_steps", "checkpoint_seconds", "seed"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"training.{name} is {getattr(self, name)}. Use 0 or more.")
        if self.sharded and (self.precision == "fp16" or self.compile):
            raise ConfigError("training.sharded goes with precision bf16 or fp32, and without training.compile.")
        parse_metric(self.metric)
