"""CCFRec: item vectors made of the item's codes, each of which asks the texts of its attributes what it stands for.

The code embeddings of an item are the queries of a small transformer that attends to the (frozen) text vectors of its
attributes; their mean is the item's vector. A causal transformer reads the vectors of a history, and cosines with the
same vectors rank the items. Two further losses hide codes of the history: the hidden codes are to be found again, and
the history with hidden codes is to lead to the same state.

Paper: Liu et al. 2025, Bridging Textual-Collaborative Gap through Semantic Codes for Sequential Recommendation
(arXiv 2503.12183).

Differences from the paper (its public code where the paper is silent), each with its reason:

- Item vectors are computed once per step for all items that it needs, history and candidates alike, and so share their
  dropout. The code encodes every place of every history anew, padding included.
- One pass per user trains all its positions; the code makes a row of every prefix.
- h + z everywhere: histories and candidates are gathered from one table. The code leaves z out in histories.
- PAD does not exist (no place is padding), and MASK is a trained row of its own, no class of the masked-code loss. In
  the code both are row 0, a random vector that its lookups never train.
- A code that is replaced at random gets another of its own level; `random_codes = "all"` draws from all, as the code
  does: from another level it stands for nothing.
- The loss is cross-entropy over all items; `loss = "sampled-softmax"` draws `n_negatives` without replacement, as the
  code does, but from all items: only a row's own target is left out, not the targets of the others. Where there are
  fewer items it takes all, where the code stops.
- In-batch alignment takes positions of other sequences as negatives and not those of the same one, as rows of one batch
  in the code are prefixes of mostly different users; at most ALIGNED positions of a step, drawn at random.
- Dropout is on what each layer adds, not on attention weights, so that fused attention kernels apply; norms have
  PyTorch's epsilon; weight decay spares biases and norms.
- Text vectors are whitened by our own principal components, without scikit-learn, and saved with the model.
- Each process averages the further losses over what it computes, so several processes do not take exactly the step of
  one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesserec.artifacts import require_same
from tesserec.errors import ConfigError, DataError
from tesserec.functional.dropout import Dropout
from tesserec.functional.losses import softmax_cross_entropy
from tesserec.functional.whitening import fit_whitening, whiten
from tesserec.networks.transformer import SequenceEncoder, attend, small_weights
from tesserec.recommenders.item_vectors import (
    CODE_SPACE,
    ITEMS_AT_A_TIME,
    ItemFeatures,
    ItemVectorNetwork,
    ItemVectorRecommender,
    ItemVectorSettings,
    Output,
)
from tesserec.recommenders.next_item import Part
from tesserec.types import FloatArray

HIDDEN, REPLACED = 0.8, 0.1  # of the chosen codes: shares that become MASK, and another code; the rest stays
ALIGNED = 2048  # positions of a step that are contrasted with each other: bounds the table of their products


@dataclass(frozen=True, kw_only=True)
class CCFRecConfig(ItemVectorSettings):
    """Item vectors, the transformer over a history, and what hiding codes adds to the loss."""

    width: int = 64  # of codes, item vectors and states; texts are reduced to so many dimensions, at most
    item: Literal["fused", "codes", "text"] = "fused"  # "codes": their mean alone, "text": the attributes' mean alone
    fusion_layers: int = 2
    fusion_heads: int = 2
    fusion_dropout: float = 0.1
    masked_codes: float = 0.2  # weight of finding hidden codes again; 0: off
    alignment: float = 0.1  # weight of the contrast of histories with and without hidden codes; 0: off
    mask_ratio: float = 0.5  # of the codes of a history
    mask_classes: Literal["all", "level"] = "all"  # among which a hidden code is to be found: all, or its level's
    random_codes: Literal["level", "all"] = "level"  # what a hidden code may be replaced by
    temperature: float | None = 0.07  # of all three losses
    norm: Literal["pre", "post"] = "post"
    dropout: float = 0.4  # of the transformer over a history
    max_length: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads(self.width)
        for name in ("fusion_layers", "fusion_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use 1 or more.")
        if self.width % self.fusion_heads:
            raise ConfigError(
                f"width {self.width} cannot be shared by {self.fusion_heads} fusion_heads. Use a multiple."
            )
        if not 0 <= self.fusion_dropout < 1:
            raise ConfigError(f"fusion_dropout is {self.fusion_dropout}. Use 0 or more, and less than 1.")
        for name in ("masked_codes", "alignment"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use 0 or more.")
        if not 0 <= self.mask_ratio <= 1:
            raise ConfigError(f"mask_ratio is {self.mask_ratio}. Use a share from 0 to 1.")
        if self.item == "text" and self.hides_codes:
            raise ConfigError(
                "item is 'text', whose vectors know no codes that could be hidden. Set masked_codes = 0 and "
                "alignment = 0."
            )
        if self.item == "codes" and self.masked_codes:
            raise ConfigError(
                "item is 'codes', whose codes know nothing of each other, so that a hidden one cannot be found. Set "
                "masked_codes = 0."
            )

    @property
    def hides_codes(self) -> bool:
        """Whether histories are encoded a second time, with hidden codes."""
        return bool(self.masked_codes or self.alignment)

    def draw(self, targets: Tensor, n_items: int) -> Tensor | None:
        if self.loss != "sampled-softmax":
            return super().draw(targets, n_items)
        return torch.randperm(n_items, device=targets.device)[: self.n_negatives]


# -- hiding codes ------------------------------------------------------------------------------------------------------


class Hidden(NamedTuple):
    """Codes of n items, some of which are hidden."""

    codes: Tensor  # (n, L) rows of the code table; MASK, its last row, where a code is masked
    chosen: Tensor  # (n, L) bool, the codes to be found again, which may stand there unchanged


def hide_codes(
    codes: Tensor, offsets: Tensor, *, ratio: float, mask: int, replace_by: Literal["level", "all"] = "level"
) -> Hidden:
    """Choose codes with probability `ratio`; of those 80 % become MASK, 10 % another code, 10 % stay.

    Random numbers are torch's on the device of the codes, which the training loop seeds by the step.

    Args:
        codes: (n, L) int64 rows of the code table, those of level l in [offsets[l], offsets[l + 1]).
        offsets: (L + 1,) int64.
        mask: the row of MASK.
        replace_by: codes of the same level, or of all.

    Source: Liu et al. 2025 (arXiv 2503.12183), after Devlin et al. 2019 (BERT, arXiv 1810.04805), section 3.1.
    """
    chosen = torch.rand(codes.shape, device=codes.device) < ratio
    fate, other = torch.rand(2, *codes.shape, device=codes.device)
    first, last = (offsets[:-1], offsets[1:]) if replace_by == "level" else (offsets[:1], offsets[-1:])
    drawn = first + (other * (last - first)).long().clamp(max=last - first - 1)  # float32 may round up to the end
    hidden = torch.where(chosen & (fate < HIDDEN), mask, codes)
    hidden = torch.where(chosen & (fate >= HIDDEN) & (fate < HIDDEN + REPLACED), drawn, hidden)
    return Hidden(hidden, chosen)


def alignment_loss(states: Tensor, others: Tensor, sequences: Tensor) -> Tensor:
    """Symmetric InfoNCE between two views of each of n positions, a mean over positions.

        loss = - 1/2 mean_t [ log softmax_{t'}(u_t . v_{t'})[t]  +  log softmax_{t'}(v_t . u_{t'})[t] ]

    with t' over t itself and the positions of other sequences.

    Args:
        states, others: (n, D) u and v, ready for inner products (one of them divided by the temperature).
        sequences: (n,) int64, the sequence of each position.

    Source: Liu et al. 2025 (arXiv 2503.12183), masked sequence alignment.
    """
    products = (states @ others.T).float()  # (n, n)
    own = torch.arange(len(states), device=states.device)
    same = sequences[:, None] == sequences
    products = products.masked_fill(same.fill_diagonal_(False), -torch.inf)
    return (F.cross_entropy(products, own) + F.cross_entropy(products.T, own)) / 2


# -- network -----------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Every query of an item looks at all C places of the item's context; a single place leaves nothing to choose."""

    def __init__(self, width: int, context_width: int, n_places: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qk = nn.ModuleList([nn.Linear(width, width), nn.Linear(context_width, width)] if n_places > 1 else [])
        self.v, self.out = nn.Linear(context_width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(U, L, D) queries and (U, C, D') context -> (U, L, D), or (U, 1, D) for all queries where C is 1."""
        v = self.v(context)  # (U, C, D)
        if self.qk:
            q, k, v = (
                part.unflatten(2, (self.n_heads, -1)).transpose(1, 2)
                for part in (self.qk[0](x), self.qk[1](context), v)
            )  # (U, H, L or C, D / H)
            v = attend(q, k, v, causal=False).transpose(1, 2).flatten(2)
        return self.out(v)  # type: ignore[no-any-return]


class FusionBlock(nn.Module):
    """Codes look at each other, then at the attributes' texts; after each the sum is normalised.

    x = norm(x + attention(x, x)); x = norm(x + attention(x, T)); x = norm(x + feed_forward(x))
    """

    def __init__(self, n_levels: int, n_attributes: int, text_width: int, config: CCFRecConfig) -> None:
        super().__init__()
        width, n_heads = config.width, config.fusion_heads
        self.among_codes = Attention(width, width, n_levels, n_heads)
        self.to_texts = Attention(width, text_width, n_attributes, n_heads)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = Dropout(config.fusion_dropout)

    def forward(self, x: Tensor, texts: Tensor) -> Tensor:
        """(U, L, D) and (U, A, W) -> (U, L, D)."""
        x = self.norms[0](x + self.dropout(self.among_codes(x, x)))
        x = self.norms[1](x + self.dropout(self.to_texts(x, texts)))
        return self.norms[2](x + self.dropout(self.feed_forward(x)))  # type: ignore[no-any-return]


class CCFRecItems(nn.Module):
    """Item vectors from whitened texts of A attributes and codes of L levels.

    There is no order among attributes, and among levels only that each has its own rows of the code table.
    """

    means: Tensor  # (A, D) of the attributes' embeddings
    axes: Tensor  # (A, D, W) principal axes; W is the width, or less
    offsets: Tensor  # (L + 1,) the first row of each level in the code table, and the number of rows

    def __init__(self, axes_shape: tuple[int, int, int], codebook_sizes: Sequence[int], config: CCFRecConfig) -> None:
        super().__init__()
        self.kind = config.item
        n_attributes, full, text_width = axes_shape
        self.register_buffer("means", torch.zeros(n_attributes, full))
        self.register_buffer("axes", torch.zeros(axes_shape))
        self.register_buffer("offsets", torch.tensor([0, *codebook_sizes]).cumsum(0), persistent=False)
        self.codes = nn.Embedding(sum(codebook_sizes), config.width) if config.item != "text" else None
        self.mask = nn.Parameter(0.02 * torch.randn(config.width)) if config.hides_codes else None
        self.blocks = nn.ModuleList(
            FusionBlock(len(codebook_sizes), n_attributes, text_width, config)
            for _ in range(config.fusion_layers if config.item == "fused" else 0)
        )
        self.text = nn.Linear(text_width, config.width) if config.item == "text" else None
        small_weights(*(module for module in (self.codes, self.blocks, self.text) if module is not None))

    def forward(self, items: Tensor, texts: Tensor, codes: Tensor) -> Tensor:
        """Vectors (U, D), from (U, A, W) and (U, L) codes within their levels."""
        if self.text is not None:
            return self.text(texts).mean(dim=1)  # type: ignore[no-any-return]
        return self.pool(*self.read(self.rows(codes), texts))

    def rows(self, codes: Tensor) -> Tensor:
        """(n, L) codes within their levels -> rows of the code table."""
        return codes + self.offsets[:-1]

    @property
    def table(self) -> Tensor:
        """(V, D) embeddings of all codes, and if codes are hidden, one more row: MASK."""
        assert self.codes is not None
        return self.codes.weight if self.mask is None else torch.cat([self.codes.weight, self.mask[None]])

    def read(self, rows: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """What becomes of the codes, h, and their embeddings z: both (n, L, D), from (n, L) rows of the table."""
        z = F.embedding(rows, self.table)
        h = z
        for block in self.blocks:
            h = block(h, texts)
        return h, z

    def pool(self, h: Tensor, z: Tensor) -> Tensor:
        """(n, L, D) -> (n, D): the mean of h + z."""
        return (h + z).mean(dim=1) if len(self.blocks) else z.mean(dim=1)

    @torch.no_grad()
    def fit_whitening(self, embeddings: FloatArray) -> None:
        """Learn how (N, A, D) embeddings are reduced."""
        means, axes = fit_whitening(embeddings, self.axes.shape[2])
        self.means.copy_(torch.from_numpy(means))
        self.axes[:, :, : axes.shape[2]] = torch.from_numpy(axes)  # fewer where items are fewer; the rest stays zero

    def whiten(self, embeddings: FloatArray) -> Tensor:
        """(N, A, D) embeddings -> (N, A, W)."""
        means, axes = self.means.cpu().numpy(), self.axes.cpu().numpy()
        blocks = (embeddings[start : start + ITEMS_AT_A_TIME] for start in range(0, len(embeddings), ITEMS_AT_A_TIME))
        return torch.from_numpy(np.concatenate([whiten(block, means, axes).astype(np.float32) for block in blocks]))


class CCFRecNetwork(ItemVectorNetwork):
    """Item vectors of texts and codes, a state after each item of a history, and what hidden codes say of both."""

    items: CCFRecItems

    def __init__(self, axes_shape: tuple[int, int, int], codebook_sizes: Sequence[int], config: CCFRecConfig) -> None:
        encoder = SequenceEncoder(config.width, config)
        super().__init__(CCFRecItems(axes_shape, codebook_sizes, config), encoder, config.temperature)
        small_weights(encoder)
        self.config = config

    def forward(self, parts: Sequence[Part], items: Tensor, features: Sequence[Tensor]) -> Output:
        vectors, loss = self.vectors(items, features)
        states = self.states(parts, items, vectors)
        if self.config.hides_codes:
            loss = self.hiding_loss(parts, items, features, states)
        return Output(self.query(states), self.key(vectors), loss)

    def hiding_loss(self, parts: Sequence[Part], items: Tensor, features: Sequence[Tensor], states: Tensor) -> Tensor:
        """Weighted sum of both losses; every occurrence of an item in a history hides codes of its own."""
        texts, codes = features
        taken = torch.cat([part.inputs.items[: len(part.targets)] for part in parts])  # (n,) no fillers
        places = torch.searchsorted(items, taken)
        rows, texts = self.items.rows(codes[places]), texts[places]
        config = self.config
        hidden = hide_codes(
            rows, self.items.offsets, ratio=config.mask_ratio, mask=len(self.items.table) - 1,
            replace_by=config.random_codes,
        )  # fmt: skip
        h, z = self.items.read(hidden.codes, texts)
        loss = states.new_zeros(())
        if config.masked_codes:
            loss = loss + config.masked_codes * self.masked_code_loss(h, rows, hidden.chosen)
        if config.alignment:
            masked = self.states_of_vectors(parts, self.items.pool(h, z))
            loss = loss + config.alignment * self.alignment_loss(parts, states, masked)
        return loss

    def masked_code_loss(self, h: Tensor, rows: Tensor, chosen: Tensor) -> Tensor:
        """Cross-entropy of the chosen codes among all codes or those of their level, a mean; 0 where none is chosen.

        Args:
            h: (n, L, D) what became of the codes, some of them hidden.
            rows: (n, L) the true codes, as rows of the code table.
            chosen: (n, L) bool.
        """
        assert self.items.codes is not None
        vectors = self.key(self.items.codes.weight)  # (V, D), without MASK
        if self.config.mask_classes == "all":
            total = softmax_cross_entropy(self.query(h[chosen]), vectors, rows[chosen])
        else:
            bounds = self.items.offsets.tolist()
            total = torch.stack([
                softmax_cross_entropy(
                    self.query(h[chosen[:, level], level]), vectors[first:last], rows[chosen[:, level], level] - first
                )
                for level, (first, last) in enumerate(pairwise(bounds))
            ]).sum()  # fmt: skip
        return total / chosen.sum().clamp_min(1)

    def states_of_vectors(self, parts: Sequence[Part], vectors: Tensor) -> Tensor:
        """(n, D) states after each place of the parts, from a vector (n, D) of its own for each place."""
        states, start = list[Tensor](), 0
        for part in parts:
            n, filled = len(part.targets), len(part.inputs.items)
            own = F.pad(vectors[start : start + n], (0, 0, 0, filled - n))
            states.append(self.encode(part.inputs, own)[:n])
            start += n
        return torch.cat(states)

    def alignment_loss(self, parts: Sequence[Part], states: Tensor, masked: Tensor) -> Tensor:
        """`alignment_loss` of the states with and without hidden codes, (n, D)."""
        sequences, first = list[Tensor](), 0
        for part in parts:
            n_rows, length = part.inputs.shape
            sequences.append(first + part.inputs.slots[: len(part.targets)] // length)
            first += n_rows
        sequence = torch.cat(sequences)
        if len(sequence) > ALIGNED:
            drawn = torch.randperm(len(sequence), device=sequence.device)[:ALIGNED]
            states, masked, sequence = states[drawn], masked[drawn], sequence[drawn]
        return alignment_loss(self.query(states), self.key(masked), sequence)


# -- recommender -------------------------------------------------------------------------------------------------------


class CCFRec(ItemVectorRecommender):
    """Next items by a causal transformer over vectors in which an item's codes have read the texts of its attributes.

    Embeddings are (N, A, D) of A attributes, or (N, D), which is one attribute. Semantic IDs may be any: those of `pq`
    with attribute embeddings are the paper's. An attribute without text has the vector of all items without it.
    """

    method = "ccfrec"
    config_class = CCFRecConfig
    needs_embeddings = True
    needs_semantic_ids = True
    network: CCFRecNetwork | None

    def _check_features(self, features: ItemFeatures) -> None:
        if features.embeddings is None or features.semantic_ids is None:
            return
        texts, codes = features.embeddings.catalogue, features.semantic_ids.catalogue
        if texts.fingerprint != codes.fingerprint:
            raise DataError(
                f"The embeddings describe {len(texts)} items and the semantic IDs {len(codes)} (or the same in another "
                "order). Make the IDs from these embeddings."
            )

    def _make_network(self, n_items: int) -> CCFRecNetwork:
        *attributes, full = self.feature_shapes["embeddings"]
        width = min(self.config.width, full)
        network = CCFRecNetwork((*(attributes or [1]), full, width), self.feature_shapes["semantic_ids"], self.config)
        if self.features.embeddings is not None:
            network.items.fit_whitening(_by_attribute(self.features.embeddings.vectors))
        return network

    def _tables(self, features: ItemFeatures) -> list[Tensor]:
        assert features.embeddings is not None
        assert features.semantic_ids is not None
        texts = self._fitted_network.items.whiten(_by_attribute(features.embeddings.vectors))
        return [texts, torch.from_numpy(np.array(features.semantic_ids.codes, dtype=np.int64))]

    def _start_from(self, other: Self) -> None:
        """As for all item vectors; codes must mean the same, as nothing aligns them here."""
        mine, theirs = (model.feature_sources.get(CODE_SPACE, "") for model in (self, other))
        if mine and theirs:
            remedy = (
                "CCFRec does not align codes: have the tokenizer of that run name these items, by tokenizer=fitted and "
                "tokenizer.path=RUN."
            )
            require_same(
                "The codebooks of these items", mine, f"those of {self.config.pretrained}", theirs, remedy=remedy
            )
        super()._start_from(other)

    @property
    def _fitted_network(self) -> CCFRecNetwork:
        return self._fitted(self.network)


def _by_attribute(vectors: FloatArray) -> FloatArray:
    """(N, D) or (N, A, D) -> (N, A, D)."""
    table: FloatArray = vectors.reshape(len(vectors), -1, vectors.shape[-1])
    return table
