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
- AdamW with rate 1e-3, not Adagrad with 0.4; 200 epochs, not 20,000: usage is complete by then; batches of 256, not
  1,024: more steps per epoch, and a lower error for the same work.
- `gradients` and `reduction` are choices. Public code differs in both, silently: see docs/tokenizers.md.
- `distance` (Lin et al. 2025, arXiv 2502.16474) and `uniform` (Zheng et al. 2024, LC-Rec, arXiv 2311.09049) are
  options of later work.

Network and training loop stand in `networks.rq_autoencoder` and `tokenizers.autoencoder`.
"""

from dataclasses import dataclass

from torch import Tensor

from tesserec.networks.rq_autoencoder import RQAutoencoder
from tesserec.tokenizers.autoencoder import AutoencoderConfig, AutoencoderTokenizer, semantic_loss


@dataclass(frozen=True, kw_only=True)
class RQVAEConfig(AutoencoderConfig):
    """Sizes are the paper's; training is not (see above)."""


class RQVAE(AutoencoderTokenizer):
    """Residual-quantised autoencoder."""

    method = "rqvae"
    config_class = RQVAEConfig
    config: RQVAEConfig

    def _loss(self, network: RQAutoencoder, x: Tensor, rows: Tensor) -> Tensor:
        return semantic_loss(self._through(network, x), self.config)
