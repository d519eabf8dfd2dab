"""An autoencoder whose narrow middle is quantised level by level: the weights of RQ-VAE and of what builds on it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from tesserec.functional.kmeans import kmeans
from tesserec.functional.residual import (
    Assign,
    Distance,
    NextResidual,
    Quantized,
    compared_by,
    nearest,
    quantize_for_training,
    unit_rows,
)

ROWS_AT_A_TIME = 16_384  # items that are encoded together: bounds the hidden layers of a whole catalogue
KMEANS_POINTS = 512  # per codeword, at most, from which codebooks start


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them, none after the last."""
    layers = list[nn.Module]()
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def mean_and_deviation(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """(D,) each, by which (N, D) embeddings are standardised; 1 for a dimension that is the same for all items."""
    std = vectors.std(dim=0, correction=0)
    return vectors.mean(dim=0), torch.where(std > 1e-6, std, 1.0)


@dataclass(frozen=True)
class Pass:
    """What a loss needs of a batch that went through."""

    x: Tensor  # (B, D) standardised input
    decoded: Tensor  # (B, D) what the decoder makes of the quantised middle
    quantized: Quantized


class RQAutoencoder(nn.Module):
    """Standardisation, encoder, codebooks, decoder."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        width: int,
        *,
        hidden: Sequence[int],
        latent_width: int,
        codebook_size: int,
        distances: Sequence[Distance],  # one per level
    ) -> None:
        super().__init__()
        widths = (width, *hidden, latent_width)
        self.distances = tuple(distances)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.encoder = mlp(widths)
        self.decoder = mlp(widths[::-1])
        self.codebooks = nn.ParameterList(torch.zeros(codebook_size, latent_width) for _ in distances)

    def standardised(self, vectors: Tensor) -> Tensor:
        """(B, D) embeddings, every dimension with mean 0 and deviation 1 over the fitted catalogue."""
        return (vectors - self.mean) / self.std

    def latents(self, vectors: Tensor) -> Tensor:
        """(B, D) embeddings -> (B, d)."""
        z: Tensor = self.encoder(self.standardised(vectors))
        return z

    def forward(self, x: Tensor, next_residual: NextResidual, assign_last: Assign = nearest) -> Pass:
        """Standardised x (B, D) through encoder, quantiser and decoder; see `quantize_for_training`.

        The quantiser computes in the weights' own precision, whatever autocast says: rounded residuals of the last
        levels are mostly rounding.
        """
        z: Tensor = self.encoder(x)
        with torch.autocast(x.device.type, enabled=False):
            quantized = quantize_for_training(
                z.to(self.mean.dtype),
                list(self.codebooks),
                next_residual,
                distances=self.distances,
                assign_last=assign_last,
            )
        return Pass(x, self.decoder(quantized.latent), quantized)

    def tables(self) -> list[Tensor]:
        """L tables (K, d) of what the codes stand for: the codewords, scaled to length 1 on cosine levels."""
        return [
            unit_rows(codebook) if distance == "cosine" else codebook
            for codebook, distance in zip(self.codebooks, self.distances, strict=True)
        ]

    @torch.no_grad()
    def standardise(self, vectors: Tensor) -> None:
        """Take mean and deviation from (N, D) embeddings."""
        self.mean, self.std = mean_and_deviation(vectors)

    @torch.no_grad()
    def encode_all(self, x: Tensor) -> Tensor:
        """Standardised x (N, D) -> latents (N, d), in blocks."""
        return torch.cat([self.encoder(rows).to(x.dtype) for rows in torch.split(x, ROWS_AT_A_TIME)])

    @torch.no_grad()
    def init_codebooks(self, latents: Tensor, seed: int) -> None:
        """k-means on the latents (N, d) of the whole catalogue, then on what each level leaves over.

        Of a large catalogue, KMEANS_POINTS items per codeword are drawn once.
        """
        n_points = KMEANS_POINTS * len(self.codebooks[0])
        if len(latents) > n_points:
            drawn = torch.randperm(len(latents), generator=torch.Generator().manual_seed(seed))[:n_points]
            latents = latents[drawn.to(latents.device)]
        for level, (residual, codebook) in enumerate(self._residuals(latents)):
            table = kmeans(residual.cpu().numpy(), len(codebook), n_iterations=50, n_restarts=1, seed=seed + level)
            codebook.copy_(torch.from_numpy(table))

    @torch.no_grad()
    def reset_unused(self, latents: Tensor, optimizer: torch.optim.Optimizer, random: torch.Generator) -> list[int]:
        """Move codewords that none of the items, given by their latents (N, d), uses onto random residuals of theirs.

        Returns:
            How many were moved, per level.
        """
        moved = list[int]()
        for (residual, codebook), distance in zip(self._residuals(latents), self.distances, strict=True):
            code = nearest(*compared_by(distance, residual, codebook))
            used = torch.bincount(code, minlength=len(codebook)) > 0
            unused = (~used).nonzero()[:, 0]
            rows = torch.randint(len(residual), (len(unused),), generator=random).to(residual.device)
            codebook[unused] = residual[rows]
            for moment in ("exp_avg", "exp_avg_sq"):
                optimizer.state[codebook][moment][unused] = 0  # the old place's momentum would carry it back
            moved.append(len(unused))
        return moved

    def _residuals(self, latents: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Level by level the residuals (N, d), as its distance compares them, and the codebook.

        The codebook may be changed before the next level is asked for.
        """
        residual = latents
        for codebook, distance in zip(self.codebooks, self.distances, strict=True):
            compared, _ = compared_by(distance, residual, codebook)
            yield compared, codebook
            compared, table = compared_by(distance, residual, codebook)
            residual = residual - table[nearest(compared, table)]
