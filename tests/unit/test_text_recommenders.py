"""SASRec-text, UniSRec, ZESRec and FDSA: what they find, what texts alone can do, transfer, and each one's parts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tesserec.data import Dataset, SyntheticConfig, join, join_datasets, synthetic_catalogue
from tesserec.data.catalogue import Catalogue
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split, leave_one_out
from tesserec.errors import ArtifactError, ConfigError, DataError
from tesserec.evaluation import evaluate
from tesserec.networks.transformer import SequenceEncoder, SequenceSettings, pack
from tesserec.pipeline import load_recipe, run
from tesserec.recommenders import load_recommender
from tesserec.recommenders.fdsa import FDSA, FDSAConfig, FDSANetwork, IdsAndFeatures
from tesserec.recommenders.item_vectors import CatalogueNextItem, ItemVectorRecommender
from tesserec.recommenders.sasrec_text import SASRecText, SASRecTextConfig
from tesserec.recommenders.unisrec import (
    ContrastingNextItem,
    Experts,
    UniSRec,
    UniSRecConfig,
    drop_items,
    last_places,
    sequence_contrast,
)
from tesserec.recommenders.zesrec import ZESRec, ZESRecConfig
from tesserec.text.embeddings import Embeddings
from tesserec.training.config import TrainingConfig
from tesserec.training.seeds import seeded
from toy_circles import N_ITEMS, SPLIT, circle_shop

SHAPE: dict[str, Any] = {"width": 16, "n_layers": 1, "dropout": 0.0, "max_length": 12}
BRIEF = TrainingConfig(device="cpu", precision="fp32", epochs=30, batch_size=32, learning_rate=0.01, seed=1)
METHODS: dict[str, tuple[type[ItemVectorRecommender], Any]] = {
    "sasrec-text": (SASRecText, SASRecTextConfig(**SHAPE)),
    "unisrec": (UniSRec, UniSRecConfig(**SHAPE, n_experts=3)),
    "zesrec": (ZESRec, ZESRecConfig(**SHAPE, offset_weight=10.0)),  # the texts of this shop say all there is
    "fdsa": (FDSA, FDSAConfig(**SHAPE)),
}


VECTORS = np.random.default_rng(1).normal(size=(N_ITEMS, 10)).astype(np.float32)
TEXTS = Embeddings(SPLIT.dataset.catalogue, VECTORS)


def fitted(
    method: str, training: TrainingConfig = BRIEF, *, split: Split = SPLIT, texts: Embeddings = TEXTS, **settings: Any
) -> ItemVectorRecommender:
    made, config = METHODS[method]
    return made(replace(config, **settings), training, embeddings=texts).fit(split)


def found(model: ItemVectorRecommender, split: Split = SPLIT) -> float:
    return float((model.rank(split.test).ahead == 0).mean())


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "settings"), [
    ("sasrec-text", {}),
    ("sasrec-text", {"temperature": None, "loss": "sampled-softmax", "n_negatives": 16}),
    ("unisrec", {}),
    ("unisrec", {"ids": True, "standardize": True}),
    ("unisrec", {"loss": "in-batch", "contrast": 0.001}),
    ("zesrec", {}),
    ("zesrec", {"offsets": False}),
    ("fdsa", {}),
    ("fdsa", {"loss": "bce"}),
])  # fmt: skip
def test_it_finds_the_planted_next_item(method, settings):
    assert found(fitted(method, replace(BRIEF, epochs=40), **settings)) > 0.9


@pytest.mark.parametrize(("method", "settings", "n_attributes"), [
    ("sasrec-text", {}, 0),
    ("unisrec", {"loss": "in-batch", "contrast": 0.1}, 0),
    ("zesrec", {}, 0),
    ("fdsa", {}, 0),
    ("fdsa", {}, 2),
])  # fmt: skip
def test_every_trained_weight_takes_part_in_the_loss(method, settings, n_attributes):
    """Several processes wait for the gradient of every weight that is trained."""
    made, config = METHODS[method]
    texts = np.stack([VECTORS, VECTORS[::-1]], axis=1) if n_attributes else VECTORS
    names = ("title", "brand")[:n_attributes]
    model = made(replace(config, **settings), BRIEF, embeddings=Embeddings(TEXTS.catalogue, texts, names))
    network = model._make_network(N_ITEMS)
    objective = model._objective(SPLIT, [torch.from_numpy(texts)])
    objective.loss(network, objective.step(np.arange(9)).parts[0], torch.device("cpu")).backward()
    named = dict(network.named_parameters())
    assert [name for name, weight in named.items() if weight.requires_grad and weight.grad is None] == []
    idle = [name for name, weight in named.items() if not weight.requires_grad]
    assert all(name.startswith("items.attention") for name in idle)
    assert bool(idle) == (method == "fdsa" and not n_attributes)


@pytest.mark.parametrize("method", METHODS)
def test_one_causal_pass_gives_the_states_of_every_prefix(method):
    network = fitted(method, replace(BRIEF, epochs=1)).network
    assert network is not None
    vectors = network.catalogue([torch.from_numpy(VECTORS)], N_ITEMS)
    row = SPLIT.train[0][:8].tolist()
    whole = pack(Sequences.from_lists([row]))
    with torch.no_grad():
        states = network.encode(whole, vectors[whole.items])
        for length in range(1, len(row) + 1):
            prefix = pack(Sequences.from_lists([row[:length]]))
            assert_close(network.encode(prefix, vectors[prefix.items])[length - 1], states[length - 1])


@pytest.mark.parametrize("method", ["sasrec-text", "unisrec", "zesrec"])
def test_an_unseen_item_gets_a_score_without_training(method):
    model = fitted(method, replace(BRIEF, epochs=40))
    ids = SPLIT.dataset.catalogue.item_ids
    larger = model.with_items(embeddings=Embeddings(Catalogue([*ids, "new"]), np.vstack([VECTORS, VECTORS[3]])))
    history = [["item-12", "item-19", "item-26"]]  # item-3 is next
    assert model.recommend(history, k=1).ids() == [["item-3"]]
    best = larger.recommend(history, k=4).ids()[0]  # equal texts: equal scores up to rounding, but for ZESRec's offset
    assert best[0] in ("item-3", "new")
    assert {"item-3", "new"} <= set(best)


@pytest.mark.parametrize("method", ["sasrec-text", "unisrec", "zesrec"])
def test_texts_carry_over_to_items_of_another_data_set(method, tmp_path: Path):
    """The other shop has the same habits under other names and in another order of items."""
    fitted(method, replace(BRIEF, epochs=40)).save(tmp_path / "source")
    order = np.random.default_rng(5).permutation(N_ITEMS)
    place = np.argsort(order)
    items = pl.DataFrame({"item_id": [f"other-{row}" for row in range(N_ITEMS)]})
    rows = [place[row].tolist() for row in SPLIT.dataset.sequences]
    split = leave_one_out(Dataset(items, SPLIT.dataset.user_ids, Sequences.from_lists(rows)))
    texts = Embeddings(split.dataset.catalogue, VECTORS[order])
    source = str(tmp_path / "source")
    zero_shot = fitted(method, split=split, texts=texts, pretrained=source, zero_shot=True)
    assert found(zero_shot, split) > 0.8
    assert zero_shot.log.stopped == "zero-shot: not trained"
    assert evaluate(zero_shot, split).card["model"]["selected_by"] == "nothing was selected"
    brief = replace(BRIEF, epochs=2)
    scratch = fitted(method, brief, split=split, texts=texts)
    tuned = fitted(method, brief, split=split, texts=texts, pretrained=source)
    assert tuned.log.rows[0]["loss"] < scratch.log.rows[0]["loss"]
    zero_shot.save(tmp_path / "target")
    assert found(load_recommender(tmp_path / "target"), split) == found(zero_shot, split)


def test_zero_shot_needs_weights_and_none_of_items(tmp_path: Path):
    with pytest.raises(ConfigError, match="zero_shot is set but pretrained is not"):
        SASRecTextConfig(zero_shot=True)
    fitted("fdsa", replace(BRIEF, epochs=1)).save(tmp_path / "model")
    with pytest.raises(ConfigError, match="fdsa recommender has weights for each item, so it needs training"):
        fitted("fdsa", pretrained=str(tmp_path / "model"), zero_shot=True)


def test_balanced_domains_need_a_column_and_train_as_many_sequences_of_each():
    with pytest.raises(ConfigError, match=r"domains is 'balanced', but the items have no column 'domain'. Join"):
        fitted("sasrec-text", domains="balanced")
    large, small = circle_shop(n_users=90), circle_shop(n_users=10)
    split = leave_one_out(join_datasets({"large": large, "small": small}))
    texts = Embeddings(split.dataset.catalogue, np.tile(VECTORS, (2, 1)))
    model = SASRecText(replace(METHODS["sasrec-text"][1], domains="balanced"), BRIEF, embeddings=texts)
    objective = model._objective(split, [])
    assert isinstance(objective, CatalogueNextItem)
    domains = objective.sequences.values[objective.sequences.starts] // N_ITEMS
    assert np.bincount(domains)[0] > 5 * np.bincount(domains)[1]
    drawn = np.bincount(domains[objective.order(3)])
    assert drawn[0] == drawn[1] == -(-len(domains) // 2)
    steps, n_steps = objective.steps(3), objective.n_steps(3)
    n_sequences = sum(part.inputs.shape[0] for index in range(n_steps) for part in steps[index].parts[0].parts)
    assert n_sequences == drawn.sum()
    assert np.array_equal(objective.order(3), objective.order(3))
    assert found(model.fit(split), split) > 0.8


@pytest.mark.parametrize(("make", "message"), [
    (lambda: SASRecTextConfig(width=15), "width 15 cannot be shared by 2 heads"),
    (lambda: UniSRecConfig(n_experts=0), "n_experts is 0"),
    (lambda: UniSRecConfig(expert_dropout=1.0), "expert_dropout is 1.0"),
    (lambda: UniSRecConfig(contrast=-1.0), "contrast is -1.0"),
    (lambda: UniSRecConfig(contrast=0.1, temperature=None), "compares by cosine. Set temperature"),
    (lambda: ZESRecConfig(offset_weight=-1.0), "offset_weight is -1.0"),
])  # fmt: skip
def test_settings_out_of_range_are_errors(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("method", ["sasrec-text", "unisrec", "zesrec"])
def test_attributes_are_refused_by_methods_of_one_text(method):
    with pytest.raises(DataError, match="one vector per item, not 2 attributes of each"):
        fitted(method, texts=Embeddings(TEXTS.catalogue, np.ones((N_ITEMS, 2, 3)), ("title", "brand")))


# -- UniSRec -----------------------------------------------------------------------------------------------------------


def experts() -> Experts:
    with seeded(0):
        made = Experts(10, 16, 4, dropout=0.2)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter)
    return made


def test_one_product_is_the_sum_over_experts():
    made, x = experts().eval(), torch.from_numpy(VECTORS)
    gates = (x @ made.gates).softmax(dim=1)
    wanted = sum(
        gates[:, [expert]] * ((x - made.shifts[expert]) @ made.weights[expert].T) for expert in range(len(made.shifts))
    )
    assert_close(made(x), wanted)


def test_gates_are_noisy_in_training_only():
    made, x = experts(), torch.from_numpy(VECTORS)
    with seeded(0):
        first, second = made.gates_of(x), made.gates_of(x)
    assert not torch.allclose(first, second)
    made.eval()
    assert torch.equal(made.gates_of(x), made.gates_of(x))
    assert_close(made.gates_of(x).sum(dim=1), torch.ones(N_ITEMS))


def test_augmentation_keeps_the_first_item_and_the_order():
    rows = [list(range(start, start + length)) for start, length in [(0, 12), (3, 1), (7, 9), (1, 12)]]
    packed, n_tokens = pack(Sequences.from_lists(rows)), sum(map(len, rows))
    with seeded(0):
        part = drop_items(packed, n_tokens, share=0.5)
    ends = last_places([part]).tolist()
    starts = [0, *(end + 1 for end in ends[:-1])]
    kept = [part.targets[start : end + 1].tolist() for start, end in zip(starts, ends, strict=True)]
    assert len(part.targets) < n_tokens
    for row, left in zip(rows, kept, strict=True):
        assert left[0] == row[0]
        assert left == [item for item in row if item in left]
    assert torch.equal(part.inputs.items[: len(part.targets)], part.targets)
    assert (part.inputs.slots[starts] % part.inputs.shape[1] == 0).all()
    with seeded(0):
        assert torch.equal(drop_items(packed, n_tokens, share=0.0).targets, packed.items[:n_tokens])


def test_the_contrast_is_that_of_its_formula_and_leaves_equal_targets_out():
    q, k = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.tensor([5, 2, 5, 1])
    wanted = 0.0
    for j in range(4):
        others = [i for i in range(4) if i == j or targets[i] != targets[j]]
        wanted += -float(q[j] @ k[j]) + float(torch.stack([q[j] @ k[i] for i in others]).logsumexp(dim=0))
    assert sequence_contrast(q, k, targets).item() == pytest.approx(wanted / 4, abs=1e-5)


def test_without_weight_the_contrasts_objective_is_the_plain_one():
    config = replace(METHODS["unisrec"][1], loss="in-batch")
    tables = [torch.from_numpy(VECTORS)]
    network = UniSRec(config, BRIEF, embeddings=TEXTS)._make_network(N_ITEMS).eval()
    losses = {}
    for name, objective, weight in [
        ("plain", CatalogueNextItem, 0.0), ("off", ContrastingNextItem, 0.0), ("on", ContrastingNextItem, 0.5),
    ]:  # fmt: skip
        made = objective(SPLIT.train, tables, N_ITEMS, replace(config, contrast=weight), BRIEF)
        (bundle,) = made.step(np.arange(20)).parts
        with seeded(0):
            losses[name] = made.loss(network, bundle, torch.device("cpu")).item()
    assert losses["plain"] == losses["off"] < losses["on"]


def test_the_contrast_weighs_as_configured_beside_the_loss_of_one_target():
    """Nothing is dropped, so that a sequence's augmentation is the sequence."""
    config = replace(METHODS["unisrec"][1], loss="in-batch", drop_items=0.0)
    tables = [torch.from_numpy(VECTORS)]
    network = UniSRec(config, BRIEF, embeddings=TEXTS)._make_network(N_ITEMS).eval()
    losses = []
    for weight in (0.0, 0.5):
        objective = ContrastingNextItem(SPLIT.train, tables, N_ITEMS, replace(config, contrast=weight), BRIEF)
        (bundle,) = objective.step(np.arange(20)).parts
        losses.append(objective.loss(network, bundle, torch.device("cpu")).item())
    targets, last = torch.cat([part.targets for part in bundle.parts]), last_places(bundle.parts)
    states = network(bundle.parts, torch.arange(N_ITEMS), tables).states
    contrast = sequence_contrast(states[last], F.normalize(states[last], dim=1), targets[last])
    assert losses[1] - losses[0] == pytest.approx(0.5 * len(targets) * contrast.item(), rel=1e-3)


