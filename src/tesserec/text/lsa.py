"""Latent semantic analysis: TF-IDF of words and word pairs, then truncated SVD. No download, seconds on a CPU.

After Deerwester et al. 1990, "Indexing by Latent Semantic Analysis". It knows no synonyms that the catalogue does not
show, but brand and product words are what most catalogues are about.
"""

from collections.abc import Sequence

import numpy as np

from tesserec.errors import DataError
from tesserec.progress import Progress
from tesserec.types import FloatArray


def encode_lsa(texts: Sequence[str], *, width: int, seed: int, progress: Progress) -> FloatArray:
    """One vector per text; equal texts, width and seed give equal vectors.

    Args:
        texts: n texts, none of them blank.
        width: dimensions at most; fewer where the texts have fewer words or are fewer themselves.

    Returns:
        (n, D) float32; texts whose words are all unknown elsewhere may be near zero.

    Raises:
        DataError: the texts hold no words.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    with progress.task("LSA", 2) as task:
        try:
            counts = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2 if len(texts) > 100 else 1,
                                     dtype=np.float32).fit_transform(texts)  # fmt: skip
        except ValueError as error:
            raise DataError(f"The {len(texts)} item texts hold no words ({error}). Check text.template.") from None
        task.advance(note=f"{counts.shape[1]} terms")
        svd = TruncatedSVD(min(width, min(counts.shape) - 1) or 1, random_state=seed)
        vectors: FloatArray = svd.fit_transform(counts).astype(np.float32)
        task.advance()
    return vectors
