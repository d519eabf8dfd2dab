"""Losses of models that learn a vector per item: how negatives are drawn, and what makes up for how they were drawn."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tesserec.errors import ConfigError
from tesserec.functional.losses import calibrated_binary_cross_entropy, sampled_softmax
from tesserec.recommenders.next_item import NextItemLoss

DRAWN = ("sampled-softmax", "gbce")  # losses with `n_negatives` items for all targets that are computed together


@dataclass(frozen=True, kw_only=True)
class ItemLoss(NextItemLoss):
    """Against which items the next one is to win."""

    loss: Literal["softmax", "sampled-softmax", "bce", "gbce"] = "softmax"  # type: ignore[assignment]  # one more
    calibration: float = 0.75  # gbce: 0 is binary cross-entropy, 1 calibrates the probabilities fully
    popular_share: float = 0.0  # of the negatives, in expectation, are drawn by how often users took them
    correction: Literal["none", "logq", "logq-negatives"] = "none"  # sampled-softmax: of all logits, or the negatives'

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("calibration", "popular_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use a number from 0 to 1.")
        if self.popular_share and self.loss not in DRAWN:
            raise ConfigError(
                f"popular_share is {self.popular_share}, but loss = {self.loss!r} draws no shared negatives. Use "
                "loss = 'sampled-softmax', or popular_share = 0."
            )
        if self.correction != "none" and self.loss != "sampled-softmax":
            raise ConfigError(
                f"correction is {self.correction!r}, but loss is {self.loss!r}. Use loss = 'sampled-softmax', or "
                "correction = 'none'."
            )

    def proposal(self, counts: Tensor) -> Tensor:
        """(N,) how probably each item is drawn, from how often it was taken (N,): a mix of that and uniform."""
        return self.popular_share * counts / counts.sum() + (1 - self.popular_share) / len(counts)

    def against_catalogue(self, states: Tensor, vectors: Tensor, targets: Tensor, proposal: Tensor) -> Tensor:
        """The summed loss of states (n, D) whose targets (n,) are rows of the vectors (N, D) of all items.

        Args:
            proposal: (N,) as `proposal` gives; of losses that are not drawn by it, it may be anything.
        """
        if self.loss not in DRAWN:
            return self.of(states, vectors, targets, self.draw(targets, len(vectors)))
        negatives = torch.multinomial(proposal, self.n_negatives, replacement=True)
        if self.loss == "gbce":
            return calibrated_binary_cross_entropy(states, vectors, targets, negatives, calibration=self.calibration)
        return sampled_softmax(
            states,
            vectors,
            targets,
            negatives,
            log_q=None if self.correction == "none" else proposal.log(),
            correct_target=self.correction == "logq",
        )
