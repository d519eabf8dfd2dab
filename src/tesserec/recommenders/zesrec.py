"""ZESRec: a recommender for a domain of which no interaction is known, because it knows items by their texts alone.

An item's vector is a linear map of its text embedding plus, on the domain that it is trained on, an offset of its own
that is kept small: what the text does not say. On another domain there are no offsets, so that its items, and users by
the items they took, have vectors without any training (`zero_shot`); or training goes on there.

Paper: Ding et al. 2021, Zero-Shot Recommender Systems (arXiv 2105.08318).

Differences from the paper (which has no public code), each with its reason:

- The map is linear and the user network is a transformer, as in the comparisons of UniSRec and VQ-Rec, whose authors
  found activations to hurt on frozen embeddings; the paper's recurrent networks are not offered.
- Users have no offsets: a user is the items of the history, which is also how users who came later are served.
- The prior of the offsets is the squared norm, averaged over the items of a step: `offset_weight` is relative to the
  loss of one target, whatever the number of items.
- Text embeddings are standardised by the source domain's statistics, which the target domain shares. Otherwise the
  direction that all embeddings have in common decides most inner products.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesserec.errors import ConfigError
from tesserec.networks.text_items import LinearText, standardize_by
from tesserec.networks.transformer import SequenceEncoder, small_weights
from tesserec.recommenders.item_vectors import ItemVectorNetwork, ItemVectorRecommender, ItemVectorSettings
from tesserec.types import IntArray


@dataclass(frozen=True, kw_only=True)
class ZESRecConfig(ItemVectorSettings):
    """The network, the offsets and the loss."""

    width: int = 128  # of item vectors and states
    standardize: bool = True  # every dimension of the text embeddings
    offsets: bool = True  # of the items of the source domain; there are none when starting from `pretrained`
    offset_weight: float = 1.0  # of the mean squared length of the offsets in the loss

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads(self.width)
        if self.offset_weight < 0:
            raise ConfigError(f"offset_weight is {self.offset_weight}. Use 0 or more.")

    @property
    def has_offsets(self) -> bool:
        """Whether this is the source domain."""
        return self.offsets and not self.pretrained


class TextAndOffset(nn.Module):
    """v_j = W x_j + b + o_j, where o_j is 0 for all items without `offsets`."""

    def __init__(self, n_items: int, text_width: int, config: ZESRecConfig) -> None:
        super().__init__()
        self.text = LinearText(text_width, config.width, standardize=config.standardize)
        self.offsets = nn.Embedding(n_items, config.width) if config.has_offsets else None

    def forward(self, items: Tensor, text: Tensor) -> Tensor:
        """Vectors (U, width) of items (U,) with text embeddings (U, D)."""
        vectors: Tensor = self.text(items, text)
        return vectors if self.offsets is None else vectors + self.offsets(items)


class ZESRecNetwork(ItemVectorNetwork):
    """Item vectors that come with the prior of their offsets."""

    items: TextAndOffset

    def __init__(self, n_items: int, text_width: int, config: ZESRecConfig) -> None:
        items = TextAndOffset(n_items, text_width, config)
        super().__init__(items, SequenceEncoder(config.width, config), config.temperature)
        small_weights(self)
        self.offset_weight = config.offset_weight
        if items.offsets is not None:
            nn.init.zeros_(items.offsets.weight)  # the mean of their prior

    def vectors(self, items: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        vectors, loss = super().vectors(items, features)
        if self.items.offsets is not None:
            loss = loss + self.offset_weight * self.items.offsets(items).square().sum(dim=1).mean()
        return vectors, loss


class ZESRec(ItemVectorRecommender):
    """Next items by a causal transformer over text vectors, with regularised offsets on the source domain."""

    method = "zesrec"
    config_class = ZESRecConfig
    needs_embeddings = True
    network: ZESRecNetwork | None

    def _make_network(self, n_items: int) -> ZESRecNetwork:
        return ZESRecNetwork(n_items, self.feature_shapes["embeddings"][0], self.config)

    def _begin(self, tables: Sequence[Tensor]) -> None:
        standardize_by(self._fitted_network, tables[0])

    def _item_rows(self) -> set[str]:
        return {"items.offsets.weight"} if self.config.has_offsets else set()

    def _keep_rows(self, rows: IntArray) -> None:
        """Known items keep their offsets, new ones have the prior's mean, 0."""
        offsets = self._fitted_network.items.offsets
        if offsets is None:
            return
        kept = torch.from_numpy(rows).to(offsets.weight.device)
        table = F.pad(offsets.weight.detach(), (0, 0, 0, 1))[kept]  # row -1 is 0
        self.network = copy.deepcopy(self._fitted_network)
        self.network.items.offsets = nn.Embedding(len(table), self.config.width, device=table.device)
        self.network.items.offsets.load_state_dict({"weight": table})

    @property
    def _fitted_network(self) -> ZESRecNetwork:
        return self._fitted(self.network)
