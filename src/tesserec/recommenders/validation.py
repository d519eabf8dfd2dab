"""The validation value that decides when training stops and which weights are kept."""

import numpy as np

from tesserec.data.splits import Split
from tesserec.functional.metrics import expected_metric
from tesserec.recommenders.base import Recommender


def validation_metric(
    recommender: Recommender, split: Split, metric: str, *, n_users: int | None = None, seed: int = 0
) -> float:
    """The mean of a metric over the validation part, by the same ranking and tie rule as the final report.

    Args:
        metric: such as `ndcg@10`.
        n_users: so many cases, drawn once by the seed (the same in every call); None, or more than there are: all.

    Raises:
        ConfigError: there is no such metric.
    """
    cases = split.validation
    if n_users is not None and n_users < len(cases):
        cases = cases.take(np.sort(np.random.default_rng(seed).choice(len(cases), n_users, replace=False)))
    ranks = recommender.rank(cases)
    return float(expected_metric(metric, ranks.found, ranks.ahead, ranks.tied).mean())
