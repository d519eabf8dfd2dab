"""Codes without faiss are the codes of faiss; exact distances are those of brute force."""

import faiss
import numpy as np
import torch

from tesserec.functional.residual import nearest
from tesserec.tokenizers import make_tokenizer
from toy_items import clustered


def test_pq_codes_equal_those_of_faiss() -> None:
    items, new = clustered(600, width=12), clustered(300, width=12, seed=1)
    fitted = make_tokenizer("pq", {"n_levels": 3, "codebook_size": 16, "collisions": "share", "seed": 4}).fit(items)
    quantizer = faiss.ProductQuantizer(12, 3, 4)
    quantizer.cp.niter, quantizer.cp.seed, quantizer.cp.min_points_per_centroid = 50, 4, 1
    quantizer.train(items.vectors)
    for embeddings in (items, new):
        packed = quantizer.compute_codes(embeddings.vectors)
        expected = faiss.unpack_bitstrings(packed, 3, 4)
        np.testing.assert_array_equal(fitted.encode(embeddings).codes, expected)
    np.testing.assert_allclose(fitted.reconstruct(fitted.encode(new).codes), quantizer.decode(packed), atol=1e-6)


def test_opq_codes_and_reconstructions_equal_those_of_a_faiss_index() -> None:
    items, new = clustered(600, width=12), clustered(300, width=12, seed=1)
    fitted = make_tokenizer("opq", {"n_levels": 3, "codebook_size": 16, "collisions": "share"}).fit(items)
    quantizer = faiss.ProductQuantizer(12, 3, 4)
    faiss.copy_array_to_vector(fitted.centroids.ravel(), quantizer.centroids)  # type: ignore[attr-defined]
    rotated = new.vectors @ fitted.rotation.T  # type: ignore[attr-defined]
    packed = quantizer.compute_codes(rotated)
    codes = fitted.encode(new).codes
    np.testing.assert_array_equal(codes, faiss.unpack_bitstrings(packed, 3, 4))
    np.testing.assert_allclose(fitted.reconstruct(codes) @ fitted.rotation.T, quantizer.decode(packed), atol=1e-4)  # type: ignore[attr-defined]


def test_one_level_of_residual_kmeans_is_kmeans() -> None:
    items = clustered(600)
    settings = {"n_levels": 1, "codebook_size": 16, "normalize": "none", "center": False, "collisions": "share"}
    fitted = make_tokenizer("rkmeans", settings).fit(items)
    index = faiss.IndexFlatL2(10)
    index.add(fitted.codebooks[0])
    np.testing.assert_array_equal(fitted.encode(items).codes[:, 0], index.search(items.vectors, 1)[1][:, 0])
    further = faiss.Kmeans(10, 16, niter=1, min_points_per_centroid=1)
    further.train(items.vectors, init_centroids=fitted.codebooks[0])
    np.testing.assert_allclose(further.centroids, fitted.codebooks[0], atol=1e-4)  # another pass moves nothing


def test_distances_by_matrix_product_find_what_brute_force_finds() -> None:
    random = np.random.default_rng(0)
    x, codebook = random.normal(size=(500, 20)), random.normal(size=(64, 20))
    expected = ((x[:, None] - codebook) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest(torch.from_numpy(x), torch.from_numpy(codebook)).numpy(), expected)
