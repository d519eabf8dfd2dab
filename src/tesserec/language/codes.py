"""The codes of semantic IDs as words of a language model: one token for each code of each level."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tesserec.errors import ConfigError
from tesserec.types import IntArray


@dataclass(frozen=True, eq=False)
class CodeTokens:
    """The token of code k of level l is `tokens[l][k]`."""

    tokens: tuple[IntArray, ...]  # L of (K_l,) int64

    @property
    def all(self) -> IntArray:
        """(K_0 + ... + K_{L-1},) the tokens of all levels."""
        return np.concatenate(self.tokens)

    def of(self, codes: IntArray) -> IntArray:
        """(..., L) codes -> (..., L) tokens."""
        return np.stack([tokens[codes[..., level]] for level, tokens in enumerate(self.tokens)], axis=-1)

    @classmethod
    def add(cls, tokenizer: Any, codebook_sizes: Sequence[int]) -> "CodeTokens":
        """Give the tokenizer a word for each code, as far as it has none.

        They are ordinary words: special ones would vanish from texts that are decoded without special tokens.
        """
        words = [[word_of(level, code) for code in range(size)] for level, size in enumerate(codebook_sizes)]
        tokenizer.add_tokens([word for level in words for word in level])
        return cls.find(tokenizer, codebook_sizes)

    @classmethod
    def find(cls, tokenizer: Any, codebook_sizes: Sequence[int]) -> "CodeTokens":
        """The codes' tokens in a tokenizer that has them.

        Raises:
            ConfigError: it lacks the word of a code.
        """
        known = tokenizer.get_vocab()
        missing = [
            word
            for level, size in enumerate(codebook_sizes)
            for code in range(size)
            if (word := word_of(level, code)) not in known
        ]
        if missing:
            raise ConfigError(
                f"The tokenizer has no word for {len(missing):,} codes, {missing[0]} among them, so these semantic IDs "
                "do not fit the model. Train it again on them, or give the IDs that it was trained on."
            )
        return cls(
            tuple(
                np.array([known[word_of(level, code)] for code in range(size)], dtype=np.int64)
                for level, size in enumerate(codebook_sizes)
            )
        )


def word_of(level: int, code: int) -> str:
    """The word of a code: `<a_12>` is code 12 of the first level, `<l26_3>` code 3 of the 27th."""
    letter = ascii_lowercase[level] if level < len(ascii_lowercase) else f"l{level}"
    return f"<{letter}_{code}>"


@torch.no_grad()
def initialise_rows(table: nn.Parameter, n_old: int, tokens: IntArray, means: Tensor | None, seed: int) -> None:
    """Give the codes' rows of a token table values of the size that the old rows have.

        row = mean + noise,   noise of the old rows' standard deviation in every dimension

    The library's own default draws all new rows so close to the mean (0.0002 apart, where old rows are 0.02 apart) that
    codes start almost equal.

    Args:
        table: (V, D).
        n_old: rows that were there before.
        tokens: (C,) rows to set.
        means: (C, D) a mean for each row, with half the noise around it; None: the mean of the old rows for all.
    """
    old = table[:n_old].float()
    noise = torch.randn(len(tokens), table.shape[1], generator=torch.Generator().manual_seed(seed)) * old.std(dim=0)
    rows = old.mean(dim=0) + noise if means is None else means.float() + noise / 2
    table[torch.from_numpy(tokens)] = rows.to(table.dtype)


def text_means(table: Tensor, words: Sequence[IntArray], codes: IntArray, codebook_sizes: Sequence[int]) -> Tensor:
    """For every code, the mean over its items of the mean row of the words of their texts.

    Args:
        table: (V, D) rows of words.
        words: N arrays of tokens, of each item's text; may be empty.
        codes: (N, L).

    Returns:
        (K_0 + ... + K_{L-1}, D); codes without an item get the mean over all items.
    """
    table = table.float()
    of_item = torch.stack(
        [table[torch.from_numpy(one)].mean(dim=0) if len(one) else table.mean(dim=0) for one in words]
    )
    means = list[Tensor]()
    for level, size in enumerate(codebook_sizes):
        code = torch.from_numpy(codes[:, level])
        counts = torch.bincount(code, minlength=size)[:, None]
        sums = torch.zeros(size, table.shape[1]).index_add(0, code, of_item)
        means.append(torch.where(counts > 0, sums / counts.clamp_min(1), of_item.mean(dim=0)))
    return torch.cat(means)
