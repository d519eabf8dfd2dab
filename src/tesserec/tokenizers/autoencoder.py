"""What RQ-VAE and LETTER share: the semantic term of their loss, training, encoding, reconstruction and files.

A method adds its own loss to a batch that went through the network (`networks.rq_autoencoder`); everything else is
here. The catalogue stays in memory as one standardised table, and an epoch is a random order of its rows.
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tesserec.errors import ConfigError, TrainingError
from tesserec.functional.residual import (
    GRADIENTS,
    Assign,
    Distance,
    last_level,
    level_distances,
    nearest,
    residual_quantize,
)
from tesserec.functional.sinkhorn import uniform_codes
from tesserec.networks.rq_autoencoder import ROWS_AT_A_TIME, Pass, RQAutoencoder
from tesserec.progress import Progress
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.base import ItemTokenizer, TokenizerConfig
from tesserec.training.devices import autocast, resolve_device, resolve_precision
from tesserec.types import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(TokenizerConfig):
    """Network, semantic loss and training."""

    hidden: tuple[int, ...] = (512, 256, 128)  # widths of the encoder's inner layers; the decoder mirrors them
    latent_width: int = 32
    distance: Literal["euclidean", "cosine", "mixed"] = "euclidean"  # of all levels; mixed: cosine on all but the last
    commitment: float = 0.25  # weight of the term that keeps the encoder near the codewords
    gradients: Literal["paper", "released"] = "paper"  # see functional.residual
    reduction: Literal["sum", "mean"] = "sum"  # of all squared errors over dimensions and levels; over items: the mean
    uniform: bool = False  # in training, the last level uses all codewords equally (LC-Rec's uniform semantic mapping)
    uniform_temperature: float = 0.003  # of its Sinkhorn iterations
    uniform_iterations: int = 50
    epochs: int = 200
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    reset_every: int = 10  # epochs between moves of unused codewords
    reset_share: float = 0.5  # of all epochs, after which nothing is moved any more
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of the products of encoder and decoder in training
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", "mps"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = ("latent_width", "uniform_temperature", "uniform_iterations", "epochs", "batch_size")
        for name in (*positive, "learning_rate", "reset_every"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use a value above 0.")
        for name in ("commitment", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use 0 or more.")
        if any(width < 1 for width in self.hidden):
            raise ConfigError(f"hidden is {self.hidden}. Use widths of 1 or more.")
        if not 0 <= self.reset_share <= 1:
            raise ConfigError(f"reset_share is {self.reset_share}. Use a share of the epochs from 0 to 1.")

    @property
    def distances(self) -> tuple[Distance, ...]:
        """Of each level."""
        return level_distances(self.distance, self.n_levels)


def squared(errors: Tensor, reduction: str) -> Tensor:
    """Squared error of (..., B, D): the mean over B of sums over all else ("sum"), or the mean over all ("mean").

    Both terms of the loss must be reduced alike: averaging the reconstruction over 768 dimensions while summing the
    quantisation over 32 weighs the latter 768 times as much, and the codebooks collapse.
    """
    squares = errors.square()
    return squares.sum(dim=-1).mean(dim=-1).sum() if reduction == "sum" else squares.mean()


def semantic_loss(found: Pass, config: AutoencoderConfig) -> Tensor:
    """L = |x - D(z_q)|^2 + sum_l |sg(r_l) - e_l|^2 + beta |r_l - sg(e_l)|^2, reduced over the batch."""
    return (
        squared(found.x - found.decoded.to(found.x.dtype), config.reduction)
        + squared(found.quantized.codebook_errors, config.reduction)
        + config.commitment * squared(found.quantized.commitment_errors, config.reduction)
    )


class AutoencoderTokenizer(ItemTokenizer):
    """A residual-quantised autoencoder; a method implements `_loss`."""

    config: AutoencoderConfig
    _network: RQAutoencoder

    @abstractmethod
    def _loss(self, network: RQAutoencoder, x: Tensor, rows: Tensor) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            x: (B, D) standardised embeddings.
            rows: (B,) int64 of the batch's items in the catalogue.
        """

    def _begin(self, network: RQAutoencoder, collaborative: Tensor | None) -> None:
        """What a method prepares before the first epoch; collaborative vectors (N, d) where it needs them."""

    def _begin_epoch(self, network: RQAutoencoder, epoch: int) -> None:
        """What a method does before epoch 1, 2, ..."""

    def _through(self, network: RQAutoencoder, x: Tensor) -> Pass:
        """A training batch through the network, as the configuration says."""
        config = self.config
        assign: Assign = nearest
        if config.uniform:
            assign = partial(uniform_codes, temperature=config.uniform_temperature, n_iters=config.uniform_iterations)
        found: Pass = network(x, GRADIENTS[config.gradients], assign)
        return found

    # -- training ------------------------------------------------------------------------------------------------------

    def _fit(self, embeddings: Embeddings, collaborative: FloatArray | None, progress: Progress) -> None:
        config = self.config
        device = resolve_device(config.device)
        random = torch.Generator().manual_seed(config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = self._new_network().to(device)
        x = torch.from_numpy(np.array(embeddings.vectors, dtype=np.float32)).to(device)  # (N, D), all in memory
        network.standardise(x)
        x = x.sub_(network.mean).div_(network.std)
        network.init_codebooks(network.encode_all(x), config.seed)
        taken = (
            torch.from_numpy(np.array(collaborative, dtype=np.float32)).to(device)
            if collaborative is not None
            else None
        )
        self._begin(network, taken)
        self._train(network, x, random, progress)
        self._network = network.cpu().double().requires_grad_(False)  # so that codes do not depend on the batch

    def _train(self, network: RQAutoencoder, x: Tensor, random: torch.Generator, progress: Progress) -> None:
        config = self.config
        dtype = resolve_precision(config.precision, x.device)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        last_reset = int(config.reset_share * config.epochs)
        with progress.task(self.method, config.epochs) as task:
            for epoch in range(1, config.epochs + 1):
                self._begin_epoch(network, epoch)
                total = torch.zeros((), device=x.device)
                for rows in torch.split(torch.randperm(len(x), generator=random).to(x.device), config.batch_size):
                    with autocast(x.device, dtype):
                        loss = self._loss(network, x[rows], rows)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    total += loss.detach() * len(rows)
                mean_loss = float(total) / len(x)
                if not np.isfinite(mean_loss):
                    raise TrainingError(
                        f"The {self.method} tokenizer's loss is {mean_loss} in epoch {epoch}. Set a learning_rate "
                        f"below {config.learning_rate}, and check the embeddings for very large values."
                    )
                if epoch % config.reset_every == 0 and epoch <= last_reset:
                    with autocast(x.device, dtype):
                        latents = network.encode_all(x)
                    network.reset_unused(latents, optimizer, random)
                task.advance(note=f"loss {mean_loss:.4g}")

    def _new_network(self) -> RQAutoencoder:
        config = self.config
        return RQAutoencoder(
            self.width,
            hidden=config.hidden,
            latent_width=config.latent_width,
            codebook_size=config.codebook_size,
            distances=config.distances,
        )

    # -- encoding ------------------------------------------------------------------------------------------------------

    def _codes(self, embeddings: Embeddings) -> IntArray:
        network, parts = self._network, list[IntArray]()
        for start in range(0, len(embeddings.vectors), ROWS_AT_A_TIME):
            latents = self._latents(embeddings.vectors[start : start + ROWS_AT_A_TIME])
            codes, _ = residual_quantize(latents, list(network.codebooks), distances=network.distances)
            parts.append(codes.numpy())
        return np.concatenate(parts)

    def _last_level(self, vectors: FloatArray, codes: IntArray) -> tuple[FloatArray, FloatArray]:
        network = self._network
        residual, table = last_level(
            self._latents(vectors), list(network.codebooks), torch.from_numpy(codes), distances=network.distances
        )
        return residual.numpy(), table.numpy()

    def _latents(self, vectors: FloatArray) -> Tensor:
        """(B, D) -> (B, d) float64."""
        return self._network.latents(torch.from_numpy(vectors.astype(np.float64)))

    @property
    def codebooks(self) -> tuple[FloatArray, ...]:
        self._check_fitted()
        return tuple(table.float().numpy() for table in self._network.tables())

    def reconstruct(self, codes: IntArray) -> FloatArray:
        self._check_fitted()
        network = self._network
        tables, parts = network.tables(), list[FloatArray]()
        for start in range(0, len(codes), ROWS_AT_A_TIME):
            columns = torch.from_numpy(codes[start : start + ROWS_AT_A_TIME]).T
            latent = torch.stack([table[column] for table, column in zip(tables, columns)]).sum(dim=0)
            x: Tensor = network.decoder(latent) * network.std + network.mean
            parts.append(x.float().numpy())
        return np.concatenate(parts)

    # -- files ---------------------------------------------------------------------------------------------------------

    def _write(self, folder: Path) -> None:
        from safetensors.torch import save_file

        save_file({name: value.contiguous() for name, value in self._network.state_dict().items()},
                  folder / "network.safetensors")  # fmt: skip

    def _read(self, folder: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        network = self._new_network().double()
        try:
            network.load_state_dict(load_file(folder / "network.safetensors"))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(str(error)) from None
        self._network = network.requires_grad_(False)
