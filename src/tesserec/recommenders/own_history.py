"""What the user took before, the latest first: what a method gains where people repeat themselves, without any model.

Where seen items stay candidates and people come back to them, as on Yelp, this alone is above many published figures;
where nobody repeats an item, or seen items are masked, it is popularity.
"""

import numpy as np

from tesserec.data.sequences import Sequences
from tesserec.recommenders.popularity import Popularity
from tesserec.types import FloatArray


class OwnHistory(Popularity):
    """Items of the history by their latest place in it, then all others by popularity."""

    method = "own-history"

    def score(self, histories: Sequences) -> FloatArray:
        """Place in the history, from 1, of what is in it; less than 1 for the others."""
        scores = super().score(histories) / np.float32(self.train_counts.max(initial=0) + 1)
        rows, index = histories.positions()
        np.maximum.at(scores, (rows, histories.values[index]), (index - histories.starts[rows] + 1).astype(np.float32))
        return scores
