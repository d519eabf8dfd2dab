"""UniSRec: sequence representations that transfer, from texts through whitening experts.

Eight experts, each a learned shift and linear map of the item's frozen text embedding, are mixed by gates that look at
the embedding; a causal transformer reads the mixtures. Pre-trained on several domains by contrast within a batch, the
transformer is kept as it is on a new domain, where only the experts learn (inductive), or the experts and an embedding
for each item (transductive, `ids`).

Paper: Hou et al. 2022, Towards Universal Sequence Representation Learning for Recommender Systems (UniSRec, arXiv
2206.05941).

Differences from the paper (its public code where the paper is silent), each with its reason:

- Text embeddings are standardised before the experts (`standardize`). The code reads BERT's vectors as they are;
  ours have length 1, so that their entries, and hence gates and experts, would start from very little.
- One causal pass per sequence predicts every item, instead of a row per prefix. Sequences are contrasted once per pass,
  by the state after their last input, with the other sequences that the process computes.
- Augmentation drops items. Dropping words needs a second encoding of all texts, for the one batch in ten that uses it.
- Another row with the same target is no negative; the code counts it as an item orthogonal to the state.
- All experts see the same dropout of the embedding, so that they are one product: out = sum_e g_e W_e (x - b_e).
- Blocks are SASRec's of this library (docs/methods/sasrec.md); `norm = "post"` and `ff_width = 256` are the code's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesserec.data.sequences import Sequences
from tesserec.errors import ConfigError
from tesserec.functional.dropout import Dropout
from tesserec.networks.text_items import Standardize, standardize_by
from tesserec.networks.transformer import Packed, SequenceEncoder, pack, small_weights
from tesserec.recommenders.item_vectors import (
    Bundle,
    CatalogueNextItem,
    ItemVectorNetwork,
    ItemVectorRecommender,
    ItemVectorSettings,
    Output,
)
from tesserec.recommenders.next_item import Part


@dataclass(frozen=True, kw_only=True)
class UniSRecConfig(ItemVectorSettings):
    """The experts, the contrast of pre-training and what fine-tuning leaves alone."""

    temperature: float | None = 0.07
    width: int = 128  # of item vectors and states
    n_experts: int = 8
    expert_dropout: float = 0.2  # of text embeddings, before an expert's shift
    standardize: bool = True  # every dimension of the text embeddings, before the experts
    ids: bool = False  # transductive: an embedding for each item is added to what the experts say
    contrast: float = 0.0  # weight of the contrast between sequences and their augmentations; 0.001 to pre-train
    drop_items: float = 0.2  # share of a sequence that augmentation leaves out; its first item stays
    freeze: bool = True  # blocks and positions stay as they were in `pretrained`

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads(self.width)
        if self.n_experts < 1:
            raise ConfigError(f"n_experts is {self.n_experts}. Use 1 or more.")
        for name in ("expert_dropout", "drop_items"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use 0 or more, and less than 1.")
        if self.contrast < 0:
            raise ConfigError(f"contrast is {self.contrast}. Use 0 or more.")
        if self.contrast and self.temperature is None:
            raise ConfigError(f"contrast is {self.contrast}, which compares by cosine. Set temperature, such as 0.07.")


# -- items -------------------------------------------------------------------------------------------------------------

LEAST_NOISE = 0.01  # deviation of the gates' noise


class Experts(nn.Module):
    """A mixture of E experts that shift, scale and turn text embeddings: parametric whitening.

        out = sum_e g_e W_e (x - b_e),   g = softmax(x G + noise * (softplus(x N) + 0.01)),   noise in training only

    All gates are open. The noise makes experts learn that the gates do not choose yet.
    """

    def __init__(self, text_width: int, width: int, n_experts: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.shifts = nn.Parameter(torch.zeros(n_experts, text_width))  # b
        self.weights = nn.Parameter(torch.empty(n_experts, width, text_width))  # W
        nn.init.normal_(self.weights, std=0.02)
        self.gates = nn.Parameter(torch.zeros(text_width, n_experts))  # G
        self.noise = nn.Parameter(torch.zeros(text_width, n_experts))  # N

    def gates_of(self, x: Tensor) -> Tensor:
        """(U, E), rows add up to 1, of text embeddings (U, D)."""
        logits = (x @ self.gates).float()
        if self.training:
            logits = logits + torch.randn_like(logits) * (F.softplus((x @ self.noise).float()) + LEAST_NOISE)
        return logits.softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """(U, D) -> (U, width)."""
        gates = self.gates_of(x)  # (U, E)
        n_experts, width, _ = self.weights.shape
        shifted = (self.weights @ self.shifts[:, :, None])[..., 0]  # W_e b_e                  (E, width)
        every = F.linear(self.dropout(x), self.weights.flatten(0, 1))  # W_e x, one product    (U, E * width)
        mixed: Tensor = (gates.to(every.dtype)[:, None] @ every.view(-1, n_experts, width))[:, 0]
        return mixed - gates.to(shifted.dtype) @ shifted


class UniSRecItems(nn.Module):
    """What the experts say of the text, and with `ids` an embedding of the item itself."""

    def __init__(self, n_items: int, text_width: int, config: UniSRecConfig) -> None:
        super().__init__()
        self.standardize = Standardize(text_width, enabled=config.standardize)
        self.experts = Experts(text_width, config.width, config.n_experts, config.expert_dropout)
        self.ids = nn.Embedding(n_items, config.width) if config.ids else None

    def forward(self, items: Tensor, text: Tensor) -> Tensor:
        """Vectors (U, width) of items (U,) with text embeddings (U, D)."""
        vectors: Tensor = self.experts(self.standardize(text))
        return vectors if self.ids is None else vectors + self.ids(items)


# -- contrast ----------------------------------------------------------------------------------------------------------


def drop_items(packed: Packed, n_tokens: int, share: float) -> Part:
    """The same sequences without a random share of their items; the first of each stays.

    Args:
        packed: B sequences on the CPU.
        n_tokens: of them, without the fillers.
        share: probability that an item is left out, by torch's global generator.

    Returns:
        B sequences, with their own items in the place of targets and events, which nobody asks for.
    """
    slots, length = packed.slots[:n_tokens], packed.shape[1]
    keep = (torch.rand(n_tokens) >= share) | (slots % length == 0)
    items = packed.items[:n_tokens][keep]
    lengths = torch.bincount(slots[keep] // length, minlength=packed.shape[0])
    return Part(pack(Sequences.from_offsets(items.numpy(), F.pad(lengths.cumsum(0), (1, 0)).numpy())), items, items)


def last_places(parts: Sequence[Part]) -> Tensor:
    """(S,) which of the states of all parts, one after the other, are those after the last item of a sequence."""
    rows, first = list[Tensor](), 0
    for part in parts:
        n_tokens, (n_sequences, length) = len(part.targets), part.inputs.shape
        lengths = torch.bincount(part.inputs.slots[:n_tokens] // length, minlength=n_sequences)
        rows.append(first + lengths.cumsum(0) - 1)
        first += n_tokens
    return torch.cat(rows)


def sequence_contrast(queries: Tensor, keys: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each sequence's own augmentation against those of the others, a mean.

        loss = mean_j -q_j.k_j + log sum_j' exp(q_j.k_j'),   j' = j or with another target

    Args:
        queries: (S, D) states of the sequences.
        keys: (S, D) states of their augmentations.
        targets: (S,) the item that follows each; sequences before the same item are no negatives of each other.
    """
    same = (targets[:, None] == targets) & ~torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    logits = (queries @ keys.T).float().masked_fill(same, -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(targets), device=targets.device))


