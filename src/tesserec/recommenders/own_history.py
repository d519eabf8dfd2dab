"""What the user took before, the latest first: what a method gains where people repeat themselves, without any model.

Where seen items stay candidates and people come back to them, as on Yelp, this alone is above many published figures;
where nobody repeats an item, or seen items are masked, it is popularity.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split
from tesserec.progress import Progress
from tesserec.recommenders.base import ScoringRecommender
from tesserec.types import FloatArray


@dataclass(frozen=True, kw_only=True)
class OwnHistoryConfig:
    """Nothing to choose."""


class OwnHistory(ScoringRecommender):
    """Items of the history by their latest place in it, then all others by how often they occur in training."""

    method = "own-history"
    config_class = OwnHistoryConfig

    def __init__(self, config: OwnHistoryConfig | None = None) -> None:
        super().__init__(config or OwnHistoryConfig())

    def _fit(self, split: Split, checkpoints: Path | None, progress: Progress) -> None:
        pass  # the base class counts

    def score(self, histories: Sequences) -> FloatArray:
        """Place in the history, from 1, of what is in it; less than 1 for the others."""
        popularity = self.train_counts / (self.train_counts.max(initial=0) + 1)
        scores = np.tile(popularity.astype(np.float32), (len(histories), 1))
        rows, index = histories.positions()
        np.maximum.at(scores, (rows, histories.values[index]), (index - histories.starts[rows] + 1).astype(np.float32))
        return scores

    def _write(self, folder: Path) -> None:
        pass

    def _read(self, folder: Path) -> None:
        pass
