"""What every tokenizer does: learn codes from item embeddings, and give items their semantic IDs."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

from tesserec.artifacts import read_manifest, write_artifact
from tesserec.config import build, to_dict
from tesserec.errors import ArtifactError
from tesserec.progress import SILENT, Progress
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.types import PathLike


class ItemTokenizer(ABC):
    """Item embeddings -> semantic IDs. Fitted once; encodes items that it never saw, too."""

    method: ClassVar[str]
    config_class: ClassVar[type[Any]]

    def __init__(self, config: Any) -> None:
        self.config = config
        self.embeddings_fingerprint = ""

    @abstractmethod
    def fit(self, embeddings: Embeddings, *, progress: Progress = SILENT) -> Self:
        """Learn the codebooks.

        Raises:
            DataError: fewer items than codewords, or embeddings of a shape that the method cannot take.
        """

    @abstractmethod
    def encode(self, embeddings: Embeddings) -> SemanticIds:
        """The semantic IDs of any items, by the fitted codebooks and the configured collision policy.

        Raises:
            ConfigError: not fitted.
            DataError: vectors of another width than those of `fit`, or more colliding items than the policy can name.
        """

    @abstractmethod
    def _write(self, folder: Path) -> None: ...

    @abstractmethod
    def _read(self, folder: Path) -> None: ...

    def save(self, folder: PathLike) -> None:
        """Write as an artefact of kind `tokenizer`."""
        config = {"method": self.method, "tokenizer": to_dict(self.config)}
        sources = {"embeddings": self.embeddings_fingerprint}
        with write_artifact(
            folder, kind="tokenizer", config=config, sources=sources, seed=getattr(self.config, "seed", None)
        ) as staging:
            self._write(staging)

    @classmethod
    def load(cls, folder: PathLike) -> Self:
        """Open a fitted tokenizer."""
        path = Path(folder)
        manifest = read_manifest(path, kind="tokenizer")
        if manifest.config["method"] != cls.method:
            raise ArtifactError(
                f"{path} holds a {manifest.config['method']} tokenizer, not a {cls.method}. Load it with load_tokenizer."
            )
        tokenizer = cls(build(cls.config_class, manifest.config["tokenizer"], where=f"{path}, tokenizer"))
        tokenizer.embeddings_fingerprint = manifest.sources["embeddings"]
        try:
            tokenizer._read(path)
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"{path} is damaged: {error}. Fit the tokenizer again.") from None
        return tokenizer
