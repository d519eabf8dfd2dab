"""LETTER: an RQ-VAE whose codes also agree with who took what, and whose codewords are kept spread out.

Three terms: the semantic loss of an RQ-VAE; a contrastive loss that pulls each item's quantised vector towards the
item's collaborative vector, such as SASRec's; and a loss that pulls every codeword towards the others of its cluster
and away from the rest of its codebook, so that all are used. Wang et al. 2024, "Learnable Item Tokenization for
Generative Recommendation" (CIKM, arXiv 2405.07314). Its fourth part, the temperature of the generator's loss, belongs
to the recommender (`TigerConfig.temperature`).

Differences from the paper:
- `diversity_loss = "exact"` is the expectation of the paper's loss over its random positives, at the cost of one K x K
  product per level. `"sampled"` draws them.
- All squared errors are means over dimensions and levels (`reduction = "mean"`), as in the released code, and the
  diversity loss is a mean over levels. The paper writes sums, but its weights only make sense so: against a sum over
  thousands of dimensions, alpha = 0.02 leaves nothing of the collaborative term. With `"sum"` all terms are sums.
- Only the first level's commitment reaches the encoder (`gradients = "released"`), as in the released code. In the
  paper's formula every level's does (`"paper"`); they hold the latents back, which the collaborative loss wants to
  grow, and it stays where it began (docs/methods/letter.md).
- Everything in which our RQ-VAE differs: standardised inputs, codebooks that start from plain k-means instead of a
  balanced one, which took ten minutes and ended at 51,200 items, unused codewords that are moved, fewer epochs of
  smaller batches and a smaller network by default (`letter-tiger-paper` has the published ones).
- Clusters of codewords start from the last centres, and their bounds follow the codebook: 10 to 60 of 256 codewords
  for 10 clusters is from 0.39 to 2.34 times an equal share. The released code draws ten new starts every epoch, and
  fails for codebooks of 16 or 1,024.
- Items that collide are told apart by linear assignment (`collisions = "assignment"`); the released loop is
  `"sinkhorn"`.

In the released code and here, but not in the paper: the last level uses all codewords equally in training (`uniform`).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tesserec.errors import ConfigError
from tesserec.functional.diversity import diversity_loss, sampled_diversity_loss
from tesserec.functional.kmeans import balanced_clusters
from tesserec.functional.losses import softmax_cross_entropy
from tesserec.networks.rq_autoencoder import RQAutoencoder
from tesserec.tokenizers.autoencoder import AutoencoderConfig, AutoencoderTokenizer, semantic_loss
from tesserec.tokenizers.collisions import CollisionPolicy
from tesserec.types import FloatArray

FIRST_ITERATIONS, LATER_ITERATIONS = 10, 2  # of clustering; later ones go on from the last centres
SIZE_BOUNDS = (10 / 25.6, 60 / 25.6)  # of a cluster, in equal shares of the codebook


@dataclass(frozen=True, kw_only=True)
class LetterConfig(AutoencoderConfig):
    """Weights are the paper's best on Amazon Instruments, of alpha from 0.001 to 0.1 and beta from 1e-5 to 1e-2."""

    alpha: float = 0.02  # weight of the collaborative loss; with 0 no collaborative vectors are needed
    beta: float = 1e-4  # weight of the diversity loss
    diversity_loss: Literal["exact", "sampled"] = "exact"
    n_clusters: int = 10  # of each codebook; fewer for codebooks of less than 20, so that no codeword is alone
    recluster_every: int = 1  # epochs
    n_levels: int = 4
    gradients: Literal["paper", "released"] = "released"
    reduction: Literal["sum", "mean"] = "mean"
    uniform: bool = True
    collisions: CollisionPolicy = "assignment"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "beta"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use 0 or more.")
        for name in ("n_clusters", "recluster_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use 1 or more.")


def collaborative_loss(latent: Tensor, collaborative: Tensor) -> Tensor:
    """Each item's quantised vector should be nearest, by inner product, to the item's own collaborative vector.

        L_CF = - mean_i log [ exp(z_i . h_i) / sum_j exp(z_i . h_j) ],   j over the batch

    Args:
        latent: (B, d) z, with the straight-through gradient, so that the encoder learns and the codebooks do not.
        collaborative: (B, d) h of the same items, fixed.

    Returns:
        A scalar in float32, about ln B at first. Neither vector is scaled, and there is no temperature.
    """
    own = torch.arange(len(latent), device=latent.device)
    return softmax_cross_entropy(latent, collaborative, own) / len(latent)


def cluster_bounds(codebook_size: int, n_clusters: int) -> tuple[int, int, int]:
    """How many clusters a codebook is cut into, and the least and most codewords of each.

    >>> cluster_bounds(256, 10), cluster_bounds(8, 10), cluster_bounds(2, 10)
    ((10, 10, 60), (4, 2, 5), (1, 2, 5))
    """
    n_clusters = max(1, min(n_clusters, codebook_size // 2))
    least, most = (bound * codebook_size / n_clusters for bound in SIZE_BOUNDS)
    return n_clusters, max(2, int(least)), -int(-most // 1)


class Letter(AutoencoderTokenizer):
    """Learnable tokenizer for generative recommendation."""

    method = "letter"
    config_class = LetterConfig
    config: LetterConfig

    @classmethod
    def needs_collaborative(cls, config: Any) -> bool:
        return bool(config.alpha > 0)

    def _begin(self, network: RQAutoencoder, collaborative: Tensor | None) -> None:
        self._collaborative = collaborative  # (N, d)
        self._centres: list[FloatArray | None] = [None] * self.config.n_levels
        self._clusters = list[Tensor]()  # of every level's codewords, (K,) each
        self._random = torch.Generator().manual_seed(self.config.seed)  # of the positives

    def _begin_epoch(self, network: RQAutoencoder, epoch: int) -> None:
        if self.config.beta and (epoch - 1) % self.config.recluster_every == 0:
            self._cluster(network)

    def _cluster(self, network: RQAutoencoder) -> None:
        """Cluster every level's codewords, from where the last clusters were."""
        config = self.config
        n_clusters, size_min, size_max = cluster_bounds(config.codebook_size, config.n_clusters)
        self._clusters = []
        for level, table in enumerate(network.tables()):
            clusters, self._centres[level] = balanced_clusters(
                table.detach().cpu().numpy(),
                n_clusters,
                size_min=size_min,
                size_max=size_max,
                centres=self._centres[level],
                n_iterations=FIRST_ITERATIONS if self._centres[level] is None else LATER_ITERATIONS,
                seed=config.seed + level,
            )
            self._clusters.append(torch.from_numpy(clusters).to(table.device))

    def _loss(self, network: RQAutoencoder, x: Tensor, rows: Tensor) -> Tensor:
        """L = L_semantic + alpha L_CF + beta L_diversity"""
        config, found = self.config, self._through(network, x)
        loss = semantic_loss(found, config)
        if self._collaborative is not None:
            loss = loss + config.alpha * collaborative_loss(found.quantized.latent, self._collaborative[rows])
        if config.beta:
            loss = loss + config.beta * self._diversity(network, found.quantized.codes)
        return loss

    def _diversity(self, network: RQAutoencoder, codes: Tensor) -> Tensor:
        """Over all levels, reduced as the semantic loss is."""
        losses = [
            diversity_loss(table, code, clusters)
            if self.config.diversity_loss == "exact"
            else sampled_diversity_loss(table, code, clusters, self._random)
            for table, code, clusters in zip(network.tables(), codes.T, self._clusters, strict=True)
        ]
        total = torch.stack(losses)
        return total.sum() if self.config.reduction == "sum" else total.mean()
