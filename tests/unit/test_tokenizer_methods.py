"""Residual k-means, product quantisation and RQ-VAE, each on what its own sheet of facts promises."""

import numpy as np
import pytest
import torch

from tesserec.data.catalogue import Catalogue
from tesserec.errors import ConfigError, TrainingError
from tesserec.functional.kmeans import balanced_codes, kmeans
from tesserec.functional.residual import (
    GRADIENTS,
    Distance,
    nearest,
    paper_residual,
    quantize_for_training,
    released_residual,
    residual_quantize,
    unit_rows,
)
from tesserec.networks.rq_autoencoder import RQAutoencoder
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers import make_tokenizer
from tesserec.tokenizers.autoencoder import AutoencoderConfig, semantic_loss, squared
from toy_items import clustered, embeddings_of

# -- residual quantisation ---------------------------------------------------------------------------------------------


def test_residual_codes_by_hand() -> None:
    x = torch.tensor([[3.2, 0.9]])
    codebooks = [torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])]
    codes, residual = residual_quantize(x, codebooks)
    assert codes.tolist() == [[1, 1]]
    torch.testing.assert_close(residual, torch.tensor([[0.2, -0.1]]))


def test_equally_near_codewords_go_to_the_lower_index() -> None:
    assert nearest(torch.zeros(1, 2), torch.tensor([[0.0, 1.0], [1.0, 0.0]])).tolist() == [0]


def test_rows_of_zeros_stay_zero_when_scaled() -> None:
    assert unit_rows(torch.tensor([[0.0, 0.0], [3.0, 4.0]])).tolist() == [
        [0.0, 0.0],
        [0.6000000238418579, 0.800000011920929],
    ]


def test_normalised_residuals_pick_the_nearest_by_direction() -> None:
    """A short vector goes the way of a long one of the same direction, unlike without scaling."""
    codebook = torch.tensor([[1.0, 0.0], [0.0, 0.1]])
    x = torch.tensor([[0.1, 0.05]])
    assert residual_quantize(x, [codebook])[0].item() == 1
    assert residual_quantize(x, [codebook], normalize=True)[0].item() == 0


def test_a_cosine_level_compares_directions_and_subtracts_a_codeword_of_length_one() -> None:
    codebook = torch.tensor([[2.0, 0.0], [0.0, 0.1]])
    x = torch.tensor([[0.2, 0.3]])
    assert residual_quantize(x, [codebook])[0].item() == 1
    codes, residual = residual_quantize(x, [codebook], distances=["cosine"])
    assert codes.item() == 1
    torch.testing.assert_close(residual, torch.tensor([[0.2, -0.7]]))
    assert residual_quantize(torch.tensor([[3.0, 2.0]]), [codebook], distances=["cosine"])[0].item() == 0


def test_training_and_encoding_choose_the_same_codes_whatever_the_distances() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(50, 8, generator=random)
    codebooks = [torch.randn(16, 8, generator=random) for _ in range(3)]
    distances: list[Distance] = ["cosine", "cosine", "euclidean"]
    codes, residual = residual_quantize(x, codebooks, distances=distances)
    trained = quantize_for_training(x, codebooks, paper_residual, distances=distances)
    assert torch.equal(codes, trained.codes)
    torch.testing.assert_close(x - trained.latent, residual)


# -- k-means -----------------------------------------------------------------------------------------------------------


def test_kmeans_finds_separate_clusters_exactly() -> None:
    centres = np.array([[0, 0], [10, 0], [0, 10]], dtype=np.float32)
    points = np.repeat(centres, 20, axis=0)
    found = kmeans(points, 3, n_iterations=10, n_restarts=1, seed=0)
    np.testing.assert_allclose(found[np.lexsort(found.T)], centres[np.lexsort(centres.T)], atol=1e-5)


def test_balanced_codes_by_hand() -> None:
    """Three points want the left codeword, which has room for two: the farthest goes right."""
    codes = balanced_codes(np.array([[0.0], [0.1], [0.3], [1.0]]), np.array([[0.0], [1.0]]), capacity=2)
    assert codes.tolist() == [0, 0, 1, 1]


def test_balanced_codes_equal_the_nearest_where_there_is_room() -> None:
    x, codebook = clustered().vectors, clustered(n_items=8).vectors
    expected = nearest(torch.from_numpy(x).double(), torch.from_numpy(codebook).double()).numpy()
    np.testing.assert_array_equal(balanced_codes(x, codebook, capacity=len(x)), expected)


# -- residual k-means --------------------------------------------------------------------------------------------------