@pytest.mark.parametrize("ids", [False, True])
def test_fine_tuning_leaves_blocks_and_positions_alone(ids, tmp_path: Path):
    source = fitted("unisrec", replace(BRIEF, epochs=3))
    source.save(tmp_path / "source")
    before = source.network.state_dict()
    tuned = fitted("unisrec", replace(BRIEF, epochs=3), pretrained=str(tmp_path / "source"), ids=ids).network
    for name, weight in tuned.state_dict().items():
        if name.startswith(("encoder.positions", "encoder.blocks")):
            assert torch.equal(weight, before[name])
    assert not torch.equal(tuned.items.experts.weights, before["items.experts.weights"])
    free = fitted("unisrec", replace(BRIEF, epochs=3), pretrained=str(tmp_path / "source"), freeze=False).network
    assert not torch.equal(free.encoder.positions.weight, before["encoder.positions.weight"])


def test_ids_join_before_the_norm_on_both_sides():
    network = fitted("unisrec", replace(BRIEF, epochs=1), ids=True).network.eval()
    rows, text = torch.arange(N_ITEMS), torch.from_numpy(VECTORS)
    wanted = F.normalize(network.items.experts(network.items.standardize(text)) + network.items.ids.weight, dim=1)
    assert_close(network.key(network.items(rows, text)), wanted)


