"""Training a recommender by its validation value, which decides when it stops and which weights are kept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from tesserec.artifacts import fingerprint_json
from tesserec.data.splits import Split
from tesserec.functional.metrics import expected_metric
from tesserec.progress import Progress
from tesserec.recommenders.base import Recommender
from tesserec.training.config import TrainingConfig
from tesserec.training.loop import Objective, TrainingLog, train


def train_by_validation(
    recommender: Recommender,
    network: nn.Module,
    objective: Objective,
    split: Split,
    training: TrainingConfig,
    *,
    checkpoints: Path | None,
    progress: Progress,
    before_ranking: Callable[[], None] = lambda: None,
) -> TrainingLog:
    """Train a recommender's network; it ranks the validation part with the weights as they are then.

    A checkpoint is taken up if it is of this very configuration, data, split and whatever the recommender reads.

    Args:
        before_ranking: brings what the recommender keeps beside its network up to date.
    """

    def validate(_: nn.Module) -> float:
        before_ranking()
        return validation_metric(
            recommender,
            split,
            training.metric,
            n_users=training.validation_users,
            seed=training.seed,
            exclude_seen=training.exclude_seen,
        )

    identity = fingerprint_json([recommender.full_config, recommender.sources, split.name])
    return train(
        network,
        objective,
        training,
        validate=validate,
        checkpoints=checkpoints,
        identity=identity,
        progress=progress,
    )


def validation_metric(
    recommender: Recommender,
    split: Split,
    metric: str,
    *,
    n_users: int | None = None,
    seed: int = 0,
    exclude_seen: bool = False,
) -> float:
    """The mean of a metric over the validation part, by the same ranking and tie rule as the final report.

    Args:
        metric: such as `ndcg@10`.
        n_users: so many cases, drawn once by the seed (the same in every call); None, or more than there are: all.
        exclude_seen: items of the history are no candidates.

    Raises:
        ConfigError: there is no such metric.
    """
    cases = split.validation
    if n_users is not None and n_users < len(cases):
        cases = cases.take(np.sort(np.random.default_rng(seed).choice(len(cases), n_users, replace=False)))
    ranks = recommender.rank(cases, exclude_seen=exclude_seen)
    return float(expected_metric(metric, ranks.found, ranks.ahead, ranks.tied).mean())
