"""SASRec on texts: an item's vector is a linear map of its frozen text embedding instead of a row of a table.

What a model can do with texts and nothing else: the row "SASRec (T)" of the tables of UniSRec and VQ-Rec. New items are
recommended from their texts alone.

Source: Hou et al. 2022, UniSRec (arXiv 2206.05941), a baseline of its experiments; Kang & McAuley 2018, SASRec.

Differences from the source, each with its reason:

- Text embeddings are standardised first (`standardize`): those of language models share a common direction that would
  otherwise decide most inner products.
- Scores are cosines over a temperature by default; `temperature = none` gives the inner products of SASRec.
- Blocks are SASRec's of this library (docs/methods/sasrec.md), behind a norm on vector and position.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tesserec.networks.text_items import LinearText, standardize_by
from tesserec.networks.transformer import SequenceEncoder, small_weights
from tesserec.recommenders.item_vectors import ItemVectorNetwork, ItemVectorRecommender, ItemVectorSettings


@dataclass(frozen=True, kw_only=True)
class SASRecTextConfig(ItemVectorSettings):
    """The network and its loss."""

    width: int = 128  # of item vectors and states
    standardize: bool = True  # every dimension of the text embeddings
    temperature: float | None = 0.07

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads(self.width)


class SASRecText(ItemVectorRecommender):
    """Next items by a causal transformer over linear maps of text embeddings."""

    method = "sasrec-text"
    config_class = SASRecTextConfig
    needs_embeddings = True

    def _make_network(self, n_items: int) -> ItemVectorNetwork:
        config, (text_width,) = self.config, self.feature_shapes["embeddings"]
        items = LinearText(text_width, config.width, standardize=config.standardize)
        network = ItemVectorNetwork(items, SequenceEncoder(config.width, config), config.temperature)
        small_weights(network)
        return network

    def _begin(self, tables: Sequence[Tensor]) -> None:
        standardize_by(self._fitted_network, tables[0])
