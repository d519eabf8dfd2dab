"""Codewords that are spread out evenly: LETTER's diversity loss, exact and sampled."""

import torch
import torch.nn.functional as F
from torch import Tensor


def diversity_loss(codebook: Tensor, codes: Tensor, clusters: Tensor) -> Tensor:
    """Codewords should be near those of their cluster and far from the others: the expectation over the positives.

        loss = sum_c n_c / B * [ logsumexp_{j != c} e_c . e_j - mean_{j in C(c), j != c} e_c . e_j ]

    It needs how often each codeword occurs in the batch, and one product of the codebook with itself. A codeword alone
    in its cluster has no positive and adds nothing.

    Args:
        codebook: (K, d) e.
        codes: (B,) int64 of the batch; n_c counts them.
        clusters: (K,) int64 cluster C of every codeword.

    Returns:
        A scalar in float32. Its gradient reaches the codebook alone.

    Source: Wang et al. 2024 (LETTER, arXiv 2405.07314), equation 6, with the mean over its random positives.
    """
    share = torch.bincount(codes, minlength=len(codebook)) / len(codes)  # (K,) n_c / B
    n_positives = torch.bincount(clusters)[clusters] - 1  # (K,)
    n_clusters = int(clusters.max()) + 1
    sums = codebook.new_zeros(n_clusters, codebook.shape[1]).index_add(0, clusters, codebook)
    attraction = (codebook * (sums[clusters] - codebook)).sum(dim=1) / n_positives.clamp_min(1)  # to the others' mean
    loss = torch.logsumexp(_logits(codebook), dim=1) - attraction  # (K,)
    return (share * (n_positives > 0) * loss).sum()


def sampled_diversity_loss(codebook: Tensor, codes: Tensor, clusters: Tensor, random: torch.Generator) -> Tensor:
    """As `diversity_loss`, with one random positive per item as the paper and its code draw it.

    Args:
        random: draws the positives; on the CPU.
    """
    order = clusters.argsort(stable=True)  # codewords, cluster by cluster
    sizes = torch.bincount(clusters)
    place = torch.empty_like(order)  # of each codeword in that order
    place[order] = torch.arange(len(order), device=order.device)
    first = (sizes.cumsum(0) - sizes)[clusters]  # of its cluster
    n_items = len(codes)
    codes = codes[sizes[clusters[codes]] > 1]
    n_others = sizes[clusters[codes]] - 1
    draw = (torch.rand(len(codes), generator=random).to(codes.device) * n_others).long()
    draw += draw >= (place - first)[codes]  # not the codeword itself
    positives = order[first[codes] + draw]
    return F.cross_entropy(_logits(codebook)[codes], positives, reduction="sum") / n_items


def _logits(codebook: Tensor) -> Tensor:
    """(K, K) float32 inner products, a codeword's own being -inf."""
    return (codebook @ codebook.T).float().fill_diagonal_(-torch.inf)