def test_without_normalisation_the_codewords_add_up_to_the_item_less_its_residual() -> None:
    items = clustered(300)
    fitted = make_tokenizer("rkmeans", {"normalize": "none", "codebook_size": 16}).fit(items)
    codes = fitted.encode(items).codes[:, :3]
    x = torch.from_numpy(items.vectors.astype(np.float64) - fitted.mean)  # type: ignore[attr-defined]
    _, residual = residual_quantize(x, [torch.from_numpy(table).double() for table in fitted.codebooks])
    np.testing.assert_allclose(items.vectors - fitted.reconstruct(codes), residual.numpy(), atol=1e-5)


@pytest.mark.parametrize("normalize", ["none", "input", "each"])
def test_more_levels_never_explain_less(normalize: str) -> None:
    items = clustered(300)
    errors = [
        ((items.vectors - fitted.reconstruct(fitted.encode(items).codes)) ** 2).sum()
        for fitted in (
            make_tokenizer("rkmeans", {"normalize": normalize, "n_levels": n, "codebook_size": 8}).fit(items)
            for n in (1, 2, 4)
        )
    ]
    assert errors[0] > errors[1] > errors[2]


def test_the_order_of_new_items_only_orders_their_codes() -> None:
    items = clustered(200)
    fitted = make_tokenizer("rkmeans", {"codebook_size": 16, "collisions": "share"}).fit(items)
    order = np.random.default_rng(0).permutation(200)
    shuffled = Embeddings(Catalogue([items.catalogue.item_ids[row] for row in order]), items.vectors[order])
    np.testing.assert_array_equal(fitted.encode(shuffled).codes, fitted.encode(items).codes[order])