# -- ZESRec ------------------------------------------------------------------------------------------------------------


def test_zeroed_offsets_are_the_text_model():
    with_offsets, without = (
        ZESRec(replace(METHODS["zesrec"][1], offsets=offsets), BRIEF, embeddings=TEXTS)._make_network(N_ITEMS)
        for offsets in (True, False)
    )
    without.load_state_dict({k: v for k, v in with_offsets.state_dict().items() if "offsets" not in k})
    rows, text = torch.arange(N_ITEMS), torch.from_numpy(VECTORS)
    assert torch.equal(with_offsets.items(rows, text), without.items(rows, text))


def test_heavier_priors_make_smaller_offsets():
    lengths = [
        fitted("zesrec", replace(BRIEF, epochs=10), offset_weight=weight).network.items.offsets.weight.norm().item()
        for weight in (0.0, 10.0, 1000.0)
    ]
    assert lengths[0] > 5 * lengths[1] > 25 * lengths[2]


@pytest.mark.parametrize("method", ["sasrec-text", "unisrec", "zesrec"])
def test_texts_of_another_encoder_are_refused_though_their_shape_is_right(method):
    """Only what becomes of known items tells."""
    model = fitted(method, replace(BRIEF, epochs=1))
    others = np.random.default_rng(2).normal(size=VECTORS.shape).astype(np.float32)
    with pytest.raises(DataError, match="30 of 30 items that this model knows have other vectors now"):
        model.with_items(embeddings=Embeddings(SPLIT.dataset.catalogue, others))
    corrected = np.vstack([others[:9], VECTORS[9:]])
    model.with_items(embeddings=Embeddings(SPLIT.dataset.catalogue, corrected))
    strangers = Catalogue([f"new-{row}" for row in range(N_ITEMS)])
    model.with_items(embeddings=Embeddings(strangers, others))


