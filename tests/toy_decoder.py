"""A random autoregressive model small enough to enumerate, and slow searches over it that share no code with ours."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Code = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ToyDecoder:
    """p(code | user, prefix) as one table per level."""

    tables: list[Tensor]  # L of (B, number of prefixes, K_l) float32 log-probabilities
    codebook_sizes: tuple[int, ...]

    @classmethod
    def random(
        cls, n_users: int, codebook_sizes: Sequence[int], *, seed: int, peak: float = 2.0, ties: bool = False
    ) -> "ToyDecoder":
        """`ties`: all codes of a level are equally likely, so that every ID has the same score."""
        rng = torch.Generator().manual_seed(seed)
        prefixes = np.cumprod([1, *codebook_sizes])
        shapes = [(n_users, int(count), size) for count, size in zip(prefixes, codebook_sizes)]
        logits = [torch.zeros(s) if ties else torch.randn(s, generator=rng) * peak for s in shapes]
        return cls([level.log_softmax(dim=-1) for level in logits], tuple(codebook_sizes))

    def take(self, users: Sequence[int]) -> "ToyDecoder":
        return ToyDecoder([table[list(users)] for table in self.tables], self.codebook_sizes)

    def row(self, prefixes: Tensor) -> Tensor:
        """Number of each prefix (..., level) among all that could be."""
        number = torch.zeros(prefixes.shape[:-1], dtype=torch.int64)
        for level in range(prefixes.shape[-1]):
            number = number * self.codebook_sizes[level] + prefixes[..., level]
        return number

    def stepper(self) -> "ToyStepper":
        return ToyStepper(self)

    def node_log_probs(self, level: int, prefixes: Tensor) -> Tensor:
        """As `exact_scores` asks."""
        return self.tables[level][:, self.row(prefixes)]

    def scores(self, user: int, ids: Iterable[Code]) -> dict[Code, np.float32]:
        """Log-probability of every ID, summed from the first code on, in float32."""
        answer = {}
        for codes in set(ids):
            score = np.float32(0)
            for level, code in enumerate(codes):
                row = int(self.row(torch.tensor(codes[:level], dtype=torch.int64)))
                score += self.tables[level][user, row, code].numpy()
            answer[codes] = np.float32(score)
        return answer


class ToyStepper:
    """The decoder as `beam_search` asks for it: it follows parents to know every hypothesis' prefix."""

    def __init__(self, decoder: ToyDecoder) -> None:
        self.decoder = decoder
        self.prefixes = torch.zeros(len(decoder.tables[0]), 1, 0, dtype=torch.int64)

    def __call__(self, level: int, parents: Tensor | None, codes: Tensor | None) -> Tensor:
        if parents is not None and codes is not None:
            before = self.prefixes.take_along_dim(parents[..., None], dim=1)
            self.prefixes = torch.cat([before, codes[..., None]], dim=2)
        users = torch.arange(len(self.prefixes))[:, None]
        return self.decoder.tables[level][users, self.decoder.row(self.prefixes)]


def ranked(scores: dict[Code, np.float32]) -> list[tuple[Code, np.float32]]:
    """Best first; equal scores in the order of codes."""
    return sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))


def dictionary_trie(ids: Iterable[Code]) -> dict[Code, set[int]]:
    """prefix -> the codes that may follow it."""
    children: dict[Code, set[int]] = {}
    for codes in ids:
        for depth, code in enumerate(codes):
            children.setdefault(codes[:depth], set()).add(code)
    return children


def dictionary_beam(decoder: ToyDecoder, user: int, ids: Iterable[Code], width: int) -> list[tuple[Code, np.float32]]:
    """Beam search with a Python dictionary, one hypothesis at a time."""
    children = dictionary_trie(ids)
    beams: dict[Code, np.float32] = {(): np.float32(0)} if children else {}
    for level in range(len(decoder.codebook_sizes)):
        grown = {}
        for prefix, score in beams.items():
            row = int(decoder.row(torch.tensor(prefix, dtype=torch.int64)))
            for code in children[prefix]:
                grown[(*prefix, code)] = np.float32(score + decoder.tables[level][user, row, code].numpy())
        beams = dict(ranked(grown)[:width])
    return ranked(beams)
