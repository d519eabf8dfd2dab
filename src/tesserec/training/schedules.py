"""The learning rate as a function of the step alone, so that a checkpoint need not hold a scheduler."""

import math

from tesserec.training.config import TrainingConfig


def learning_rate(config: TrainingConfig, step: int, n_steps: int) -> float:
    """The rate of optimiser step `step` (0-based) of a run of at most `n_steps`.

    The first `warmup_steps` rise linearly to `config.learning_rate`; then it stays ("constant"), falls to 0 along
    half a cosine ("cosine"), or falls with the square root of the step ("inverse-sqrt").
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(n_steps - warmup, 1)))
    if config.schedule == "inverse-sqrt":
        return peak * math.sqrt(max(warmup, 1) / (step + 1))
    return peak