def test_known_items_keep_their_offsets_and_new_ones_have_none():
    model = fitted("zesrec")
    ids = ["new", "item-4"]
    other = model.with_items(embeddings=Embeddings(Catalogue(ids), VECTORS[[4, 4]]))
    offsets = model.network.items.offsets.weight
    assert_close(torch.from_numpy(other.item_vectors[1] - other.item_vectors[0]), offsets[4].detach())
    assert len(model.item_vectors) == N_ITEMS


# -- FDSA --------------------------------------------------------------------------------------------------------------


def test_without_the_feature_stream_it_is_a_transformer_over_ids():
    with seeded(0):
        network = FDSANetwork(N_ITEMS, 10, FDSAConfig(width=16)).eval()
        plain = SequenceEncoder(16, SequenceSettings()).eval()
    plain.load_state_dict(network.encoder.state_dict())
    with torch.no_grad():
        network.joined.weight.copy_(torch.cat([torch.eye(16), torch.zeros(16, 16)], dim=1))
        network.joined.bias.zero_()
    packed, vectors = pack(SPLIT.train.take(np.arange(5))), torch.randn(N_ITEMS, 32)
    wanted = plain(packed, 4.0 * vectors[packed.items, :16])  # sqrt(16)
    assert_close(network.encode(packed, vectors[packed.items]), wanted, atol=1e-4, rtol=1e-4)


