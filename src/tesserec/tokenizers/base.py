"""What every tokenizer does: learn codes from item embeddings, and give items their semantic IDs."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from tesserec.artifacts import read_manifest, write_artifact
from tesserec.config import build, to_dict
from tesserec.errors import ArtifactError, ConfigError, DataError
from tesserec.progress import SILENT, Progress
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.collisions import with_extra_level
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.types import FloatArray, IntArray, PathLike


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """What every tokenizer can be told; each method adds its own settings."""

    n_levels: int = 3  # codes per item, before disambiguation
    codebook_size: int = 256  # codewords per level
    collisions: Literal["extra-level", "share"] = "extra-level"  # items with equal codes: told apart, or one ID for all
    extra_level_size: int = 256  # codewords of the extra level: the most items that may have equal codes
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("n_levels", 1), ("codebook_size", 2), ("extra_level_size", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use {least} or more.")


class ItemTokenizer(ABC):
    """Item embeddings -> semantic IDs. Fitted once; encodes items that it never saw, too."""

    method: ClassVar[str]
    config_class: ClassVar[type[TokenizerConfig]]

    def __init__(self, config: Any) -> None:
        self.config = config
        self.embeddings_fingerprint = ""
        self.width = 0  # of the embeddings that it was fitted on

    def fit(self, embeddings: Embeddings, *, progress: Progress = SILENT) -> Self:
        """Learn the codebooks.

        Raises:
            DataError: fewer items than codewords, or embeddings of a shape that the method cannot take.
            TrainingError: the loss is no longer finite.
        """
        self._check_shape(embeddings)
        n_items = len(embeddings.catalogue)
        if n_items < self.config.codebook_size:
            raise DataError(
                f"{n_items} items cannot fill a codebook of {self.config.codebook_size} codewords. Set codebook_size "
                f"to {n_items} or less (a quarter of the items or less is sensible)."
            )
        self.width = embeddings.vectors.shape[1]
        self._fit(embeddings, progress)
        self.embeddings_fingerprint = embeddings.fingerprint
        return self

    def encode(self, embeddings: Embeddings) -> SemanticIds:
        """The semantic IDs of any items, by the fitted codebooks and the configured collision policy.

        With the extra level, places in a group follow the catalogue's order: to add items, encode the old catalogue
        with the new items appended, and every old item keeps its ID.

        Raises:
            ConfigError: not fitted.
            DataError: vectors of another width than those of `fit`, or more colliding items than the policy can name.
        """
        self._check_fitted()
        self._check_shape(embeddings)
        if embeddings.vectors.shape[1] != self.width:
            raise DataError(
                f"The embeddings are {embeddings.vectors.shape[1]} wide, but the tokenizer was fitted on width "
                f"{self.width}. Encode the items with the text settings that the tokenizer was fitted with."
            )
        ids = SemanticIds(
            embeddings.catalogue,
            self._codes(embeddings),
            (self.config.codebook_size,) * self.config.n_levels,
            codebooks=self.codebooks,
            config={"method": self.method, **to_dict(self.config)},
        )
        return with_extra_level(ids, self.config.extra_level_size) if self.config.collisions == "extra-level" else ids

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
            (N, D) float32 in the space of the embeddings that were fitted.
        """

    @abstractmethod
    def _fit(self, embeddings: Embeddings, progress: Progress) -> None:
        """Learn from (N, D) vectors, N >= codebook_size."""

    @abstractmethod
    def _codes(self, embeddings: Embeddings) -> IntArray:
        """(N, L) int64 codes of (N, D) vectors of the fitted width."""

    @abstractmethod
    def _write(self, folder: Path) -> None: ...

    @abstractmethod
    def _read(self, folder: Path) -> None: ...

    def _check_fitted(self) -> None:
        if not self.width:
            raise ConfigError(f"This {self.method} tokenizer has not been fitted. Call fit, or load a saved one.")

    def _check_shape(self, embeddings: Embeddings) -> None:
        if embeddings.vectors.ndim != 2:
            raise DataError(
                f"{self.method} takes one vector per item, not {embeddings.vectors.shape[1]} attributes of each. "
                "Encode one text per item (text.template) instead of one per attribute."
            )

    def save(self, folder: PathLike) -> None:
        """Write as an artefact of kind `tokenizer`."""
        self._check_fitted()
        config = {"method": self.method, "tokenizer": to_dict(self.config)}
        sources = {"embeddings": self.embeddings_fingerprint}
        with write_artifact(
            folder,
            kind="tokenizer",
            config=config,
            sources=sources,
            sizes={"width": self.width},
            seed=self.config.seed,
        ) as staging:
            self._write(staging)

    @classmethod
    def load(cls, folder: PathLike) -> Self:
        """Open a fitted tokenizer.

        Raises:
            ArtifactError: the folder holds no tokenizer, one of another method, or damaged files.
        """
        path = Path(folder)
        manifest = read_manifest(path, kind="tokenizer")
        if manifest.config["method"] != cls.method:
            raise ArtifactError(
                f"{path} holds a {manifest.config['method']} tokenizer, not {cls.method}. Load it with load_tokenizer."
            )
        tokenizer = cls(build(cls.config_class, manifest.config["tokenizer"], where=f"{path}, tokenizer"))
        try:
            tokenizer.embeddings_fingerprint = manifest.sources["embeddings"]
            tokenizer.width = manifest.sizes["width"]
            tokenizer._read(path)
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise ArtifactError(f"{path} is damaged: {error}. Fit the tokenizer again.") from None
        return tokenizer
