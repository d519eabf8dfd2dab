"""CCFRec: fusion of codes and texts, hidden codes, both further losses, what is trained, and what is refused."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tesserec.data import Dataset
from tesserec.data.catalogue import Catalogue
from tesserec.data.sequences import Sequences
from tesserec.errors import ArtifactError, ConfigError, DataError
from tesserec.functional.losses import sampled_softmax, softmax_cross_entropy
from tesserec.pipeline import load_recipe, run
from tesserec.pipeline.inspection import inspect
from tesserec.recommenders import load_recommender
from tesserec.recommenders.ccfrec import ALIGNED, CCFRec, CCFRecConfig, CCFRecNetwork, alignment_loss, hide_codes
from tesserec.recommenders.item_vectors import Bundle, CatalogueNextItem
from tesserec.recommenders.next_item import next_items
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.training.config import TrainingConfig
from tesserec.training.seeds import seeded
from toy_circles import N_ITEMS, SPLIT

SIZES = (4, 4, 6, 6)
NAMES = ("title", "brand")
SMALL = CCFRecConfig(
    width=16, n_layers=1, fusion_layers=2, dropout=0.0, fusion_dropout=0.0, max_length=12, masked_codes=0.0,
    alignment=0.0,
)  # fmt: skip
HIDING = replace(SMALL, masked_codes=0.5, alignment=0.3)
BRIEF = TrainingConfig(device="cpu", precision="fp32", epochs=20, batch_size=32, learning_rate=0.01, seed=1)


CATALOGUE = SPLIT.dataset.catalogue


def embeddings(n_attributes: int = 2) -> Embeddings:
    vectors = np.random.default_rng(1).normal(size=(N_ITEMS, n_attributes, 20)).astype(np.float32)
    return Embeddings(CATALOGUE, vectors, (*NAMES, "text")[:n_attributes])


def semantic_ids(catalogue: Catalogue = CATALOGUE, *, distinct: int = N_ITEMS) -> SemanticIds:
    random = np.random.default_rng(2)
    codes = np.stack([random.integers(size, size=distinct) for size in SIZES], axis=1)
    return SemanticIds(catalogue, codes[np.arange(len(catalogue)) % distinct], SIZES)


def made(config: CCFRecConfig = SMALL, training: TrainingConfig = BRIEF, texts: Embeddings | None = None) -> CCFRec:
    return CCFRec(config, training, embeddings=texts or embeddings(), semantic_ids=semantic_ids())


def network(config: CCFRecConfig = SMALL) -> tuple[CCFRecNetwork, list[torch.Tensor]]:
    """Untrained, in evaluation mode, and its tables of texts and codes."""
    model = made(config)
    with seeded(0):
        model.network = model._make_network(N_ITEMS)
        for parameter in model.network.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model.network.eval(), model._tables(model.features)


def bundle(n_users: int = 6, config: CCFRecConfig = SMALL) -> Bundle:
    (found,) = CatalogueNextItem(SPLIT.train, [], N_ITEMS, config, BRIEF).step(np.arange(n_users)).parts
    assert isinstance(found, Bundle)
    return found


# -- fusion ------------------------------------------------------------------------------------------------------------


def test_an_items_vector_does_not_depend_on_the_order_of_its_attributes():
    made, (texts, codes) = network()
    turned = texts[:, [1, 0]]
    assert_close(made.items(torch.arange(N_ITEMS), turned, codes), made.items(torch.arange(N_ITEMS), texts, codes))


def test_an_items_vector_does_not_depend_on_the_order_of_its_codes():
    made, (texts, codes) = network()
    rows = made.items.rows(codes)
    shuffled = made.items.pool(*made.items.read(rows[:, [2, 0, 3, 1]], texts))
    assert_close(shuffled, made.items.pool(*made.items.read(rows, texts)))


def test_an_items_vector_is_that_of_the_equations_in_double_precision():
    made, (texts, codes) = network()
    found = made.items(torch.arange(N_ITEMS), texts, codes)
    made, t = made.double(), texts.double()

    def attention(part, x, context):
        q, k, v = part.qk[0](x), part.qk[1](context), part.v(context)
        heads = []
        for head in range(2):
            columns = slice(8 * head, 8 * head + 8)
            weights = torch.softmax(q[..., columns] @ k[..., columns].mT / 8**0.5, dim=-1)
            heads.append(weights @ v[..., columns])
        return part.out(torch.cat(heads, dim=-1))

    z = made.items.codes.weight[codes + torch.tensor([0, 4, 8, 14])]
    x = z
    for block in made.items.blocks:
        x = block.norms[0](x + attention(block.among_codes, x, x))
        x = block.norms[1](x + attention(block.to_texts, x, t))
        x = block.norms[2](x + block.feed_forward[2](F.gelu(block.feed_forward[0](x))))
    assert_close(found.double(), (x + z).mean(dim=1), atol=1e-5, rtol=1e-5)


def test_a_single_attribute_gets_all_the_attention():
    model = made(texts=embeddings(1))
    with seeded(0):
        single = model._make_network(N_ITEMS)
    model.network = single
    (texts, codes), block = model._tables(model.features), single.items.blocks[0]
    x = single.items.read(single.items.rows(codes), texts)[1]
    assert_close(block.to_texts(x, texts), block.to_texts.out(block.to_texts.v(texts)))
    plain = Embeddings(CATALOGUE, embeddings(1).vectors[:, 0])
    again = made(texts=plain)
    with seeded(0):
        again.network = again._make_network(N_ITEMS)
    assert_close(again.network.catalogue(again._tables(again.features), N_ITEMS), single.catalogue([texts, codes], 30))


def test_vectors_gathered_from_the_catalogue_are_those_encoded_directly():
    made, tables = network()
    catalogue = made.catalogue(tables, N_ITEMS)
    rows = torch.tensor([3, 3, 29, 0])
    assert_close(made.items(rows, *(table[rows] for table in tables)), catalogue[rows], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("item", ["codes", "text"])
def test_an_ablated_item_vector_reads_one_of_both(item):
    made, (texts, codes) = network(replace(SMALL, item=item))
    rows = torch.arange(N_ITEMS)
    before = made.items(rows, texts, codes)
    assert (made.items(rows, texts + 1, codes) != before).any() == (item == "text")
    assert (made.items(rows, texts, codes.roll(1, dims=0)) != before).any() == (item == "codes")
    if item == "codes":
        assert_close(before, F.embedding(made.items.rows(codes), made.items.codes.weight).mean(dim=1))


# -- sequences ---------------------------------------------------------------------------------------------------------


def test_one_causal_pass_per_user_equals_a_row_per_prefix():
    made, tables = network()
    every = torch.arange(N_ITEMS)
    history = SPLIT.train.last(9).take(np.arange(4))
    output = made([next_items(history)], every, tables)
    start = 0
    for user in range(4):
        items = list(history[user])
        for n in range(1, len(items)):
            row = next_items(Sequences.from_lists([items[: n + 1]]))
            alone = made([row], every, tables).states[n - 1]
            assert_close(alone, output.states[start], atol=1e-4, rtol=1e-5)
            start += 1
    assert start == len(output.states)


def test_asking_for_the_items_of_a_batch_gives_the_loss_of_asking_for_all():
    made, tables = network()
    parts = bundle().parts
    items = torch.cat([part.inputs.items[: len(part.targets)] for part in parts]).unique()
    some = made(parts, items, [table[items] for table in tables])
    every = made(parts, torch.arange(N_ITEMS), tables)
    assert len(items) < N_ITEMS
    assert_close(some.states, every.states)
    assert_close(some.vectors, every.vectors[items])


# -- hidden codes ------------------------------------------------------------------------------------------------------

OFFSETS = torch.tensor([0, 4, 8, 14, 20])


@pytest.mark.parametrize("replace_by", ["level", "all"])
def test_hidden_codes_are_masked_replaced_and_kept_in_the_published_shares(replace_by):
    rows = semantic_ids().codes[:, None].repeat(400, axis=1).reshape(-1, 4)
    rows = torch.from_numpy(rows) + OFFSETS[:-1]
    with seeded(0):
        hidden = hide_codes(rows, OFFSETS, ratio=0.5, mask=20, replace_by=replace_by)
    assert hidden.chosen.float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert torch.equal(hidden.codes[~hidden.chosen], rows[~hidden.chosen])
    masked = hidden.codes == 20
    assert masked[hidden.chosen].float().mean().item() == pytest.approx(0.8, abs=0.01)
    replaced = (hidden.codes != rows) & ~masked
    expected = 0.1 * (1 - np.mean([1 / size for size in SIZES]) if replace_by == "level" else 0.95)
    assert replaced[hidden.chosen].float().mean().item() == pytest.approx(expected, abs=0.01)
    level = torch.searchsorted(OFFSETS, hidden.codes, right=True) - 1
    own = (level == torch.arange(4))[replaced]
    assert own.all() if replace_by == "level" else 0.2 < own.float().mean() < 0.35
    drawn = hidden.codes[replaced]
    assert len(drawn.unique()) == 20


def test_masks_are_a_function_of_seed_and_step():
    rows = torch.from_numpy(semantic_ids().codes) + OFFSETS[:-1]

    def draw(*seed: int) -> torch.Tensor:
        with seeded(*seed):
            return hide_codes(rows, OFFSETS, ratio=0.5, mask=20).codes

    assert torch.equal(draw(1, 5), draw(1, 5))
    assert not torch.equal(draw(1, 5), draw(1, 6))


@pytest.mark.parametrize("classes", ["all", "level"])
def test_the_loss_of_hidden_codes_is_that_of_its_formula_in_double_precision(classes):
    made, (texts, codes) = network(replace(HIDING, mask_classes=classes))
    rows = made.items.rows(codes)
    with seeded(3):
        hidden = hide_codes(rows, made.items.offsets, ratio=0.5, mask=20)
    h, _ = made.items.read(hidden.codes, texts)
    loss = made.masked_code_loss(h, rows, hidden.chosen)
    unit, table = (F.normalize(x.double(), dim=-1) for x in (h, made.items.codes.weight))
    total, n = 0.0, 0
    for item, level in hidden.chosen.nonzero().tolist():
        among = slice(0, 20) if classes == "all" else slice(OFFSETS[level], OFFSETS[level + 1])
        logits = (table[among] @ unit[item, level] / 0.07).detach()
        total += float(logits.logsumexp(dim=0) - logits[rows[item, level] - among.start])
        n += 1
    assert n > 30
    assert loss.item() == pytest.approx(total / n, rel=1e-5)


def test_without_chosen_codes_the_loss_is_zero_and_so_is_its_gradient():
    made, tables = network(replace(HIDING, alignment=0.0, mask_ratio=0.0))
    loss = made(bundle().parts, torch.arange(N_ITEMS), tables).loss
    assert loss.item() == 0.0
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in made.parameters())


def test_each_occurrence_hides_codes_of_its_own_and_fillers_are_never_encoded():
    made, tables = network(HIDING)
    seen = []
    read = made.items.read
    made.items.read = lambda rows, texts: seen.append(rows) or read(rows, texts)
    parts = bundle().parts
    made(parts, torch.arange(N_ITEMS), tables)
    clean, masked = seen
    assert len(clean) == N_ITEMS
    assert len(masked) == sum(len(part.targets) for part in parts)
    assert len(masked) % 64  # else nothing was filled up
    taken = torch.cat([part.inputs.items[: len(part.targets)] for part in parts])
    often = taken.bincount().argmax()
    assert len(masked[taken == often].unique(dim=0)) > 1


# -- alignment ---------------------------------------------------------------------------------------------------------


def test_alignment_is_the_symmetric_contrast_worked_out_row_by_row():
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    sequences = torch.tensor([0, 0, 1, 2, 2, 2])
    total = 0.0
    for t in range(6):
        allowed = [s for s in range(6) if s == t or sequences[s] != sequences[t]]
        for left, right in ((u, v), (v, u)):
            logits = torch.stack([left[t] @ right[s] for s in allowed])
            total += float(logits.logsumexp(dim=0) - left[t] @ right[t]) / 2
    assert alignment_loss(u, v, sequences).item() == pytest.approx(total / 6, rel=1e-5)


def test_without_hidden_codes_alignment_is_the_contrast_of_a_view_with_itself():
    config = replace(HIDING, masked_codes=0.0, alignment=1.0, mask_ratio=0.0)
    made, tables = network(config)
    parts = bundle(config=config).parts
    output = made(parts, torch.arange(N_ITEMS), tables)
    unit = output.states * 0.07
    sequences, first = [], 0
    for part in parts:
        sequences.append(first + part.inputs.slots[: len(part.targets)] // part.inputs.shape[1])
        first += part.inputs.shape[0]
    assert first == 6
    assert_close(output.loss, alignment_loss(output.states, unit, torch.cat(sequences)), atol=1e-4, rtol=1e-4)


def test_a_large_step_contrasts_a_bounded_number_of_positions(monkeypatch):
    assert ALIGNED >= 1024
    monkeypatch.setattr("tesserec.recommenders.ccfrec.ALIGNED", 5)
    sizes = []
    monkeypatch.setattr(
        "tesserec.recommenders.ccfrec.alignment_loss", lambda u, v, s: sizes.append((len(u), len(v), len(s))) or u.sum()
    )
    made, tables = network(HIDING)
    made(bundle().parts, torch.arange(N_ITEMS), tables)
    assert sizes == [(5, 5, 5)]


# -- next items --------------------------------------------------------------------------------------------------------


def test_drawing_all_items_gives_the_loss_over_all_items():
    config = replace(SMALL, loss="sampled-softmax", n_negatives=N_ITEMS)
    generator = torch.Generator().manual_seed(0)
    states, vectors = torch.randn(9, 8, generator=generator), torch.randn(N_ITEMS, 8, generator=generator)
    targets = torch.arange(9)
    drawn = config.draw(targets, N_ITEMS)
    assert sorted(drawn.tolist()) == list(range(N_ITEMS))
    assert_close(sampled_softmax(states, vectors, targets, drawn), softmax_cross_entropy(states, vectors, targets))
    assert len(replace(config, n_negatives=1000).draw(targets, N_ITEMS)) == N_ITEMS  # more than there are: all
    few = replace(config, n_negatives=12).draw(targets, N_ITEMS)
    assert len(few.unique()) == 12
    allowed = vectors[few.unique()]
    rows = (few.unique() == 3).nonzero()
    if not len(rows):
        allowed = torch.cat([allowed, vectors[3:4]])
        rows = torch.tensor([[12]])
    assert_close(
        sampled_softmax(states[3:4], vectors, targets[3:4], few), softmax_cross_entropy(states[3:4], allowed, rows[0])
    )


@pytest.mark.parametrize("settings", [
    {}, {"masked_codes": 0.3, "alignment": 0.4}, {"loss": "sampled-softmax", "n_negatives": 20},
    {"item": "codes", "alignment": 0.2}, {"item": "text"},
])  # fmt: skip
def test_it_finds_the_planted_next_item(settings):
    model = made(replace(SMALL, fusion_layers=1, **settings), replace(BRIEF, epochs=15)).fit(SPLIT)
    ranks = model.rank(SPLIT.test)
    assert (ranks.ahead + ranks.tied <= 2).mean() > 0.9
    assert model.log.rows[-1]["loss"] < model.log.rows[0]["loss"]


@pytest.mark.parametrize("settings", [
    {"masked_codes": 0.5}, {"alignment": 0.5}, {"masked_codes": 0.5, "alignment": 0.5},
    {"item": "codes", "alignment": 0.5}, {"item": "text"}, {},
])  # fmt: skip
def test_every_weight_takes_part_in_the_loss(settings):
    config = replace(SMALL, **settings)
    made, tables = network(config)
    objective = CatalogueNextItem(SPLIT.train, tables, N_ITEMS, config, BRIEF)
    with seeded(0):
        objective.loss(made, bundle(config=config), torch.device("cpu")).backward()
    assert [name for name, parameter in made.named_parameters() if parameter.grad is None] == []
    assert ("items.mask" in dict(made.named_parameters())) == config.hides_codes


def test_further_losses_weigh_in_as_configured():
    losses = {}
    for weights in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 2.0)):
        config = replace(SMALL, masked_codes=weights[0], alignment=weights[1])
        made, tables = network(replace(HIDING))
        made.config = config
        with seeded(4):
            losses[weights] = made(bundle().parts, torch.arange(N_ITEMS), tables).loss.item()
    assert losses[0.0, 0.0] == 0.0
    assert losses[0.5, 2.0] == pytest.approx(0.5 * losses[1.0, 0.0] + 2 * losses[0.0, 1.0], rel=1e-4)


# -- new items, and what goes with them --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> CCFRec:
    return made(HIDING, replace(BRIEF, epochs=4)).fit(SPLIT)


def test_new_items_are_recommended_from_texts_and_codes_alone(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = load_recommender(tmp_path / "model")
    catalogue = Catalogue([*CATALOGUE.item_ids, "new", "like item-3"])
    codes = np.concatenate([semantic_ids().codes, semantic_ids().codes[[0, 3]]])
    vectors = np.concatenate([embeddings().vectors, np.ones((1, 2, 20)), embeddings().vectors[3:4]])
    texts, ids = Embeddings(catalogue, vectors.astype(np.float32), NAMES), SemanticIds(catalogue, codes, SIZES)
    more = loaded.with_items(embeddings=texts, semantic_ids=ids)
    assert_close(more.item_vectors[:N_ITEMS], model.item_vectors, atol=1e-5, rtol=1e-5)
    assert_close(more.item_vectors[-1], model.item_vectors[3], atol=1e-5, rtol=1e-5)
    assert len(more.recommend([["item-3", "new"]], k=32).ids()[0]) == 32
    with pytest.raises(DataError, match="features of these items have the shapes"):
        loaded.with_items(embeddings=embeddings(1), semantic_ids=semantic_ids())


def test_codes_or_texts_of_another_origin_are_refused(model):
    """Their shapes are those of the training: only what becomes of known items tells."""
    random = np.random.default_rng(9)
    codes = np.stack([random.integers(size, size=N_ITEMS) for size in SIZES], axis=1)
    with pytest.raises(DataError, match="items that this model knows have other vectors now"):
        model.with_items(embeddings=embeddings(), semantic_ids=SemanticIds(CATALOGUE, codes, SIZES))
    texts = Embeddings(CATALOGUE, random.normal(size=(N_ITEMS, 2, 20)).astype(np.float32), NAMES)
    with pytest.raises(DataError, match="come from another encoder or tokenizer"):
        model.with_items(embeddings=texts, semantic_ids=semantic_ids())
    corrected = embeddings().vectors.copy()
    corrected[:9] = texts.vectors[:9]
    model.with_items(embeddings=Embeddings(CATALOGUE, corrected, NAMES), semantic_ids=semantic_ids())
    strangers = Catalogue([f"new-{row}" for row in range(N_ITEMS)])
    model.with_items(
        embeddings=Embeddings(strangers, texts.vectors, NAMES), semantic_ids=SemanticIds(strangers, codes, SIZES)
    )


def test_items_without_attributes_share_the_vector_of_none():
    vectors = embeddings().vectors.copy()
    vectors[:6] = 0.0
    texts = Embeddings(CATALOGUE, vectors, NAMES)
    empty = CCFRec(HIDING, replace(BRIEF, epochs=1), embeddings=texts, semantic_ids=semantic_ids(distinct=5)).fit(SPLIT)
    assert np.isfinite(empty.item_vectors).all()
    assert_close(empty.item_vectors[0], empty.item_vectors[5])
    assert abs(empty.item_vectors[0] - empty.item_vectors[1]).max() > 1e-3
    assert (empty.rank(SPLIT.test).found).all()


def test_an_attribute_that_says_nothing_of_any_item_does_no_harm():
    vectors = embeddings().vectors.copy()
    vectors[:, 1] = 0.0
    model = made(HIDING, replace(BRIEF, epochs=1), Embeddings(CATALOGUE, vectors, NAMES)).fit(SPLIT)
    assert np.isfinite(model.item_vectors).all()


def test_starting_from_another_data_set_keeps_its_way_of_reducing_texts(model, tmp_path):
    model.save(tmp_path / "model")
    texts = Embeddings(CATALOGUE, embeddings().vectors[::-1] * 2 + 1, NAMES)
    config = replace(HIDING, pretrained=str(tmp_path / "model"))
    again = CCFRec(config, replace(BRIEF, epochs=1), embeddings=texts, semantic_ids=semantic_ids()).fit(SPLIT)
    assert torch.equal(again.network.items.axes, model.network.items.axes)


def test_codes_of_another_index_than_the_checkpoints_are_refused(tmp_path):
    books = tuple(np.random.default_rng(3).normal(size=(size, 2)).astype(np.float32) for size in SIZES)
    theirs, other = replace(semantic_ids(), codebooks=books), replace(semantic_ids(), codebooks=books[::-1])
    once = replace(BRIEF, epochs=1)
    CCFRec(SMALL, once, embeddings=embeddings(), semantic_ids=theirs).fit(SPLIT).save(tmp_path / "model")
    config = replace(SMALL, pretrained=str(tmp_path / "model"))
    CCFRec(config, once, embeddings=embeddings(), semantic_ids=theirs).fit(SPLIT)
    with pytest.raises(ArtifactError, match=r"codebooks .* do not belong together.*tokenizer=fitted"):
        CCFRec(config, once, embeddings=embeddings(), semantic_ids=other).fit(SPLIT)


@pytest.mark.parametrize(("settings", "message"), [
    ({"width": 15}, "width 15 cannot be shared by 2 heads"),
    ({"width": 16, "fusion_heads": 3}, "width 16 cannot be shared by 3 fusion_heads"),
    ({"fusion_layers": 0}, "fusion_layers is 0"),
    ({"fusion_dropout": 1.0}, "fusion_dropout is 1.0"),
    ({"masked_codes": -1.0}, "masked_codes is -1.0"),
    ({"mask_ratio": 1.5}, "mask_ratio is 1.5"),
    ({"item": "text"}, "item is 'text'.*Set masked_codes = 0 and alignment = 0"),
    ({"item": "codes"}, "item is 'codes'.*Set masked_codes = 0"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_errors(settings, message):
    with pytest.raises(ConfigError, match=message):
        CCFRecConfig(**settings)


def test_features_of_different_items_are_refused():
    others = semantic_ids(Catalogue([f"other-{row}" for row in range(31)]))
    with pytest.raises(DataError, match="The embeddings describe 30 items and the semantic IDs 31"):
        CCFRec(SMALL, embeddings=embeddings(), semantic_ids=others)


def test_a_run_over_attributes_can_be_inspected_and_judges_equal_texts_by_all_of_them(tmp_path):
    rows = range(40)
    items = pl.DataFrame({
        "item_id": [f"item-{row}" for row in rows],
        "title": [f"red {('pen', 'ink', 'box', 'cap')[row % 4]} number{row // 8}" for row in rows],
        "brand": [f"brand{row // 8}" if row % 8 < 6 else None for row in rows],
        "noise": [f"noise{row}" for row in rows],
    })  # fmt: skip
    random = np.random.default_rng(0)
    sequences = Sequences.from_lists([random.integers(40, size=6) for _ in range(30)])
    Dataset(items, tuple(f"user-{row}" for row in range(30)), sequences).save(tmp_path / "data")
    settings = [
        "text.attributes=title,brand", "tokenizer.n_levels=4", "tokenizer.codebook_size=8", "tokenizer.pca_width=8",
        "recommender.width=16", "training.epochs=1", "training.device=cpu",
    ]  # fmt: skip
    finished = run(load_recipe("ccfrec", settings), tmp_path / "data", tmp_path / "run")
    assert finished.embeddings.vectors.shape[:2] == (40, 2)
    sheet = inspect(tmp_path / "run")
    texts = items["title"] + "|" + items["brand"].fill_null("")
    assert sheet.collisions.groups > 0
    assert sheet.collisions.identical_text_groups == texts.value_counts().filter(pl.col("count") > 1).height
    assert len(finished.recommender.recommend([["item-1"]], k=3).ids()[0]) == 3
