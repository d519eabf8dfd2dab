"""FDSA: one causal transformer over what items are, another over what they are like, joined for the next item.

The item stream reads ID embeddings, the feature stream a vector made of the item's text embeddings: where there are
several, one per attribute, an attention weighs them. The last states of both streams, joined by a linear layer, are
multiplied with the ID embeddings. Texts shape the state and are no part of the candidates.

Paper: Zhang et al., Feature-level Deeper Self-Attention Network, IJCAI 2019.

Differences from the paper, each with its reason:

- Features are frozen text embeddings through a linear layer and GELU, instead of embeddings of categories and brands:
  any item with a text has them. An attribute without text has no weight.
- The loss is cross-entropy over all items; one negative per target (`loss="bce"`) is the paper's.
- Each stream has positions and norms of its own, and the feature vector of an item is made once per step, as it does
  not depend on where the item occurs.
- Blocks are SASRec's of this library (docs/methods/sasrec.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tesserec.functional.dropout import Dropout
from tesserec.networks.text_items import Standardize, standardize_by
from tesserec.networks.transformer import Packed, SequenceEncoder, small_weights
from tesserec.recommenders.item_vectors import (
    ItemFeatures,
    ItemVectorNetwork,
    ItemVectorRecommender,
    ItemVectorSettings,
)


@dataclass(frozen=True, kw_only=True)
class FDSAConfig(ItemVectorSettings):
    """The two streams and the loss."""

    width: int = 128  # of ID embeddings, feature vectors and states
    standardize: bool = True  # every dimension of the text embeddings

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads(self.width)


class IdsAndFeatures(nn.Module):
    """[e_i ; f_i]: an ID embedding and a vector of the item's fields, (U, 2 width).

    F_k = GELU(W x_k + b)         f = sum_k a_k F_k,   a = softmax over k of (w2 . ReLU(W1 F_k + b1))
    """

    def __init__(self, n_items: int, text_width: int, width: int, *, standardize: bool = True) -> None:
        super().__init__()
        self.ids = nn.Embedding(n_items, width)
        self.standardize = Standardize(text_width, enabled=standardize)
        self.text = nn.Sequential(nn.Linear(text_width, width), nn.GELU())
        self.attention = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1, bias=False))

    def forward(self, items: Tensor, text: Tensor) -> Tensor:
        """Of items (U,) with one text embedding each (U, D), or one per field (U, A, D)."""
        return torch.cat([self.ids(items), self.features(text)], dim=1)

    def features(self, text: Tensor) -> Tensor:
        """(U, width). A field without text (all 0) has no weight, unless all are."""
        fields: Tensor = self.text(self.standardize(text))  # (U, D) or (U, A, D)
        if fields.ndim == 2:
            return fields  # the only one
        empty = (text == 0).all(dim=-1)  # (U, A)
        weights = self.attention(fields)[..., 0].float().masked_fill(empty, -1e4).softmax(dim=1)
        mixed: Tensor = (weights[..., None] * fields).sum(dim=1)
        return mixed


class FDSANetwork(ItemVectorNetwork):
    """Histories through two streams; candidates are the ID halves of the vectors."""

    items: IdsAndFeatures

    def __init__(self, n_items: int, text_width: int, config: FDSAConfig) -> None:
        width = config.width
        items = IdsAndFeatures(n_items, text_width, width, standardize=config.standardize)
        super().__init__(items, SequenceEncoder(width, config), config.temperature)  # of the item stream
        self.feature_encoder = SequenceEncoder(width, config)
        self.joined = nn.Linear(2 * width, width)
        self.norm, self.dropout = nn.LayerNorm(width), Dropout(config.dropout)
        small_weights(self)

    def encode(self, packed: Packed, vectors: Tensor) -> Tensor:
        """h = dropout(norm(W_c [H1 ; H2])): states (P, width), from the vectors (P, 2 width) of the tokens."""
        width = self.encoder.width
        # Scaled, the small ID embeddings that suit the output are as large as their positions.
        ids = self.encoder(packed, vectors[:, :width] * math.sqrt(width))
        features = self.feature_encoder(packed, vectors[:, width:])
        states: Tensor = self.dropout(self.norm(self.joined(torch.cat([ids, features], dim=1))))
        return states

    def key(self, vectors: Tensor) -> Tensor:
        return super().key(vectors[:, : self.encoder.width])


class FDSA(ItemVectorRecommender):
    """Next items by two causal transformers, over IDs and over features."""

    method = "fdsa"
    config_class = FDSAConfig
    needs_embeddings = True

    def _check_features(self, features: ItemFeatures) -> None:
        """One vector per item, or one per attribute."""

    def _make_network(self, n_items: int) -> FDSANetwork:
        *fields, text_width = self.feature_shapes["embeddings"]
        network = FDSANetwork(n_items, text_width, self.config)
        if not fields:  # a single field leaves nothing to weigh; processes that train together wait for every gradient
            network.items.attention.requires_grad_(False)
        return network

    def _begin(self, tables: Sequence[Tensor]) -> None:
        standardize_by(self._fitted_network, tables[0].flatten(0, -2))

    def _item_rows(self) -> set[str]:
        return {"items.ids.weight"}
