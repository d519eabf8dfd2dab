"""Latent semantic analysis: TF-IDF of words and word pairs, then truncated SVD. No download, seconds on a CPU.

After Deerwester et al. 1990, "Indexing by Latent Semantic Analysis". It knows no synonyms that the catalogue does not
show, but brand and product words are what most catalogues are about.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tesserec.errors import DataError
from tesserec.progress import Progress
from tesserec.types import FloatArray

MAX_TERMS = 50_000  # the most frequent ones: bounds what a fitted LSA keeps to width x 200 kB
SETTINGS: dict[str, Any] = {"sublinear_tf": True, "ngram_range": (1, 2), "dtype": np.float32}


@dataclass(frozen=True, eq=False)
class Lsa:
    """A fitted LSA: encodes texts that it never saw, too."""

    terms: tuple[str, ...]  # T words and pairs of words
    idf: FloatArray  # (T,)
    axes: FloatArray  # (D, T) right singular vectors

    @classmethod
    def fit(cls, texts: Sequence[str], *, width: int, seed: int, progress: Progress) -> Self:
        """Learn terms and axes; equal texts, width and seed give equal ones.

        Args:
            texts: n texts, none of them blank.
            width: D at most; less where the texts have fewer terms or are fewer themselves.

        Raises:
            DataError: the texts hold no words.
        """
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        with progress.task("LSA", 2) as task:
            rare = 2 if len(texts) > 100 else 1  # a term of a single text tells nothing about others
            vectorizer = TfidfVectorizer(min_df=rare, max_features=MAX_TERMS, **SETTINGS)
            try:
                weights = vectorizer.fit_transform(texts)  # (n, T) sparse
            except ValueError as error:
                raise DataError(f"The {len(texts)} item texts hold no words ({error}). Check text.template.") from None
            task.advance(note=f"{weights.shape[1]} terms")
            svd = TruncatedSVD(min(width, max(min(weights.shape) - 1, 1)), random_state=seed).fit(weights)
            task.advance()
        terms = tuple(vectorizer.get_feature_names_out().tolist())
        return cls(terms, vectorizer.idf_.astype(np.float32), svd.components_.astype(np.float32))

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(n, D) float32; a text without any known term gets zeros."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(vocabulary=self.terms, **SETTINGS)
        vectorizer.idf_ = self.idf
        vectors: FloatArray = np.asarray(vectorizer.transform(texts) @ self.axes.T, dtype=np.float32)
        return vectors

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """All of it as plain arrays, to be saved."""
        terms = np.frombuffer("\n".join(self.terms).encode(), dtype=np.uint8)
        return {"terms": terms, "idf": self.idf, "axes": self.axes}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Self:
        """What `arrays` made."""
        return cls(tuple(arrays["terms"].tobytes().decode().split("\n")), arrays["idf"], arrays["axes"])
