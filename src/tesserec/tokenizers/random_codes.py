"""Random codes: uniform, and without any regard to the texts. What a recommender loses by them is what codes tell it.

A control for every method over semantic IDs: VQ-Rec's "random code" (Hou et al. 2023, arXiv 2210.12316, table 3), and
what a generative model does when an ID says nothing of its item. An item's codes follow from the seed and its id alone,
so that they are the same in every catalogue that has it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tesserec.errors import ConfigError
from tesserec.progress import Progress
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.base import ItemTokenizer, TokenizerConfig
from tesserec.types import FloatArray, IntArray

MEAN = "mean.npy"


@dataclass(frozen=True, kw_only=True)
class RandomCodesConfig(TokenizerConfig):
    """As for every tokenizer; equal texts do not make for equal codes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.collisions in ("sinkhorn", "assignment"):
            raise ConfigError(
                f"collisions is {self.collisions!r}, which gives items another last code. Random codes are "
                "independent, so none is the finest. Use extra-level or share."
            )


class RandomCodes(ItemTokenizer):
    """Codes drawn from the seed and the item's id."""

    method = "random"
    config_class = RandomCodesConfig
    config: RandomCodesConfig

    def _fit(self, embeddings: Embeddings, collaborative: FloatArray | None, progress: Progress) -> None:
        self.mean: FloatArray = np.asarray(embeddings.vectors, dtype=np.float64).mean(axis=0).astype(np.float32)

    def _codes(self, embeddings: Embeddings) -> IntArray:
        n_levels = self.config.n_levels

        def draw(item_id: str) -> bytes:
            return hashlib.shake_128(f"{self.config.seed}\0{item_id}".encode()).digest(8 * n_levels)

        drawn = np.frombuffer(b"".join(map(draw, embeddings.catalogue.item_ids)), dtype="<u8")
        return (drawn.reshape(-1, n_levels) % self.config.codebook_size).astype(np.int64)

    @property
    def codebooks(self) -> tuple[FloatArray, ...]:
        """None: the codes stand for nothing."""
        return ()

    def reconstruct(self, codes: IntArray) -> FloatArray:
        """The mean of the embeddings for every item, as the codes say nothing of it."""
        self._check_fitted()
        return np.tile(self.mean, (len(codes), 1))

    def _write(self, folder: Path) -> None:
        np.save(folder / MEAN, self.mean)

    def _read(self, folder: Path) -> None:
        self.mean = np.load(folder / MEAN)
