"""The most popular items of the training part, for everybody: the floor that every method must clear."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split
from tesserec.progress import Progress
from tesserec.recommenders.base import ScoringRecommender
from tesserec.types import FloatArray


@dataclass(frozen=True, kw_only=True)
class PopularityConfig:
    """Nothing to choose."""


class Popularity(ScoringRecommender):
    """Items by how often they occur in training."""

    method = "popularity"
    config_class = PopularityConfig

    def __init__(self, config: PopularityConfig | None = None) -> None:
        super().__init__(config or PopularityConfig())

    def _fit(self, split: Split, checkpoints: Path | None, progress: Progress) -> None:
        pass  # the base class counts

    def score(self, histories: Sequences) -> FloatArray:
        return np.tile(self.train_counts.astype(np.float32), (len(histories), 1))

    def _write(self, folder: Path) -> None:
        pass

    def _read(self, folder: Path) -> None:
        pass
