"""SASRec: a causal transformer over the items of a history, whose state at each item predicts the next one.

Item and position embeddings enter blocks of causal self-attention and a feed-forward layer; scores are inner products
of the state with the very item embeddings that came in. One pass over a user's sequence trains all its positions.

Paper: Kang & McAuley, Self-Attentive Sequential Recommendation, ICDM 2018 (arXiv 1808.09781).

Differences from the paper, each with its reason:

- The loss is cross-entropy over all items; one negative per target (the paper's, `loss="bce"`; here any item, those of
  the user included) reaches three fifths of the recall on Amazon Beauty (docs/results.md).
- The feed-forward layer is D -> 4 D -> D with GELU, as in later transformers; the paper's is D -> D with ReLU.
- Blocks normalise their input and add to an unnormalised stream (pre-LN), with a final norm; dropout is on embeddings
  and on what each layer adds, not on attention weights, so that fused attention kernels apply.
- Positions count from the start of the window, so that the state after an item does not depend on what follows:
  training one pass per user and scoring a prefix alone see the same numbers.
- Histories of any length train: longer ones are cut into windows that predict every item once.

Tokens of all sequences lie in one row, without padding; only attention sees them as a table of sequences by places.
"""

from dataclasses import dataclass

from tesserec.recommenders.item_table import ItemTableRecommender, ItemTableSettings


@dataclass(frozen=True, kw_only=True)
class SASRecConfig(ItemTableSettings):
    """The network and its loss."""


class SASRec(ItemTableRecommender):
    """Next items by a causal transformer over item embeddings."""

    method = "sasrec"
    config_class = SASRecConfig