class ContrastingNextItem(CatalogueNextItem):
    """Objective: the next item, and sequences alike to what is left of them without some of their items."""

    config: UniSRecConfig

    def loss(self, model: nn.Module, part: Bundle, device: torch.device) -> Tensor:
        if not self.config.contrast:
            return super().loss(model, part, device)
        augmented = [drop_items(one.inputs, len(one.targets), self.config.drop_items).to(device) for one in part.parts]
        bundle = part.to(device)
        targets = torch.cat([one.targets for one in bundle.parts])  # (n,)
        negatives = None if self.config.loss == "in-batch" else self.config.draw(targets, self.n_items)
        items = self.items_of(bundle, targets, negatives)
        output: Output = model([*bundle.parts, *augmented], items, self.features_of(items))
        states, others = output.states[: len(targets)], output.states[len(targets) :]
        loss = self.next_item_loss(output._replace(states=states), items, bundle, targets, negatives)
        last = last_places(bundle.parts)
        keys = F.normalize(others[last_places(augmented)], dim=1)  # states are cosines over the temperature already
        contrast = sequence_contrast(states[last], keys, targets[last])
        total: Tensor = loss + len(targets) * (output.loss + self.config.contrast * contrast)
        return total


# -- recommender -------------------------------------------------------------------------------------------------------


class UniSRec(ItemVectorRecommender):
    """Next items by a causal transformer over mixtures of whitening experts."""

    method = "unisrec"
    config_class = UniSRecConfig
    objective_class = ContrastingNextItem
    needs_embeddings = True

    def _make_network(self, n_items: int) -> ItemVectorNetwork:
        config, (text_width,) = self.config, self.feature_shapes["embeddings"]
        items = UniSRecItems(n_items, text_width, config)
        network = ItemVectorNetwork(items, SequenceEncoder(config.width, config), config.temperature)
        small_weights(network.encoder, *([items.ids] if items.ids is not None else []))
        return network

    def _begin(self, tables: Sequence[Tensor]) -> None:
        standardize_by(self._fitted_network, tables[0])

    def _start_from(self, other: Self) -> None:
        super()._start_from(other)
        if self.config.freeze:
            encoder = self._fitted_network.encoder
            for module in (encoder.positions, encoder.blocks):
                module.requires_grad_(False)

    def _item_rows(self) -> set[str]:
        return {"items.ids.weight"} if self.config.ids else set()
