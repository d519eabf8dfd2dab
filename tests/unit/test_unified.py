"""Unified: gradients, moving codebooks, what is trained and exported, sizes, resuming, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tesserec.data.catalogue import Catalogue
from tesserec.data.splits import Split
from tesserec.errors import ArtifactError, ConfigError, DataError, TrainingError
from tesserec.evaluation import evaluate
from tesserec.functional.residual import paper_residual, quantize_for_training
from tesserec.recommenders import load_recommender
from tesserec.recommenders.item_vectors import CatalogueNextItem
from tesserec.recommenders.unified import (
    Quantizer,
    Unified,
    UnifiedConfig,
    UnifiedNetwork,
    ema_update,
    size_report,
)
from tesserec.text.embeddings import Embeddings
from tesserec.training.config import TrainingConfig
from tesserec.training.seeds import seeded
from toy_circles import N_ITEMS, SPLIT, Killed, Killer

SMALL = UnifiedConfig(
    n_levels=2, codebook_size=8, latent_width=12, id_width=4, hidden=(24,), n_layers=1, dropout=0.0, max_length=12
)
BRIEF = TrainingConfig(device="cpu", precision="fp32", epochs=30, batch_size=32, learning_rate=0.01, seed=1)


def embeddings(split: Split = SPLIT, *, distinct: int = N_ITEMS) -> Embeddings:
    """Texts of random directions, of which some items share one where `distinct` is smaller than their number."""
    vectors = np.random.default_rng(1).normal(size=(distinct, 10)).astype(np.float32)
    return Embeddings(split.dataset.catalogue, vectors[np.arange(split.n_items) % distinct])


def fitted(config: UnifiedConfig = SMALL, training: TrainingConfig = BRIEF, texts: Embeddings | None = None) -> Unified:
    return Unified(config, training, embeddings=texts or embeddings()).fit(SPLIT)


def quantizer(config: UnifiedConfig = SMALL) -> Quantizer:
    with seeded(0):
        made = Quantizer(10, config)
    made.begin(torch.from_numpy(embeddings().vectors), seed=0)
    return made


# -- quantiser ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", ["mixed", "cosine", "euclidean"])
def test_the_quantised_latent_passes_the_gradient_on_unchanged(distance):
    config = replace(SMALL, distance=distance, n_levels=3)
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(7, 12, generator=generator, requires_grad=True)
    codebooks = list(torch.randn(3, 8, 12, generator=generator))
    wanted = torch.randn(7, 12, generator=generator)
    z = quantize_for_training(h, codebooks, paper_residual, distances=config.distances).latent
    assert not torch.allclose(z, h, atol=0.1)
    (z * wanted).sum().backward()
    assert_close(h.grad, wanted)


def test_per_level_a_cosine_level_passes_only_what_is_tangential_to_its_residual():
    config = replace(SMALL, distance="cosine", n_levels=1, straight_through="per-level")
    made, x = quantizer(config).eval(), torch.from_numpy(embeddings().vectors)
    h = made.encoder(made.standardized(x)).detach().requires_grad_()
    made.encoder = torch.nn.Identity()
    made.standardized = lambda _: h
    made.decoder = torch.nn.Identity()
    z, _ = made(x)
    wanted = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    (z * wanted).sum().backward()
    r = h.detach() / h.detach().norm(dim=1, keepdim=True)
    tangential = (wanted - r * (r * wanted).sum(dim=1, keepdim=True)) / h.detach().norm(dim=1, keepdim=True)
    assert_close(h.grad, tangential)


def test_distances_are_cosine_but_for_the_last_level_where_mixed():
    assert UnifiedConfig(distance="mixed").distances == ("cosine", "cosine", "euclidean")
    assert UnifiedConfig(distance="mixed", n_levels=1).distances == ("euclidean",)
    assert UnifiedConfig(distance="cosine").distances == ("cosine",) * 3
    assert UnifiedConfig(distance="euclidean").distances == ("euclidean",) * 3


def test_moving_averages_are_those_worked_by_hand():
    sums, counts = torch.tensor([[4.0, 0.0], [2.0, 2.0], [1.0, 1.0]]), torch.tensor([2.0, 1.0, 1.0])
    residuals, codes = torch.tensor([[1.0, 1.0], [3.0, 5.0], [0.0, 2.0]]), torch.tensor([0, 0, 1])
    sums, counts = ema_update(sums, counts, residuals, codes, decay=0.8)
    assert_close(sums, torch.tensor([[0.8 * 4 + 0.2 * 4, 0.2 * 6], [1.6, 1.6 + 0.2 * 2], [0.8, 0.8]]))
    assert_close(counts, torch.tensor([0.8 * 2 + 0.2 * 2, 0.8 + 0.2, 0.8]))


@pytest.mark.parametrize("distance", ["mixed", "cosine", "euclidean"])
def test_codewords_are_the_averages_of_their_residuals_and_of_length_one_under_cosine(distance):
    config = replace(SMALL, distance=distance, decay=0.0, dead_below=0.0, n_levels=1 if distance == "euclidean" else 2)
    made = quantizer(config)
    x = torch.from_numpy(embeddings().vectors)
    before = made.encoder(made.standardized(x)).detach()
    codes = quantize_for_training(before, list(made.codebooks), paper_residual, distances=config.distances).codes
    made.train()(x)
    for code in codes[:, 0].unique():
        members = before[codes[:, 0] == code]
        if config.distances[0] == "cosine":
            direction = torch.nn.functional.normalize(members, dim=1).mean(dim=0)
            assert_close(made.codebooks[0, code], direction / direction.norm())
        else:
            assert_close(made.codebooks[0, code], members.mean(dim=0))
    for table, kind in zip(made.codebooks, config.distances, strict=True):
        if kind == "cosine":
            assert_close(table.norm(dim=1), torch.ones(8))


def test_codewords_stay_where_they_are_in_evaluation_mode():
    made = quantizer()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made.eval()(torch.from_numpy(embeddings().vectors))
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_a_codeword_without_items_moves_onto_a_residual():
    made = quantizer(replace(SMALL, n_levels=1, dead_below=0.5))
    x = torch.from_numpy(embeddings().vectors)
    with torch.no_grad():
        made.codebooks[0, 3], made.sums[0, 3], made.counts[0, 3] = 1e3, 1e3 * 0.1, 0.1
    made.train()(x)
    residuals = made.encoder(made.standardized(x))
    assert (residuals - made.codebooks[0, 3]).abs().amax(dim=1).min() < 1e-6
    assert made.counts[0, 3] == 1.0


@pytest.mark.parametrize("codebooks", ["ema", "gradient"])
def test_codebooks_learn_by_what_they_are_said_to(codebooks):
    made = quantizer(replace(SMALL, codebooks=codebooks))
    _, loss = made.eval()(torch.from_numpy(embeddings().vectors))
    loss.backward()
    named = dict(made.named_parameters())
    assert ("codebooks" in named) == (codebooks == "gradient")
    assert all(parameter.grad is not None for parameter in named.values())


def test_the_loss_is_that_of_its_formula_in_double_precision():
    made = quantizer(replace(SMALL, reconstruction=0.7, commitment=0.3)).eval()
    x = torch.from_numpy(embeddings().vectors)
    _, loss = made(x)
    text = x.double()
    text = (text - text.mean(dim=0)) / text.std(dim=0, correction=0)
    residual = made.double().encoder(text)
    z, commitment = torch.zeros_like(residual), torch.zeros(())
    for table, distance in zip(made.codebooks, SMALL.distances, strict=True):
        r = residual / residual.norm(dim=1, keepdim=True) if distance == "cosine" else residual
        e = table[((r[:, None] - table) ** 2).sum(dim=2).argmin(dim=1)]
        commitment = commitment + ((r - e) ** 2).sum(dim=1).mean()
        z, residual = z + e, residual - e
    reconstruction = ((text - made.decoder(z)) ** 2).sum(dim=1).mean() / (text**2).sum(dim=1).mean()
    assert loss.item() == pytest.approx((0.7 * reconstruction + 0.3 * commitment).item(), abs=1e-5)


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [
    {}, {"token": "semantic"}, {"token": "id"}, {"codebooks": "gradient"}, {"distance": "cosine"},
    {"loss": "sampled-softmax", "n_negatives": 16}, {"loss": "bce"}, {"loss": "in-batch", "temperature": 0.1},
    {"norm": "post", "ff_width": 32},
])  # fmt: skip
def test_it_finds_the_planted_next_item(settings):
    model = fitted(replace(SMALL, codebook_size=16, **settings), replace(BRIEF, epochs=50))
    ranks = model.rank(SPLIT.test)
    assert (ranks.ahead + ranks.tied <= 2).mean() > 0.9  # without ids, items may share their codes
    assert model.log.rows[-1]["loss"] < model.log.rows[0]["loss"]


def test_only_ids_tell_items_of_one_text_apart():
    shared = embeddings(distinct=15)
    texts_alone = fitted(replace(SMALL, token="semantic"), texts=shared).rank(SPLIT.test)
    both = fitted(SMALL, texts=shared).rank(SPLIT.test)
    assert (texts_alone.tied >= 2).all()
    assert (both.tied == 1).all()


def test_asking_for_the_items_of_a_batch_gives_the_vectors_of_asking_for_all():
    with seeded(0):
        network = UnifiedNetwork(N_ITEMS, 10, SMALL).eval()
    text = torch.from_numpy(embeddings().vectors)
    network.items.quantizer.begin(text, seed=0)
    (bundle,) = CatalogueNextItem(SPLIT.train, [text], N_ITEMS, SMALL, BRIEF).step(np.arange(6)).parts
    parts = bundle.parts
    history = torch.cat([part.inputs.items[: len(part.targets)] for part in parts])
    items = history.unique()
    assert len(items) < N_ITEMS
    some, every = network(parts, items, [text[items]]), network(parts, torch.arange(N_ITEMS), [text])
    assert_close(some.states, every.states)
    assert_close(some.vectors, every.vectors[items])
    codes = network.items.quantizer.codes(text.numpy())
    assert_close(network.items.of_codes(codes), every.vectors)


def test_items_that_came_later_are_ranked_by_their_texts_alone():
    model = fitted(replace(SMALL, token="semantic", codebook_size=16), replace(BRIEF, epochs=50))
    ids, vectors = SPLIT.dataset.catalogue.item_ids, embeddings().vectors
    later = Embeddings(Catalogue([*ids, "like item-3"]), np.concatenate([vectors, vectors[3:4]]))
    larger = model.with_items(embeddings=later)
    before = model.recommend([["item-17", "item-24", "item-1"]], k=4)  # item-8 is next
    after = larger.recommend([["item-12", "item-19", "item-26"]], k=4)  # item-3 is next
    assert before.ids() == larger.recommend([["item-17", "item-24", "item-1"]], k=4).ids()
    assert {"item-3", "like item-3"} <= set(after.ids()[0])
    assert larger.train_counts[-1] == 0
    with pytest.raises(ConfigError, match="has weights for each item"):
        fitted(training=replace(BRIEF, epochs=1)).with_items(embeddings=later)
    with pytest.raises(DataError, match=r"shapes .*'embeddings': \[3\].*, those of the training .*\[10\]"):
        model.with_items(embeddings=Embeddings(later.catalogue, later.vectors[:, :3]))


def test_training_starts_from_another_model_of_the_method(tmp_path):
    config = replace(SMALL, codebook_size=16)
    fitted(config, replace(BRIEF, epochs=40)).save(tmp_path / "model")
    brief = replace(BRIEF, epochs=2)
    scratch, onwards = fitted(config, brief), fitted(replace(config, pretrained=str(tmp_path / "model")), brief)
    assert onwards.log.rows[0]["loss"] < scratch.log.rows[0]["loss"]
    with pytest.raises(ArtifactError, match=r"has another network: .* Train both with the same"):
        fitted(replace(config, latent_width=20, pretrained=str(tmp_path / "model")), brief)


@pytest.mark.parametrize("settings", [{}, {"codebooks": "gradient"}, {"loss": "bce"}])
def test_an_interrupted_training_ends_with_the_weights_of_a_whole_one(settings, tmp_path):
    config = replace(SMALL, dropout=0.3, **settings)
    whole = fitted(config, replace(BRIEF, epochs=4)).network.state_dict()

    training = replace(BRIEF, epochs=4, checkpoint_seconds=0.0)
    with pytest.raises(Killed):
        Unified(config, training, embeddings=embeddings()).fit(SPLIT, checkpoints=tmp_path, progress=Killer())
    resumed = Unified(config, training, embeddings=embeddings()).fit(SPLIT, checkpoints=tmp_path).network.state_dict()
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_a_loss_that_is_not_finite_stops_the_run():
    with pytest.raises(TrainingError, match="The loss became nan at step 0"):
        fitted(
            replace(SMALL, standardize=False, latent_length=1e38),
            texts=Embeddings(SPLIT.dataset.catalogue, np.full((N_ITEMS, 10), 1e30, dtype=np.float32)),
        )


def test_where_all_texts_are_one_there_is_one_id_and_training_goes_on():
    model = fitted(training=replace(BRIEF, epochs=3), texts=embeddings(distinct=1))
    assert len(model.semantic_ids.group_sizes) == 1
    assert (model.rank(SPLIT.test).tied == 1).all()


# -- semantic IDs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Unified:
    return fitted()


@pytest.mark.parametrize("distance", ["mixed", "cosine", "euclidean"])
def test_the_exported_ids_are_those_in_the_scores(distance, tmp_path):
    model = fitted(replace(SMALL, token="semantic", distance=distance), replace(BRIEF, epochs=2))
    ids = model.semantic_ids
    vectors = sum(book[ids.codes[:, level]] for level, book in enumerate(ids.codebooks))
    model.save(tmp_path / "model")
    for scorer in (model, load_recommender(tmp_path / "model")):
        states = np.linalg.lstsq(vectors.astype(np.float64), scorer.score(SPLIT.test.histories).T, rcond=None)[0]
        assert_close(vectors @ states, scorer.score(SPLIT.test.histories).T.astype(np.float64), rtol=0, atol=1e-4)
        assert scorer.semantic_ids.fingerprint == ids.fingerprint


def test_a_loaded_model_names_items_that_it_never_saw(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = load_recommender(tmp_path / "model")
    new = Embeddings(Catalogue(["new", "like item-3"]), np.stack([np.ones(10), embeddings().vectors[3]]))
    assert isinstance(loaded, Unified)
    assert loaded.encode(new).codes[1].tolist() == model.semantic_ids.codes[3].tolist()
    assert loaded.encode(embeddings()).fingerprint == model.semantic_ids.fingerprint
    with pytest.raises(DataError, match=r"shape \(2, 3\), but the model was trained on one vector of 10"):
        loaded.encode(Embeddings(Catalogue(["a", "b"]), np.ones((2, 3))))
    with pytest.raises(ConfigError, match="was loaded without the item embeddings"):
        loaded.fit(SPLIT)


def test_an_extra_level_tells_colliding_items_apart():
    ids = fitted(
        replace(SMALL, collisions="extra-level"), replace(BRIEF, epochs=1), embeddings(distinct=10)
    ).semantic_ids
    assert ids.codebook_sizes == (8, 8, 256)
    assert (ids.group_sizes == 1).all()
    assert ids.codes[:, 2].max() >= 2


def test_ids_alone_have_no_codes():
    model = fitted(replace(SMALL, token="id"), replace(BRIEF, epochs=1))
    assert not Unified.makes_semantic_ids(model.config)
    with pytest.raises(ConfigError, match="has token = 'id' and no codes"):
        _ = model.semantic_ids


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_items", "codebook_size", "published"), [
    (12_101, 256, 0.8115), (18_357, 128, 0.8541), (11_924, 256, 0.8106),
])  # fmt: skip
def test_the_reduction_is_the_published_one(n_items, codebook_size, published):
    report = size_report(UnifiedConfig(codebook_size=codebook_size), n_items=n_items, text_width=768)
    assert report.reduction == pytest.approx(published, abs=5e-5)
    assert report.encoder_and_decoder > report.plain_table or n_items == 18_357  # what that figure leaves out
    assert report.reduction_of_trained < 0


def test_sizes_are_those_of_the_network_and_stand_on_the_protocol_card(model):
    parts, sizes = dict(model.network.named_parameters()), model.sizes
    coders = sum(value.numel() for name, value in parts.items() if "quantizer.encoder" in name or "decoder" in name)
    assert sizes["encoder_and_decoder"] == coders
    assert sizes["id_table"] == parts["items.ids.weight"].numel()
    assert sizes["codebooks"] == model.network.items.quantizer.codebooks.numel()
    assert model.n_parameters == sum(value.numel() for value in parts.values()) + sizes["codebooks"]
    assert evaluate(model, SPLIT).card["model"]["sizes"] == sizes


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_embeddings_that_do_not_fit_are_refused():
    catalogue = SPLIT.dataset.catalogue
    with pytest.raises(DataError, match="one vector per item, not 2 attributes of each"):
        Unified(SMALL, embeddings=Embeddings(catalogue, np.ones((N_ITEMS, 2, 3)), ("title", "brand")))
    with pytest.raises(DataError, match="30 items cannot fill a codebook of 256"):
        Unified(embeddings=embeddings())
    others = Embeddings(Catalogue([f"other-{row}" for row in range(N_ITEMS)]), embeddings().vectors)
    with pytest.raises(ConfigError, match="The item embeddings describe 30 items, the data set has 30"):
        Unified(SMALL, embeddings=others).fit(SPLIT)


@pytest.mark.parametrize(("settings", "message"), [
    ({"id_width": 7}, r"vector of 71 numbers \(token = 'unified'\) cannot be shared by 2 heads"),
    ({"n_levels": 0}, "n_levels is 0. Use 1 or more"),
    ({"codebook_size": 1}, "codebook_size is 1. Use 2"),
    ({"decay": 1.0}, "decay is 1.0"),
    ({"commitment": -1.0}, "commitment is -1.0"),
    ({"latent_length": 0.0}, "latent_length is 0.0"),
])  # fmt: skip
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(ConfigError, match=message):
        UnifiedConfig(**settings)


def test_a_folder_of_ids_can_be_read_back_and_another_catalogue_is_refused(model, tmp_path: Path):
    from tesserec.errors import ArtifactError
    from tesserec.tokenizers.imports import read_semantic_ids

    model.semantic_ids.save(tmp_path / "ids")
    back = read_semantic_ids(tmp_path / "ids", SPLIT.dataset.catalogue)
    assert back.fingerprint == model.semantic_ids.fingerprint
    assert len(back.codebooks) == 2
    with pytest.raises(ArtifactError, match="do not belong together"):
        read_semantic_ids(tmp_path / "ids", Catalogue(["a", "b"]))