def test_texts_of_items_outside_a_history_do_not_matter():
    model = fitted("fdsa", replace(BRIEF, epochs=2))
    history = Sequences.from_lists([[1, 2, 3]])
    before = model.score(history)
    changed = VECTORS.copy()
    changed[4:] = changed[4:][::-1]
    model._settle([torch.from_numpy(changed)], N_ITEMS)
    assert np.array_equal(before, model.score(history))
    model._settle([torch.from_numpy(VECTORS[::-1].copy())], N_ITEMS)
    assert not np.array_equal(before, model.score(history))


def test_attributes_are_weighed_and_empty_ones_have_no_weight():
    fields = np.stack([VECTORS, VECTORS[::-1]], axis=1)
    fields[:5, 1] = 0
    texts = Embeddings(TEXTS.catalogue, fields, ("title", "brand"))
    model = fitted("fdsa", replace(BRIEF, epochs=40), texts=texts)
    assert found(model) > 0.9
    items = model.network.items
    assert isinstance(items, IdsAndFeatures)
    text = torch.from_numpy(fields)
    assert_close(items.features(text)[:5], items.features(text[:, 0])[:5])
    with pytest.raises(ConfigError, match="has weights for each item"):
        model.with_items(embeddings=texts)


# -- recipes -----------------------------------------------------------------------------------------------------------


def test_a_pre_training_on_joined_shops_is_fine_tuned_on_another(tmp_path: Path):
    for seed, name in enumerate(("books", "films", "shop")):
        synthetic_catalogue(SyntheticConfig(n_users=40, n_items=50, seed=seed)).save(tmp_path / name)
    join([tmp_path / "books", tmp_path / "films"], tmp_path / "joint")
    vectors = {name: tmp_path / f"{name}.npy" for name in ("joint", "shop")}
    for name, file in vectors.items():
        np.save(file, np.random.default_rng(0).normal(size=(len(Dataset.load(tmp_path / name).catalogue), 8)))
    small = ["recommender.width=16", "training.max_steps=4", "training.device=cpu", "text=file"]
    source = load_recipe("unisrec-pretrain", [*small, f"text.model={vectors['joint']}", "recommender.domains=balanced"])
    run(source, tmp_path / "joint", tmp_path / "source")
    more = [*small, f"text.model={vectors['shop']}", f"recommender.pretrained={tmp_path / 'source'}"]
    for settings in ([], ["recommender.ids=true"], ["recommender.zero_shot=true"]):
        finished = run(load_recipe("unisrec-finetune", [*more, *settings]), tmp_path / "shop", tmp_path / "target")
        assert 0 <= finished.report.metrics["ndcg@10"] <= 1
    with pytest.raises(ArtifactError, match=r"runs/unisrec-pretrain is no run, recommender or file"):
        run(load_recipe("unisrec-finetune", more[:-1]), tmp_path / "shop", tmp_path / "other")
