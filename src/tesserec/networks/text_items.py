"""Item vectors that are linear in a text embedding."""

import torch
from torch import Tensor, nn

from tesserec.networks.rq_autoencoder import mean_and_deviation


class Standardize(nn.Module):
    """(x - mean) / deviation in every dimension, by the statistics of the catalogue that training began with.

    Not `enabled`, it passes embeddings on as they are. The statistics are saved with the network, so that items which
    come later, or another catalogue, are seen in the same space.
    """

    mean: Tensor  # (D,)
    std: Tensor  # (D,)

    def __init__(self, width: int, *, enabled: bool = True) -> None:
        super().__init__()
        self.enabled = enabled
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def fit(self, vectors: Tensor) -> None:
        """Take the statistics of embeddings (N, D)."""
        if self.enabled:
            self.mean, self.std = mean_and_deviation(vectors)

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return (vectors - self.mean) / self.std if self.enabled else vectors


def standardize_by(network: nn.Module, vectors: Tensor) -> None:
    """Give all `Standardize` of a network the statistics of embeddings (N, D)."""
    for module in network.modules():
        if isinstance(module, Standardize):
            module.fit(vectors)


class LinearText(nn.Module):
    """W x + b of standardised text embeddings x: no non-linearity, which costs accuracy on frozen embeddings."""

    def __init__(self, text_width: int, width: int, *, standardize: bool = True) -> None:
        super().__init__()
        self.standardize = Standardize(text_width, enabled=standardize)
        self.linear = nn.Linear(text_width, width)

    def forward(self, items: Tensor, text: Tensor) -> Tensor:
        """Vectors (U, width) of text embeddings (U, D); which items they are (U,) does not matter."""
        vectors: Tensor = self.linear(self.standardize(text))
        return vectors
