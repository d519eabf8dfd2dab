"""Unified semantic and ID representation: an item is the codes of its text, shared with others, and a few own numbers.

An encoder maps the item's text embedding to a latent; the latent is quantised level by level, and the sum of its
codewords, joined with a small ID embedding, is the item's vector. A causal transformer reads the vectors of a history,
scores are inner products with the very same vectors, and quantiser and recommender are trained together.

Paper: Lin et al. 2025, Unified Semantic and ID Representation Learning for Deep Recommenders (arXiv 2502.16474).

Differences from the paper (its public code where the paper is silent), each with its reason:

- The loss is cross-entropy over all items; one negative per target (`loss="bce"`) is the paper's.
- No place is padding. In the public code about nine in ten vectors that initialise, move and replace codewords, and
  that the losses of the quantiser average over, are the padding row's.
- Every item counts once per step in the losses and moving averages of the quantiser, and codewords move once per step,
  not once each for history, target and negative.
- Straight-through passes the gradient of z to the encoder unchanged, whatever the distances: what the public code
  computes for "mixed", where its levels' gradients add up to just that. `straight_through="per-level"` gives what it
  computes for "cosine", where each level passes on what is tangential to its residual.
- The residual that enters the next level is h minus codewords without gradient, at the last level as well.
- Codebooks start from k-means over the whole catalogue, and the encoder's last layer is scaled so that latents start
  with the length `latent_length`. A cosine level subtracts a codeword of length 1 whatever is left over: where latents
  start much shorter, the second code follows from the first.
- Text embeddings are standardised, and the reconstruction error is relative to their variance.
- Blocks are SASRec's of this library (pre-norm, width 72 throughout, feed-forward 4 times as wide); positions
  count from the start of the window.
- All squared errors are summed over dimensions. The public code averages the commitment over 64 of them: its weight
  of 1 is 1/64 here.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tesserec.data.catalogue import Catalogue
from tesserec.errors import ConfigError, DataError
from tesserec.functional.kmeans import kmeans
from tesserec.functional.residual import (
    Distance,
    Quantized,
    compared_by,
    level_distances,
    nearest,
    paper_residual,
    quantize_for_training,
    residual_quantize,
    unit_rows,
)
from tesserec.networks.rq_autoencoder import mean_and_deviation, mlp
from tesserec.networks.transformer import SequenceEncoder, small_weights
from tesserec.recommenders.item_vectors import (
    ItemFeatures,
    ItemVectorNetwork,
    ItemVectorRecommender,
    ItemVectorSettings,
)
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.collisions import with_extra_level
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.training.saving import write_network
from tesserec.types import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class UnifiedConfig(ItemVectorSettings):
    """The item's representation, the network over it, and their losses."""

    token: Literal["unified", "semantic", "id"] = "unified"  # both parts of an item's vector, or one alone (ablation)
    distance: Literal["mixed", "cosine", "euclidean"] = "mixed"  # "mixed": cosine, but Euclidean in the last level
    n_levels: int = 3  # codes per item
    codebook_size: int = 256  # codewords per level
    latent_width: int = 64  # of the semantic part
    id_width: int = 8  # of the ID embedding
    hidden: tuple[int, ...] = (512, 256)  # widths of the encoder's inner layers; the decoder mirrors them
    latent_length: float = 2.0  # mean length of the latents at the start
    standardize: bool = True  # every dimension of the text embeddings
    straight_through: Literal["whole", "per-level"] = "whole"  # what the latents get of the gradient, see `Quantizer`
    codebooks: Literal["ema", "gradient"] = "ema"  # what moves codewords: a moving average of residuals, or AdamW
    decay: float = 0.8  # of the moving averages, per step
    dead_below: float = 0.5  # codewords with fewer items per step (moving average) are moved onto a random residual
    reconstruction: float = 1.0  # weight of the decoder's error, relative to the variance of the text embeddings
    commitment: float = 0.25  # weight of the squared distances of residuals from their codewords
    collisions: Literal["share", "extra-level"] = "share"  # of the exported IDs: items with equal codes
    extra_level_size: int = 256  # codewords of the extra level

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_levels", "latent_width", "id_width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use 1 or more.")
        for name in ("reconstruction", "commitment", "dead_below"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use 0 or more.")
        if self.codebook_size < 2:
            raise ConfigError(f"codebook_size is {self.codebook_size}. Use 2 codewords or more.")
        if not self.latent_length > 0:
            raise ConfigError(f"latent_length is {self.latent_length}. Use a length above 0.")
        if not 0 <= self.decay < 1:
            raise ConfigError(f"decay is {self.decay}. Use 0 or more, and less than 1.")
        if self.width % self.n_heads:
            raise ConfigError(
                f"An item's vector of {self.width} numbers (token = {self.token!r}) cannot be shared by {self.n_heads} "
                "heads. Change latent_width or id_width to make it a multiple."
            )

    @property
    def width(self) -> int:
        """Of an item's vector, and of the transformer."""
        widths = {"semantic": self.latent_width, "id": self.id_width, "unified": self.latent_width + self.id_width}
        return widths[self.token]

    @property
    def distances(self) -> tuple[Distance, ...]:
        """Of each level."""
        return level_distances(self.distance, self.n_levels)


# -- size --------------------------------------------------------------------------------------------------------------

PLAIN_WIDTH = 64  # of the table of item embeddings that the paper compares with


@dataclass(frozen=True)
class SizeReport:
    """How many numbers stand for the items, against a plain table of item embeddings."""

    id_table: int  # N x id_width
    codebooks: int  # L x K x latent_width
    plain_table: int  # N x PLAIN_WIDTH, what a model over item ids has instead
    encoder_and_decoder: int  # trained, too; recommending known items needs neither
    text_table: int  # N x D, frozen; read in training, and not saved with the model
    codes: int  # N x L whole numbers, which a saved model has in place of the texts

    @property
    def reduction(self) -> float:
        """As the paper counts: 1 - (ID table + codebooks) / plain table. Negative: more than the plain table."""
        return 1 - (self.id_table + self.codebooks) / self.plain_table

    @property
    def reduction_of_trained(self) -> float:
        """The same with encoder and decoder, which are trained as well."""
        return 1 - (self.id_table + self.codebooks + self.encoder_and_decoder) / self.plain_table

    def to_dict(self) -> dict[str, float]:
        return {**vars(self), "reduction": self.reduction, "reduction_of_trained": self.reduction_of_trained}


def size_report(config: UnifiedConfig, *, n_items: int, text_width: int) -> SizeReport:
    """Sizes of a model of this configuration over N items with texts D wide."""
    has_codes, has_ids = config.token != "id", config.token != "semantic"
    widths = (text_width, *config.hidden, config.latent_width)
    one_way = sum(width * following for width, following in pairwise(widths))
    biases = sum(widths[1:]) + sum(widths[:-1])  # of the encoder's layers and of the decoder's
    return SizeReport(
        id_table=n_items * config.id_width * has_ids,
        codebooks=config.n_levels * config.codebook_size * config.latent_width * has_codes,
        plain_table=n_items * PLAIN_WIDTH,
        encoder_and_decoder=(2 * one_way + biases) * has_codes,
        text_table=n_items * text_width * has_codes,
        codes=n_items * config.n_levels * has_codes,
    )


# -- quantiser ---------------------------------------------------------------------------------------------------------

ROWS_AT_A_TIME = 16_384  # when a whole catalogue is encoded
EMPTY = 1e-6  # items per step (moving average) below which a codeword stays where it is


def ema_update(
    sums: Tensor, counts: Tensor, residuals: Tensor, codes: Tensor, *, decay: float
) -> tuple[Tensor, Tensor]:
    """Moving averages of what a level's codewords are chosen for; their ratio is the codeword.

        m_k = decay m_k + (1 - decay) sum of the residuals of code k
        n_k = decay n_k + (1 - decay) number of them

    Args:
        sums: (K, d) m.
        counts: (K,) n.
        residuals: (U, d).
        codes: (U,) int64.

    Source: van den Oord et al. 2017 (VQ-VAE, arXiv 1711.00937), appendix A.1.
    """
    total = torch.zeros_like(sums).index_add_(0, codes, residuals)
    number = torch.bincount(codes, minlength=len(counts)).to(counts.dtype)
    return torch.lerp(total, sums, decay), torch.lerp(number, counts, decay)


def without_bias_at_first(network: nn.Sequential) -> nn.Sequential:
    """The same network, its biases set to zero."""
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    return network


class Quantizer(nn.Module):
    """Text embedding -> latent -> sum of codewords -> text embedding; with all state of the codebooks.

    Codewords of a cosine level have length 1 when they are added up, whatever the table holds.
    """

    mean: Tensor  # (D,) of the text embeddings
    std: Tensor  # (D,)
    power: Tensor  # () mean squared length of the standardised text embeddings
    codebooks: Tensor  # (L, K, d); a buffer, or with codebooks = "gradient" a parameter
    counts: Tensor  # (L, K) items of each codeword per step, moving average
    sums: Tensor  # (L, K, d) their residuals, moving average

    def __init__(self, text_width: int, config: UnifiedConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(text_width))
        self.register_buffer("std", torch.ones(text_width))
        self.register_buffer("power", torch.ones(()))
        widths = (text_width, *config.hidden, config.latent_width)
        self.encoder, self.decoder = without_bias_at_first(mlp(widths)), without_bias_at_first(mlp(widths[::-1]))
        shape = (config.n_levels, config.codebook_size, config.latent_width)
        self.register_buffer("counts", torch.ones(shape[:2]))
        self.register_buffer("sums", torch.zeros(shape))
        if config.codebooks == "gradient":
            self.codebooks = nn.Parameter(torch.zeros(shape))
        else:
            self.register_buffer("codebooks", torch.zeros(shape))

    def standardized(self, text: Tensor) -> Tensor:
        """(U, D) -> (U, D)."""
        return (text - self.mean) / self.std

    def forward(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Quantised latents (U, d), and the quantiser's loss, a mean over items.

        The latents get the gradient of their quantised values unchanged ("whole"), or summed over levels as it passes
        through what each level compares ("per-level"): through r_l, or through r_l / |r_l| under cosine.

            loss = w_r |x - D(z)|^2 / E|x|^2  +  w_c sum_l |r_l - sg(e_l)|^2   (+ sum_l |sg(r_l) - e_l|^2)

        The term in brackets is there where codebooks have a gradient. In training mode codewords move afterwards.
        """
        config = self.config
        x = self.standardized(text)  # (U, D)
        h = self.encoder(x)  # (U, d)
        with torch.autocast(h.device.type, enabled=False):
            tables = self.codebooks.clone()  # gradients belong to them as they are now
            quantized = quantize_for_training(h.float(), list(tables), paper_residual, distances=config.distances)
        loss: Tensor = config.commitment * quantized.commitment_errors.square().sum(dim=(0, 2)).mean()
        if config.codebooks == "gradient":
            loss = loss + quantized.codebook_errors.square().sum(dim=(0, 2)).mean()
        z = quantized.latent
        if config.straight_through == "per-level":
            z = z.detach() + (quantized.commitment_errors - quantized.commitment_errors.detach()).sum(dim=0)
        error = x - self.decoder(z).float()  # (U, D)
        loss = loss + config.reconstruction * error.square().sum(dim=1).mean() / self.power
        if self.training:
            self.move_codewords(quantized)
        return z, loss

    @torch.no_grad()
    def move_codewords(self, quantized: Quantized) -> None:
        """To the moving average of their residuals; those without items onto a random residual of their level."""
        config = self.config
        for level, distance in enumerate(config.distances):
            residuals, codes, codebook = quantized.residuals[level], quantized.codes[:, level], self.codebooks[level]
            sums, counts = ema_update(self.sums[level], self.counts[level], residuals, codes, decay=config.decay)
            if config.codebooks == "ema":
                mean = sums / counts[:, None].clamp_min(EMPTY)
                mean = unit_rows(mean) if distance == "cosine" else mean
                codebook = torch.where(counts[:, None] > EMPTY, mean, codebook)
            dead = counts < config.dead_below  # (K,)
            drawn = residuals[torch.randint(len(residuals), dead.shape, device=residuals.device)]  # (K, d)
            self.codebooks[level] = torch.where(dead[:, None], drawn, codebook)
            self.counts[level] = torch.where(dead, 2 * config.dead_below, counts)  # some steps to find items
            self.sums[level] = torch.where(dead[:, None], drawn * self.counts[level][:, None], sums)

    @torch.no_grad()
    def begin(self, text: Tensor, seed: int) -> None:
        """Statistics of the texts (N, D), the scale of the latents, and codebooks by k-means, level by level."""
        config = self.config
        if config.standardize:
            self.mean, self.std = mean_and_deviation(text)
        x = self.standardized(text)
        self.power = x.square().sum(dim=1).mean().clamp_min(torch.finfo(x.dtype).tiny)
        length = torch.linalg.vector_norm(self.encoder(x), dim=1).mean()
        if length > 0:
            self.encoder[-1].weight *= config.latent_length / length  # biases are zero
        residual = self.encoder(x)  # (N, d)
        for level, distance in enumerate(config.distances):
            compared, _ = compared_by(distance, residual, self.codebooks[level])
            table = kmeans(compared.numpy(), config.codebook_size, n_iterations=25, n_restarts=1, seed=seed + level)
            codebook = unit_rows(torch.from_numpy(table)) if distance == "cosine" else torch.from_numpy(table)
            codes = nearest(compared, codebook)
            self.codebooks[level] = codebook
            self.counts[level] = torch.bincount(codes, minlength=len(codebook)).clamp_min(1)
            self.sums[level] = codebook * self.counts[level][:, None]
            residual = residual - codebook[codes]

    @property
    def tables(self) -> list[Tensor]:
        """L tables (K, d) of the codewords as they are added up."""
        return [
            compared_by(distance, table, table)[1] for distance, table in zip(self.config.distances, self.codebooks)
        ]

    @torch.no_grad()
    def codes(self, vectors: FloatArray) -> IntArray:
        """(N, L) codes of text embeddings (N, D), in double precision, so that they do not depend on the batch."""
        device = torch.device("cpu") if self.mean.device.type == "mps" else self.mean.device
        exact = copy.deepcopy(self).to(device=device, dtype=torch.float64)
        parts = list[IntArray]()
        for start in range(0, len(vectors), ROWS_AT_A_TIME):
            text = torch.from_numpy(vectors[start : start + ROWS_AT_A_TIME].astype(np.float64)).to(device)
            latents = exact.encoder(exact.standardized(text))
            codes, _ = residual_quantize(latents, list(exact.codebooks), distances=self.config.distances)
            parts.append(codes.cpu().numpy())
        return np.concatenate(parts)


# -- network -----------------------------------------------------------------------------------------------------------


class UnifiedItems(nn.Module):
    """What item vectors s_i = [z_i ; e_i] are made of."""

    def __init__(self, n_items: int, text_width: int, config: UnifiedConfig) -> None:
        super().__init__()
        self.quantizer = Quantizer(text_width, config) if config.token != "id" else None
        self.ids = nn.Embedding(n_items, config.id_width) if config.token != "semantic" else None

    def forward(self, items: Tensor, text: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Vectors (U, D) of these items from their text embeddings (U, d), and the quantiser's loss."""
        parts, loss = list[Tensor](), torch.zeros((), device=items.device)
        if self.quantizer is not None:
            latents, loss = self.quantizer(text)
            parts.append(latents)
        if self.ids is not None:
            parts.append(self.ids(items))
        return torch.cat(parts, dim=1), loss

    @torch.no_grad()
    def of_codes(self, codes: IntArray) -> Tensor:
        """(N, D) of all items, from their codes (N, L)."""
        parts = list[Tensor]()
        if self.quantizer is not None:
            columns = torch.from_numpy(codes).to(self.quantizer.mean.device).T
            parts.append(torch.stack([e[code] for e, code in zip(self.quantizer.tables, columns)]).sum(dim=0))
        if self.ids is not None:
            parts.append(self.ids.weight)
        return torch.cat(parts, dim=1)


class UnifiedNetwork(ItemVectorNetwork):
    """Item vectors that come with the quantiser's loss, and histories of them -> a state after each item."""

    items: UnifiedItems

    def __init__(self, n_items: int, text_width: int, config: UnifiedConfig) -> None:
        items = UnifiedItems(n_items, text_width, config)
        super().__init__(items, SequenceEncoder(config.width, config), config.temperature)
        small_weights(*([items.ids] if items.ids is not None else []), self.encoder)

    def vectors(self, items: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        vectors, loss = self.items(items, *features)
        return vectors, loss


# -- recommender -------------------------------------------------------------------------------------------------------


class Unified(ItemVectorRecommender):
    """Next items by a causal transformer over [quantised text ; small ID embedding], trained end to end."""

    method = "unified"
    config_class = UnifiedConfig
    needs_embeddings = True
    network: UnifiedNetwork | None

    def __init__(self, *args: Any, **features: Any) -> None:
        super().__init__(*args, **features)
        self._codes: IntArray = np.zeros((0, 0), dtype=np.int64)  # (N, L) of the whole catalogue; (N, 0) with ids alone

    @property
    def n_parameters(self) -> int:
        """Trained numbers, codebooks included, also those that move by averaging."""
        quantizer = self.network.items.quantizer if self.network is not None else None
        averaged = quantizer.codebooks.numel() if quantizer is not None and self.config.codebooks == "ema" else 0
        return averaged + super().n_parameters

    @property
    def sizes(self) -> dict[str, float]:
        """Numbers that stand for the items, against a plain table of item embeddings; see `SizeReport`."""
        return size_report(self.config, n_items=len(self.fitted_catalogue), text_width=self.text_width).to_dict()

    @property
    def text_width(self) -> int:
        """Of the embeddings."""
        return self.feature_shapes["embeddings"][0]

    # -- fitting -------------------------------------------------------------------------------------------------------

    def _check_features(self, features: ItemFeatures) -> None:
        super()._check_features(features)
        if features.embeddings is None or self.config.token == "id":
            return
        n_items = len(features.embeddings.catalogue)
        if n_items < self.config.codebook_size:
            raise DataError(
                f"{n_items} items cannot fill a codebook of {self.config.codebook_size} codewords. Set codebook_size "
                f"to {n_items} or less (a quarter of the items or less is sensible)."
            )

    def _tables(self, features: ItemFeatures) -> list[Tensor]:
        return super()._tables(features) if self.config.token != "id" else []

    def _make_network(self, n_items: int) -> UnifiedNetwork:
        return UnifiedNetwork(n_items, self.text_width, self.config)

    def _begin(self, tables: Sequence[Tensor]) -> None:
        if tables:
            self._quantizer.begin(tables[0], self.training.seed)

    def _settle(self, tables: Sequence[Tensor], n_items: int) -> None:
        if tables:
            self._codes = self._quantizer.codes(tables[0].cpu().numpy())
        self._vectors = self._fitted_network.items.of_codes(self._codes)

    def _item_rows(self) -> set[str]:
        return {"items.ids.weight"} if self.config.token != "semantic" else set()

    # -- semantic IDs --------------------------------------------------------------------------------------------------

    @property
    def semantic_ids(self) -> SemanticIds:
        """The IDs of the catalogue whose codewords are in the scores, under the configured collision policy.

        Raises:
            ConfigError: not fitted, or token = "id", which has no codes.
            DataError: more items share an ID than the extra level can name.
        """
        return self._ids(self.fitted_catalogue, self._codes)

    def encode(self, embeddings: Embeddings) -> SemanticIds:
        """The IDs of any items, by the trained encoder and codebooks.

        Raises:
            ConfigError: not fitted, or token = "id", which has no codes.
            DataError: embeddings of attributes or of another width, or more colliding items than can be named.
        """
        if embeddings.vectors.shape[1:] != (self.text_width,):
            raise DataError(
                f"The embeddings have shape {embeddings.vectors.shape}, but the model was trained on one vector of "
                f"{self.text_width} per item. Encode the items with the text settings of the training."
            )
        return self._ids(embeddings.catalogue, self._quantizer.codes(embeddings.vectors))

    @classmethod
    def makes_semantic_ids(cls, config: Any) -> bool:
        return bool(config.token != "id")

    def _ids(self, catalogue: Catalogue, codes: IntArray) -> SemanticIds:
        """Codes with their codebooks, under the configured collision policy."""
        config = self.config
        ids = SemanticIds(
            catalogue,
            codes,
            (config.codebook_size,) * config.n_levels,
            codebooks=tuple(table.detach().cpu().numpy() for table in self._quantizer.tables),
            config=self.full_config,
        )
        return with_extra_level(ids, config.extra_level_size) if config.collisions == "extra-level" else ids

    @property
    def _quantizer(self) -> Quantizer:
        quantizer = self._fitted_network.items.quantizer
        if quantizer is None:
            raise ConfigError("This unified recommender has token = 'id' and no codes. Train one with 'unified'.")
        return quantizer

    @property
    def _fitted_network(self) -> UnifiedNetwork:
        return self._fitted(self.network)

    # -- saving --------------------------------------------------------------------------------------------------------

    def _write(self, folder: Path) -> None:
        write_network(folder, self._fitted_network, self.log)
        np.save(folder / "codes.npy", self._codes)

    def _read_vectors(self, folder: Path) -> Tensor:
        self._codes = np.load(folder / "codes.npy")
        return self._fitted_network.items.of_codes(self._codes)
