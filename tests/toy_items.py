"""Item vectors in clear clusters, for tests of tokenizers: made by a seed, of any size."""

import numpy as np

from tesserec.data.catalogue import Catalogue
from tesserec.text.embeddings import Embeddings
from tesserec.types import FloatArray


def embeddings_of(vectors: FloatArray) -> Embeddings:
    """Embeddings of items i0, i1, ..."""
    return Embeddings(Catalogue([f"i{row}" for row in range(len(vectors))]), np.asarray(vectors, dtype=np.float32))


def clustered(n_items: int = 120, width: int = 10, *, n_clusters: int = 8, seed: int = 0) -> Embeddings:
    """Items scattered about some centres."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(n_clusters, width)) * 3
    noise = random.normal(size=(n_items, width))
    return embeddings_of(centres[random.integers(n_clusters, size=n_items)] + noise)
