"""What every tokenizer does: learn codes from item embeddings, and give items their semantic IDs."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from tesserec.artifacts import open_artifact, write_artifact
from tesserec.config import build, to_dict
from tesserec.errors import ArtifactError, ConfigError, DataError
from tesserec.progress import SILENT, Progress
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.collisions import (
    CollisionPolicy,
    Remaining,
    remaining,
    separate_by_assignment,
    separate_by_sinkhorn,
    with_extra_level,
)
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.types import FloatArray, IntArray, PathLike


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """What every tokenizer can be told; each method adds its own settings."""

    n_levels: int = 3  # codes per item, before disambiguation
    codebook_size: int = 256  # codewords per level
    collisions: CollisionPolicy = "extra-level"  # what becomes of items with equal codes, see tokenizers.collisions
    extra_level_size: int = 256  # codewords of the extra level: the most items that may have equal codes
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("n_levels", 1), ("codebook_size", 2), ("extra_level_size", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use {least} or more.")


class ItemTokenizer(ABC):
    """Item embeddings -> semantic IDs. Fitted once; encodes items that it never saw, too."""

    method: ClassVar[str]
    config_class: ClassVar[type[TokenizerConfig]]
    takes_attributes: ClassVar[bool] = False  # whether embeddings may be (N, A, D), one vector per attribute

    def __init__(self, config: Any) -> None:
        self.config = config
        self.embeddings_fingerprint = ""
        self.collaborative_fingerprint = ""
        self.width = 0  # of the embeddings that it was fitted on
        self.n_attributes = 0  # of these embeddings; 0: one vector per item

    @classmethod
    def needs_collaborative(cls, config: Any) -> bool:
        """Whether `fit` also learns from item vectors of who took what, under this configuration."""
        return False

    def fit(
        self, embeddings: Embeddings, *, collaborative: Embeddings | None = None, progress: Progress = SILENT
    ) -> Self:
        """Learn the codebooks.

        Args:
            embeddings: of the catalogue's texts.
            collaborative: vectors (N, d) of the same items made from who took what, such as SASRec's item table; for
                methods that need them. Items in any order, further items are ignored.

        Raises:
            ConfigError: collaborative vectors are missing, or the method takes none.
            DataError: fewer items than codewords, all embeddings equal, embeddings of a shape that the method cannot
                take, or collaborative vectors of another width or without some items.
            TrainingError: the loss is no longer finite.
        """
        self._check_shape(embeddings)
        aligned = self._aligned(embeddings, collaborative)
        n_items = len(embeddings.catalogue)
        if n_items < self.config.codebook_size:
            raise DataError(
                f"{n_items} items cannot fill a codebook of {self.config.codebook_size} codewords. Set codebook_size "
                f"to {n_items} or less (a quarter of the items or less is sensible)."
            )
        if all((vector == embeddings.vectors[0]).all() for vector in embeddings.vectors):  # stops at the first other
            raise DataError(
                f"All {n_items} embeddings are equal, so that no code could tell items apart. Check the item texts, "
                "and the columns that they are made of (text.template)."
            )
        self.width, self.n_attributes = embeddings.vectors.shape[-1], len(embeddings.attributes)
        self._fit(embeddings, aligned, progress)
        self.embeddings_fingerprint = embeddings.fingerprint
        self.collaborative_fingerprint = collaborative.fingerprint if collaborative is not None else ""
        return self

    def encode(self, embeddings: Embeddings, *, progress: Progress = SILENT) -> SemanticIds:
        """The semantic IDs of any items, by the fitted codebooks and the configured collision policy.

        With the extra level, places in a group follow the catalogue's order: to add items, encode the old catalogue
        with the new items appended, and every old item keeps its ID. With "sinkhorn" and "assignment" the last code of
        an item may depend on all items that it is encoded with; how many still share an ID is said to `progress` and
        stands in the result's config.

        Raises:
            ConfigError: not fitted.
            DataError: vectors of another width than those of `fit`, or more colliding items than the policy can name.
        """
        self._check_fitted()
        self._check_shape(embeddings)
        if len(embeddings.attributes) != self.n_attributes:
            raise DataError(
                f"The embeddings have {len(embeddings.attributes)} attributes per item, but the tokenizer was fitted "
                f"on {self.n_attributes} (0: one text per item). Encode the items with the text settings that the "
                "tokenizer was fitted with."
            )
        if embeddings.vectors.shape[-1] != self.width:
            raise DataError(
                f"The embeddings are {embeddings.vectors.shape[-1]} wide, but the tokenizer was fitted on width "
                f"{self.width}. Encode the items with the text settings that the tokenizer was fitted with."
            )
        codes, policy = self._codes(embeddings), self.config.collisions
        config = {"method": self.method, **to_dict(self.config)}
        if policy in ("sinkhorn", "assignment"):
            codes, left = self._separate(embeddings.vectors, codes)
            config["remaining_collisions"] = {"items": left.items, "identical": left.identical}
            if left.items:
                progress.say(f"{left}.")
        ids = SemanticIds(
            embeddings.catalogue,
            codes,
            (self.config.codebook_size,) * self.config.n_levels,
            collision_policy="share" if policy == "extra-level" else policy,
            codebooks=self.codebooks,
            config=config,
        )
        return with_extra_level(ids, self.config.extra_level_size) if policy == "extra-level" else ids

    def _separate(self, vectors: FloatArray, codes: IntArray) -> tuple[IntArray, Remaining]:
        """Other last codes for items that collide, and what still collides."""

        def last_level(rows: IntArray) -> tuple[FloatArray, FloatArray]:
            return self._last_level(vectors[rows], codes[rows])

        if self.config.collisions == "assignment":
            separated = separate_by_assignment(codes, vectors, last_level)
        else:
            separated = separate_by_sinkhorn(codes, vectors, last_level)
        return separated, remaining(separated, vectors)

    @property
    @abstractmethod
    def codebooks(self) -> tuple[FloatArray, ...]:
        """L tables (K, D_l) of the method's code vectors, in the space in which it compares them."""

    @abstractmethod
    def reconstruct(self, codes: IntArray) -> FloatArray:
        """The embeddings that the codes stand for.

        Args:
            codes: (N, L) or (N, L + 1) codes; an extra level is passed over.

        Returns:
            (N, D) float32 in the space of the embeddings that were fitted, or (N, A, D) of attributes.
        """

    @abstractmethod
    def _fit(self, embeddings: Embeddings, collaborative: FloatArray | None, progress: Progress) -> None:
        """Learn from (N, D) vectors, N >= codebook_size, and (N, d) collaborative ones where the method needs them."""

    @abstractmethod
    def _codes(self, embeddings: Embeddings) -> IntArray:
        """(N, L) int64 codes of (N, D) vectors of the fitted width."""

    def _last_level(self, vectors: FloatArray, codes: IntArray) -> tuple[FloatArray, FloatArray]:
        """Methods with residual codes: what the last level compares in L2 after the earlier codes (B, L) of (B, D).

        Returns:
            (B, d) residuals and (K, d) codewords.
        """
        raise NotImplementedError

    @abstractmethod
    def _write(self, folder: Path) -> None: ...

    @abstractmethod
    def _read(self, folder: Path) -> None: ...

    def _check_fitted(self) -> None:
        if not self.width:
            raise ConfigError(f"This {self.method} tokenizer has not been fitted. Call fit, or load a saved one.")

    def _check_shape(self, embeddings: Embeddings) -> None:
        if embeddings.attributes and not self.takes_attributes:
            raise DataError(
                f"{self.method} takes one vector per item, not {embeddings.vectors.shape[1]} attributes of each. "
                "Encode one text per item (text.template) instead of one per attribute."
            )

    def _aligned(self, embeddings: Embeddings, collaborative: Embeddings | None) -> FloatArray | None:
        """The collaborative vectors in the catalogue's order, checked."""
        if not self.needs_collaborative(self.config):
            if collaborative is not None:
                raise ConfigError(
                    f"{self.method} learns from no collaborative vectors as it is configured. Leave them out."
                )
            return None
        if collaborative is None:
            raise ConfigError(
                f"{self.method} aligns its codes with collaborative item vectors. Pass collaborative=..., such as the "
                "item table of a SASRec, or in a recipe add [collaborative]."
            )
        width = self.config.latent_width
        if collaborative.vectors.ndim != 2 or collaborative.vectors.shape[1] != width:
            raise DataError(
                f"The collaborative vectors are of shape {collaborative.vectors.shape}, but latent_width is {width}, "
                f"and the loss is an inner product. Give vectors (items, {width}), or set latent_width to their width."
            )
        if collaborative.catalogue.fingerprint == embeddings.catalogue.fingerprint:
            return collaborative.vectors
        row_of = {item_id: row for row, item_id in enumerate(collaborative.catalogue.item_ids)}
        missing = [item_id for item_id in embeddings.catalogue.item_ids if item_id not in row_of]
        if missing:
            raise DataError(
                f"The collaborative vectors have no row for {len(missing)} of {len(embeddings.catalogue)} items, such "
                f"as {missing[:3]}. Make them from the same data set."
            )
        rows = np.array([row_of[item_id] for item_id in embeddings.catalogue.item_ids])
        aligned: FloatArray = collaborative.vectors[rows]
        return aligned

    def save(self, folder: PathLike) -> None:
        """Write as an artefact of kind `tokenizer`."""
        self._check_fitted()
        config = {"method": self.method, "tokenizer": to_dict(self.config)}
        sources = {"embeddings": self.embeddings_fingerprint}
        if self.collaborative_fingerprint:
            sources["collaborative"] = self.collaborative_fingerprint
        with write_artifact(
            folder,
            kind="tokenizer",
            config=config,
            sources=sources,
            sizes={"width": self.width, "attributes": self.n_attributes},
            seed=self.config.seed,
        ) as staging:
            self._write(staging)

    @classmethod
    def load(cls, folder: PathLike) -> Self:
        """Open a fitted tokenizer.

        Raises:
            ArtifactError: the folder holds no tokenizer, one of another method, or damaged files.
        """
        with open_artifact(folder, kind="tokenizer") as (path, manifest):
            if manifest.config["method"] != cls.method:
                raise ArtifactError(
                    f"{path} holds a {manifest.config['method']} tokenizer, not {cls.method}. "
                    "Load it with load_tokenizer."
                )
            tokenizer = cls(build(cls.config_class, manifest.config["tokenizer"], where=f"{path}, tokenizer"))
            tokenizer.embeddings_fingerprint = manifest.sources["embeddings"]
            tokenizer.collaborative_fingerprint = manifest.sources.get("collaborative", "")
            tokenizer.width = manifest.sizes["width"]
            tokenizer.n_attributes = manifest.sizes.get("attributes", 0)
            tokenizer._read(path)
        return tokenizer
