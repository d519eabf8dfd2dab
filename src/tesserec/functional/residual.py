"""Residual quantisation: a vector as a sum of codewords, each chosen for what the earlier ones left over."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Distance = Literal["euclidean", "cosine"]  # by which a level chooses its codeword

ROWS_AT_A_TIME = 16_384


def level_distances(kind: Literal["euclidean", "cosine", "mixed"], n_levels: int) -> tuple[Distance, ...]:
    """The distance of each level; "mixed" is cosine on all but the last (Lin et al. 2025, arXiv 2502.16474).

    >>> level_distances("mixed", 3)
    ('cosine', 'cosine', 'euclidean')
    """
    last: Distance = "cosine" if kind == "cosine" else "euclidean"
    others: Distance = "euclidean" if kind == "euclidean" else "cosine"
    return (others,) * (n_levels - 1) + (last,)


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
        (B,) int64. One matrix product of B x D by D x K, since |x|^2 is the same for every codeword; in blocks of
        rows, so that the distances never take more than ROWS_AT_A_TIME x K.
    """
    half_norms = codebook.square().sum(dim=1) / 2
    return torch.cat(
        [
            torch.addmm(half_norms, rows, codebook.T, alpha=-1).argmin(dim=1)  # argmin_k |e_k|^2 / 2 - x . e_k
            for rows in torch.split(x, ROWS_AT_A_TIME)
        ]
    )


def residual_quantize(
    x: Tensor, codebooks: Sequence[Tensor], *, normalize: bool = False, distances: Sequence[Distance] | None = None
) -> tuple[Tensor, Tensor]:
    """Codes of every level, greedily, and what is left over.

    Args:
        x: (B, D) float.
        codebooks: L tables (K_l, D) of the same type.
        normalize: scale the residual to length 1 before every level. The codewords then no longer add up to `x`.
        distances: of each level; None: Euclidean everywhere. A cosine level compares directions and subtracts the
            codeword scaled to length 1, whatever the length of the residual.

    Returns:
        codes (B, L) int64 and the last residual (B, D); without `normalize` it is x minus the chosen codewords.

    Source: Chen, Guan, Wang 2010, "Approximate Nearest Neighbor Search by Residual Vector Quantization"; with
    `normalize`, Ju et al. 2025 (GRID, arXiv 2507.22224); cosine levels, Lin et al. 2025 (arXiv 2502.16474).
    """
    residual, codes = x, list[Tensor]()  # r_0 = x                      (B, D)
    for level, codebook in enumerate(codebooks):
        if normalize:
            residual = unit_rows(residual)
        compared, table = compared_by(distances[level] if distances else "euclidean", residual, codebook)
        code = nearest(compared, table)  # c_l = argmin_k |r_l - e_k|   (B,)
        residual = residual - table[code]  # r_{l+1} = r_l - e_{c_l}
        codes.append(code)
    return torch.stack(codes, dim=1), residual


def last_level(
    x: Tensor,
    codebooks: Sequence[Tensor],
    codes: Tensor,
    *,
    normalize: bool = False,
    distances: Sequence[Distance] | None = None,
) -> tuple[Tensor, Tensor]:
    """What the last level compares in L2, after the given codes of the levels before it.

    Args:
        x, codebooks, normalize, distances: as of `residual_quantize`.
        codes: (B, L) int64; the last column is not looked at.

    Returns:
        (B, D) residuals and (K, D) codewords.
    """
    residual, compared, table = x, x, codebooks[0]
    for level, codebook in enumerate(codebooks):
        if level > 0:
            residual = residual - table[codes[:, level - 1]]
        if normalize:
            residual = unit_rows(residual)
        compared, table = compared_by(distances[level] if distances else "euclidean", residual, codebook)
    return compared, table


def compared_by(distance: Distance, residual: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """What a level compares in L2: residuals (B, D) and codewords (K, D), both of length 1 for cosine."""
    return (unit_rows(residual), unit_rows(codebook)) if distance == "cosine" else (residual, codebook)


@dataclass(frozen=True)
class Quantized:
    """What training a residual quantiser needs of a batch."""

    codes: Tensor  # (B, L) int64
    latent: Tensor  # (B, D) value: the sum of the codewords; gradient: passed on to the input unchanged
    codebook_errors: Tensor  # (L, B, D) sg(r_l) - e_l, whose squares move the codewords
    commitment_errors: Tensor  # (L, B, D) r_l - sg(e_l), whose squares move the encoder; of length 1 both for cosine
    residuals: Tensor  # (L, B, D) r_l as compared, without gradient: what moving averages of codewords are made of


NextResidual = Callable[[Tensor, Tensor], Tensor]  # (r_l, e_l), both (B, D) -> r_{l+1}
Assign = Callable[[Tensor, Tensor], Tensor]  # (B, D) residuals and (K, D) codewords of a level -> (B,) codes


def paper_residual(residual: Tensor, codeword: Tensor) -> Tensor:
    """r - sg(e): the residual keeps the encoder's gradient, so that every level's commitment reaches the encoder.

    The formula of TIGER (arXiv 2305.05065) and SoundStream (arXiv 2107.03312) read literally.
    """
    return residual - codeword.detach()


def released_residual(residual: Tensor, codeword: Tensor) -> Tensor:
    """r minus its own straight-through output: no gradient is left, so only the first level's commitment has any.

    What the public code of LC-Rec, LETTER and most TIGER reproductions computes.
    """
    return (residual - codeword).detach()


GRADIENTS: dict[str, NextResidual] = {"paper": paper_residual, "released": released_residual}


def quantize_for_training(
    z: Tensor,
    codebooks: Sequence[Tensor],
    next_residual: NextResidual,
    *,
    distances: Sequence[Distance] | None = None,
    assign_last: Assign = nearest,
) -> Quantized:
    """As `residual_quantize`, keeping what gradients flow through.

    Args:
        z: (B, D) output of an encoder.
        codebooks: L tables (K_l, D).
        next_residual: `paper_residual` or `released_residual`. Values are the same, gradients are not.
        distances: of each level; None: Euclidean everywhere.
        assign_last: how the last level chooses its codewords; all others take the nearest.
    """
    residual = z
    codes, residuals, codewords = list[Tensor](), list[Tensor](), list[Tensor]()
    for level, codebook in enumerate(codebooks):
        compared, table = compared_by(distances[level] if distances else "euclidean", residual, codebook)
        assign = assign_last if level == len(codebooks) - 1 else nearest
        code = assign(compared.detach(), table.detach())
        codeword = table[code]
        codes.append(code)
        residuals.append(compared)
        codewords.append(codeword)
        residual = next_residual(residual, codeword)
    r, e = torch.stack(residuals), torch.stack(codewords)  # (L, B, D) both
    latent = z + (e.sum(dim=0) - z).detach()
    return Quantized(torch.stack(codes, dim=1), latent, r.detach() - e, r - e.detach(), r.detach())
