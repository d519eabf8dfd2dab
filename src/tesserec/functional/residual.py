"""Residual quantisation: a vector as a sum of codewords, each chosen for what the earlier ones left over."""

from collections.abc import Sequence

import torch
from torch import Tensor


def unit_rows(x: Tensor) -> Tensor:
    """Rows scaled to length 1; rows of zeros stay zero."""
    norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    unit: Tensor = x / norms.clamp_min(torch.finfo(x.dtype).tiny)
    return unit


def nearest(x: Tensor, codebook: Tensor) -> Tensor:
    """Each row's nearest codeword in L2; the lowest index where several are equally near.

    Args:
        x: (B, D) float. Use float64 where codes must not depend on the batch: in float32 the matrix product's
            rounding decides between codewords that are almost equally near.
        codebook: (K, D), of the same type.

    Returns:
        (B,) int64. One matrix product of B x D by D x K, since |x|^2 is the same for every codeword.
    """
    half_norms = codebook.square().sum(dim=1) / 2
    return torch.addmm(half_norms, x, codebook.T, alpha=-1).argmin(dim=1)  # argmin_k |e_k|^2 / 2 - x . e_k


def residual_quantize(x: Tensor, codebooks: Sequence[Tensor], *, normalize: bool = False) -> tuple[Tensor, Tensor]:
    """Codes of every level, greedily, and what is left over.

    Args:
        x: (B, D) float.
        codebooks: L tables (K_l, D) of the same type.
        normalize: scale the residual to length 1 before every level. The codewords then no longer add up to `x`.

    Returns:
        codes (B, L) int64 and the last residual (B, D); without `normalize` it is x minus the chosen codewords.

    Source: Chen, Guan, Wang 2010, "Approximate Nearest Neighbor Search by Residual Vector Quantization"; with
    `normalize`, Ju et al. 2025 (GRID, arXiv 2507.22224).
    """
    residual, codes = x, list[Tensor]()  # r_0 = x                      (B, D)
    for codebook in codebooks:
        if normalize:
            residual = unit_rows(residual)
        code = nearest(residual, codebook)  # c_l = argmin_k |r_l - e_k|   (B,)
        residual = residual - codebook[code]  # r_{l+1} = r_l - e_{c_l}
        codes.append(code)
    return torch.stack(codes, dim=1), residual
