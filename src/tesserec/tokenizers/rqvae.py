"""RQ-VAE: an autoencoder whose narrow middle is quantised level by level; the codes of the middle are the semantic ID.

Encoder and decoder shape a space in which few codewords say much; a commitment term keeps the encoder near them.
After Zeghidour et al. 2021 (SoundStream, arXiv 2107.03312) and Rajput et al. 2023 (TIGER, arXiv 2305.05065).

Differences from the paper:
- Every input dimension is standardised over the catalogue. Raw sentence embeddings are nearly equal in most
  dimensions, and public reproductions settle at "predict the mean embedding" on them.
- The codebooks start from k-means on the whole catalogue, level by level, not on the first batch, which has 4 points
  per codeword.
- Unused codewords are moved onto random current residuals from time to time. Without that, public reproductions
  lose most of a level.
- AdamW with rate 1e-3, not Adagrad with 0.4, and 200 epochs, not 20,000: usage is complete by then.
- `gradients` and `reduction` are choices. Public code differs in both, silently: see docs/tokenizers.md.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from tesserec.errors import ConfigError, TrainingError
from tesserec.functional.kmeans import kmeans
from tesserec.functional.residual import GRADIENTS, nearest, quantize_for_training, residual_quantize
from tesserec.progress import Progress
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.base import ItemTokenizer, TokenizerConfig
from tesserec.types import FloatArray, IntArray

ROWS_AT_A_TIME = 16_384  # rows per pass when the whole catalogue is encoded


@dataclass(frozen=True, kw_only=True)
class RQVAEConfig(TokenizerConfig):
    """Sizes are the paper's; training is not (see above)."""

    hidden: tuple[int, ...] = (512, 256, 128)  # widths of the encoder's inner layers; the decoder mirrors them
    latent_width: int = 32
    commitment: float = 0.25  # beta: weight of the commitment term
    gradients: Literal["paper", "released"] = "paper"  # see functional.residual
    reduction: Literal["sum", "mean"] = "sum"  # of all squared errors over dimensions and levels; over items: the mean
    epochs: int = 200
    batch_size: int = 256  # more steps per epoch than the 1,024 of the paper, and a lower error for the same work
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    reset_every: int = 10  # epochs between moves of unused codewords
    reset_share: float = 0.5  # of all epochs, after which nothing is moved any more
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("latent_width", "epochs", "batch_size", "learning_rate", "reset_every"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use a value above 0.")
        if not 0 <= self.reset_share <= 1:
            raise ConfigError(f"reset_share is {self.reset_share}. Use a share of the epochs from 0 to 1.")


def squared(errors: Tensor, reduction: str) -> Tensor:
    """Squared error of (..., B, D): the mean over B of sums over all else ("sum"), or the mean over all ("mean").

    Both terms of the loss must be reduced alike: averaging the reconstruction over 768 dimensions while summing the
    quantisation over 32 weighs the latter 768 times as much, and the codebooks collapse.
    """
    squares = errors.square()
    return squares.sum(dim=-1).mean(dim=-1).sum() if reduction == "sum" else squares.mean()


def mlp(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLU between them, none after the last."""
    layers = list[nn.Module]()
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class RQVAENetwork(nn.Module):
    """All state of the method: standardisation, encoder, codebooks, decoder."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, config: RQVAEConfig) -> None:
        super().__init__()
        widths = (width, *config.hidden, config.latent_width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.encoder = mlp(widths)
        self.decoder = mlp(widths[::-1])
        self.codebooks = nn.ParameterList(
            torch.zeros(config.codebook_size, config.latent_width) for _ in range(config.n_levels)
        )

    def latents(self, vectors: Tensor) -> Tensor:
        """(B, D) embeddings -> (B, d)."""
        z: Tensor = self.encoder((vectors - self.mean) / self.std)
        return z

    def loss(self, x: Tensor, config: RQVAEConfig) -> Tensor:
        """L = |x - D(z_q)|^2 + sum_l |sg(r_l) - e_l|^2 + beta |r_l - sg(e_l)|^2 on standardised x (B, D)."""
        quantized = quantize_for_training(self.encoder(x), list(self.codebooks), GRADIENTS[config.gradients])
        return (
            squared(x - self.decoder(quantized.latent), config.reduction)
            + squared(quantized.codebook_errors, config.reduction)
            + config.commitment * squared(quantized.commitment_errors, config.reduction)
        )

    @torch.no_grad()
    def init_codebooks(self, x: Tensor, seed: int) -> None:
        """k-means on the latents of the whole catalogue, then on what each level leaves over."""
        residual = self.encoder(x)  # (N, d)
        for level, codebook in enumerate(self.codebooks):
            table = kmeans(residual.cpu().numpy(), len(codebook), n_iterations=50, n_restarts=1, seed=seed + level)
            codebook.copy_(torch.from_numpy(table))
            residual = residual - codebook[nearest(residual, codebook)]

    @torch.no_grad()
    def reset_unused(self, x: Tensor, optimizer: torch.optim.AdamW, random: torch.Generator) -> list[int]:
        """Move codewords that no item uses onto random current residuals of their level.

        Returns:
            How many were moved, per level.
        """
        residual, moved = self.encoder(x), list[int]()  # (N, d)
        for codebook in self.codebooks:
            used = torch.bincount(nearest(residual, codebook), minlength=len(codebook)) > 0
            unused = (~used).nonzero()[:, 0]
            rows = torch.randint(len(residual), (len(unused),), generator=random).to(x.device)
            codebook[unused] = residual[rows]
            for moment in ("exp_avg", "exp_avg_sq"):
                optimizer.state[codebook][moment][unused] = 0  # the old place's momentum would carry it back
            residual = residual - codebook[nearest(residual, codebook)]
            moved.append(len(unused))
        return moved


class RQVAE(ItemTokenizer):
    """Residual-quantised autoencoder."""

    method = "rqvae"
    config_class = RQVAEConfig
    config: RQVAEConfig

    def _fit(self, embeddings: Embeddings, progress: Progress) -> None:
        config = self.config
        name = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
        random = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = RQVAENetwork(self.width, config).to(name)
        vectors = torch.from_numpy(np.array(embeddings.vectors, dtype=np.float32)).to(name)  # (N, D), all in memory
        network.mean, std = vectors.mean(dim=0), vectors.std(dim=0, correction=0)
        network.std = torch.where(std > 1e-6, std, 1.0)  # a dimension that is the same for all items says nothing
        x = (vectors - network.mean) / network.std
        network.init_codebooks(x, config.seed)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        last_reset = int(config.reset_share * config.epochs)
        with progress.task("RQ-VAE", config.epochs) as task:
            for epoch in range(1, config.epochs + 1):
                total = torch.zeros((), device=x.device)
                for rows in torch.split(torch.randperm(len(x), generator=random).to(x.device), config.batch_size):
                    loss = network.loss(x[rows], config)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    total += loss.detach() * len(rows)
                mean_loss = float(total) / len(x)
                if not np.isfinite(mean_loss):
                    raise TrainingError(
                        f"The RQ-VAE's loss is {mean_loss} in epoch {epoch}. Set a learning_rate below "
                        f"{config.learning_rate}, and check the embeddings for very large values."
                    )
                if epoch % config.reset_every == 0 and epoch <= last_reset:
                    network.reset_unused(x, optimizer, random)
                task.advance(note=f"loss {mean_loss:.4g}")
        self._network = network.cpu().double().requires_grad_(False)  # so that codes do not depend on the batch

    def _codes(self, embeddings: Embeddings) -> IntArray:
        parts = list[IntArray]()
        for start in range(0, len(embeddings.vectors), ROWS_AT_A_TIME):
            vectors = torch.from_numpy(embeddings.vectors[start : start + ROWS_AT_A_TIME].astype(np.float64))
            parts.append(residual_quantize(self._network.latents(vectors), list(self._network.codebooks))[0].numpy())
        return np.concatenate(parts)

    @property
    def codebooks(self) -> tuple[FloatArray, ...]:
        self._check_fitted()
        return tuple(codebook.float().numpy() for codebook in self._network.codebooks)

    def reconstruct(self, codes: IntArray) -> FloatArray:
        self._check_fitted()
        network = self._network
        columns = torch.from_numpy(codes).T
        latent = torch.stack([book[column] for book, column in zip(network.codebooks, columns)]).sum(dim=0)
        x: Tensor = network.decoder(latent) * network.std + network.mean
        return x.float().numpy()

    def _write(self, folder: Path) -> None:
        from safetensors.torch import save_file

        save_file({name: value.contiguous() for name, value in self._network.state_dict().items()},
                  folder / "network.safetensors")  # fmt: skip

    def _read(self, folder: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        network = RQVAENetwork(self.width, self.config).double()
        try:
            network.load_state_dict(load_file(folder / "network.safetensors"))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(str(error)) from None
        self._network = network.requires_grad_(False)