@pytest.mark.parametrize(("balance", "balanced_levels"), [("last", [2]), ("all", [0, 1, 2])])
def test_a_balanced_level_gives_no_codeword_more_than_its_share(balance: str, balanced_levels: list[int]) -> None:
    items = clustered(300, n_clusters=3)
    plain, even = (
        make_tokenizer("rkmeans", {"balance": b, "codebook_size": 16, "collisions": "share"}).fit(items).encode(items)
        for b in ("none", balance)
    )
    for level in balanced_levels:
        assert np.bincount(even.codes[:, level]).max() <= -(-300 // 16)
    last = balanced_levels[-1]
    assert np.bincount(even.codes[:, last]).max() < np.bincount(plain.codes[:, last]).max()


def test_balanced_items_keep_their_given_codes_and_others_get_the_nearest() -> None:
    items = clustered(300, n_clusters=3)
    fitted = make_tokenizer("rkmeans", {"balance": "all", "codebook_size": 16, "collisions": "share"}).fit(items)
    given = fitted.encode(items).codes
    renamed = Embeddings(Catalogue([f"new{row}" for row in range(300)]), items.vectors)
    by_distance = fitted.encode(renamed).codes
    assert (given != by_distance).any(), "full codewords must have turned some items away"
    half = Embeddings(Catalogue(items.catalogue.item_ids[:150]), items.vectors[:150])
    np.testing.assert_array_equal(fitted.encode(half).codes, given[:150])
    moved = Embeddings(half.catalogue, half.vectors + 1e-6)
    np.testing.assert_array_equal(fitted.encode(moved).codes, by_distance[:150])


# -- product quantisation ----------------------------------------------------------------------------------------------


def test_pq_cuts_widths_that_the_levels_do_not_divide() -> None:
    items = clustered(200, width=10)
    fitted = make_tokenizer("pq", {"n_levels": 3, "codebook_size": 16}).fit(items)
    assert [table.shape for table in fitted.codebooks] == [(16, 4)] * 3
    assert fitted.reconstruct(fitted.encode(items).codes).shape == (200, 10)


def test_the_learned_rotation_is_orthogonal_and_lowers_the_error() -> None:
    random = np.random.default_rng(0)
    items = embeddings_of(random.normal(size=(400, 3)) @ random.normal(size=(3, 12)))  # all in three directions
    errors = {}
    for method in ("pq", "opq"):
        fitted = make_tokenizer(method, {"n_levels": 4, "codebook_size": 16}).fit(items)
        errors[method] = ((items.vectors - fitted.reconstruct(fitted.encode(items).codes)) ** 2).mean()
    rotation = fitted.rotation  # type: ignore[attr-defined]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(12), atol=1e-5)
    assert errors["opq"] < 0.8 * errors["pq"]


def test_a_rotation_is_learned_from_fewer_items_than_dimensions() -> None:
    items = clustered(60, width=96)  # faiss alone writes beyond its buffers here and kills the process
    fitted = make_tokenizer("opq", {"n_levels": 4, "codebook_size": 16, "collisions": "share"}).fit(items)
    rotation = fitted.rotation  # type: ignore[attr-defined]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(96), atol=1e-4)
    assert np.square(items.vectors - fitted.reconstruct(fitted.encode(items).codes)).mean() < items.vectors.var() / 2


# -- RQ-VAE ------------------------------------------------------------------------------------------------------------


def commitment_gradients(convention: str) -> list[float]:
    """Norm of each level's commitment gradient at the encoder's output."""
    random = torch.Generator().manual_seed(0)
    codebooks = [torch.randn(8, 4, generator=random) for _ in range(4)]
    norms = []
    for level in range(4):
        z = torch.randn(32, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
        quantized = quantize_for_training(z, codebooks, GRADIENTS[convention])
        term = quantized.commitment_errors[level].square().sum()
        (gradient,) = torch.autograd.grad(term, z) if term.requires_grad else (torch.zeros_like(z),)
        norms.append(float(gradient.norm()))
    return norms


def test_the_papers_convention_sends_every_levels_commitment_to_the_encoder() -> None:
    assert all(norm > 0.1 for norm in commitment_gradients("paper"))


def test_the_released_convention_sends_only_the_first_levels_commitment_to_the_encoder() -> None:
    first, *others = commitment_gradients("released")
    assert first > 0.1
    assert others == [0, 0, 0]


@pytest.mark.parametrize("next_residual", [paper_residual, released_residual])
def test_reconstruction_reaches_the_encoder_once_whatever_the_convention(next_residual) -> None:
    """d latent / d z is the identity: not the number of levels times it, as when every level's output is added up."""
    codebooks = [torch.randn(8, 4, generator=torch.Generator().manual_seed(level)) for level in range(3)]
    z = torch.randn(1, 4, generator=torch.Generator().manual_seed(9))
    jacobian = torch.autograd.functional.jacobian(
        lambda x: quantize_for_training(x, codebooks, next_residual).latent, z
    )
    torch.testing.assert_close(jacobian.reshape(4, 4), torch.eye(4))


def test_both_conventions_compute_the_same_values() -> None:
    codebooks = [torch.randn(8, 4, generator=torch.Generator().manual_seed(level)) for level in range(3)]
    z = torch.randn(20, 4, generator=torch.Generator().manual_seed(9))
    expected_codes, residual = residual_quantize(z, codebooks)
    for convention in GRADIENTS.values():
        quantized = quantize_for_training(z, codebooks, convention)
        assert torch.equal(quantized.codes, expected_codes)
        torch.testing.assert_close(quantized.latent, z - residual)


def test_reductions_by_hand() -> None:
    errors = torch.tensor([[[1.0, 2.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])  # two levels, two items, two dimensions
    assert squared(errors, "sum").item() == 4.0  # items: 5 + 1 and 1 + 1, their mean
    assert squared(errors, "mean").item() == 1.0  # 8 / 8


def test_unused_codewords_move_onto_residuals_and_lose_their_momentum() -> None:
    torch.manual_seed(0)
    network = RQAutoencoder(5, hidden=(8,), latent_width=3, codebook_size=4, distances=("euclidean",) * 2)
    x = torch.randn(50, 5)
    with torch.no_grad():
        network.codebooks[0].copy_(torch.tensor([[0.0, 0, 0], [99, 99, 99], [98, 98, 98], [97, 97, 97]]))
        network.codebooks[1].normal_()
    optimizer = torch.optim.AdamW(network.parameters())
    semantic_loss(network(x, paper_residual), AutoencoderConfig()).backward()
    optimizer.step()
    optimizer.state[network.codebooks[0]]["exp_avg"].fill_(1)
    kept = network.codebooks[0][0].clone()
    moved = network.reset_unused(network.encode_all(x), optimizer, torch.Generator().manual_seed(0))
    assert moved[0] == 3
    assert torch.equal(network.codebooks[0][0], kept)
    latents = network.encoder(x)
    apart = network.codebooks[0][1:, None] - latents  # cdist rounds by way of squares
    distances = apart.norm(dim=2).min(dim=1).values
    assert (distances < 1e-6).all()
    assert optimizer.state[network.codebooks[0]]["exp_avg"].sum(dim=1).tolist() == [3, 0, 0, 0]


def test_nearly_all_codewords_are_used_on_a_badly_scaled_catalogue() -> None:
    random = np.random.default_rng(0)
    vectors = clustered(400, n_clusters=30).vectors * np.logspace(-3, 3, 10) + 100 * random.normal(size=10)
    settings = {"n_levels": 2, "codebook_size": 32, "hidden": [16], "latent_width": 4, "batch_size": 64, "epochs": 150}
    codes = make_tokenizer("rqvae", settings).fit(embeddings_of(vectors)).encode(embeddings_of(vectors)).codes
    assert len(np.unique(codes[:, 0])) >= 30
    assert len(np.unique(codes[:, 1])) >= 30


def test_uniform_training_evens_out_the_last_level() -> None:
    items = clustered(400, n_clusters=6)
    settings = {"n_levels": 2, "codebook_size": 16, "hidden": [32], "latent_width": 6, "epochs": 40, "batch_size": 100,
                "collisions": "share", "precision": "fp32"}  # fmt: skip
    spread = {}
    for uniform in (False, True):
        codes = make_tokenizer("rqvae", {**settings, "uniform": uniform}).fit(items).encode(items).codes[:, -1]
        spread[uniform] = np.bincount(codes, minlength=16).std()
    assert spread[True] < 0.85 * spread[False]


@pytest.mark.parametrize("distance", ["cosine", "mixed"])
def test_codes_of_cosine_levels_add_up_to_what_the_decoder_learned_from(distance: str) -> None:
    """Reconstruction from codes must take the very vectors that training took: those of length 1."""
    items = clustered(300, n_clusters=12)
    settings = {"codebook_size": 16, "hidden": [32], "latent_width": 6, "epochs": 120, "batch_size": 64,
                "distance": distance, "precision": "fp32"}  # fmt: skip
    fitted = make_tokenizer("rqvae", settings).fit(items)
    x = items.vectors
    error = ((x - fitted.reconstruct(fitted.encode(items).codes)) ** 2).sum() / ((x - x.mean(axis=0)) ** 2).sum()
    assert error < 0.35


def test_blocks_of_a_large_catalogue_train_and_encode_as_the_whole(monkeypatch) -> None:
    items = clustered(300)
    settings = {"codebook_size": 8, "hidden": [16], "latent_width": 4, "epochs": 20, "precision": "fp32"}
    whole = make_tokenizer("rqvae", settings).fit(items).encode(items)
    for module in ("networks.rq_autoencoder", "tokenizers.autoencoder", "functional.residual"):
        monkeypatch.setattr(f"tesserec.{module}.ROWS_AT_A_TIME", 64)
    blocks = make_tokenizer("rqvae", settings).fit(items).encode(items)
    assert (whole.codes == blocks.codes).mean() > 0.98  # rounding may differ with the shape of a product


def test_bfloat16_products_find_as_good_codes() -> None:
    items = clustered(400, 24, n_clusters=20)
    settings = {"codebook_size": 16, "hidden": [64], "latent_width": 8, "epochs": 60, "batch_size": 64}
    x, errors = items.vectors, []
    for precision in ("fp32", "bf16"):
        fitted = make_tokenizer("rqvae", {**settings, "precision": precision}).fit(items)
        errors.append(float(((x - fitted.reconstruct(fitted.encode(items).codes)) ** 2).mean()))
    assert errors[1] < 1.05 * errors[0]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_remedy() -> None:
    settings = {"codebook_size": 8, "hidden": [8], "latent_width": 4, "epochs": 5, "learning_rate": 1e30}
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) in epoch \d+. Set a learning_rate below 1e\+30"):
        make_tokenizer("rqvae", settings).fit(clustered())


def test_training_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    make_tokenizer("rqvae", {"codebook_size": 8, "hidden": [8], "latent_width": 4, "epochs": 1}).fit(clustered())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("rkmeans", {"n_levels": 0}, "n_levels is 0"),
        ("rkmeans", {"codebook_size": 1}, "codebook_size is 1"),
        ("rkmeans", {"normalize": "maybe"}, "normalize is 'maybe'. Use one of 'none', 'input', 'each'"),
        ("rkmeans", {"n_iterations": 0}, "n_iterations is 0"),
        ("opq", {"n_rotations": 0}, "n_rotations is 0"),
        ("rqvae", {"epochs": 0}, "epochs is 0"),
        ("rqvae", {"reset_share": 2.0}, "reset_share is 2.0"),
        ("rqvae", {"uniform_temperature": 0.0}, "uniform_temperature is 0.0"),
        ("rqvae", {"hidden": [16, 0]}, r"hidden is \(16, 0\)"),
        ("rqvae", {"distance": "far"}, "distance is 'far'"),
        ("rqvae", {"gradients": "theirs"}, "gradients is 'theirs'"),
    ],
)
def test_settings_out_of_range_are_refused(method: str, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_tokenizer(method, settings)
