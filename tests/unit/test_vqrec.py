"""VQ-Rec: pooled codes, semi-synthetic negatives, learned permutations, what is trained when, and what is refused."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tesserec.data.catalogue import Catalogue
from tesserec.errors import ArtifactError, ConfigError, DataError
from tesserec.functional.sinkhorn import best_permutation, doubly_stochastic
from tesserec.networks.transformer import pack
from tesserec.recommenders import load_recommender
from tesserec.recommenders.vqrec import (
    Alignment,
    CodeItems,
    CodesNextItem,
    VQRec,
    VQRecConfig,
    VQRecNetwork,
    corrupted,
    reference_rows,
)
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers import make_tokenizer
from tesserec.tokenizers.imports import read_semantic_ids
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.training.config import TrainingConfig
from tesserec.training.seeds import seeded
from toy_circles import N_ITEMS, SPLIT, Killed, Killer, codes_of

SMALL = VQRecConfig(width=16, n_layers=1, dropout=0.0, max_length=12)
BRIEF = TrainingConfig(device="cpu", precision="fp32", epochs=40, batch_size=32, learning_rate=0.01, seed=1)
PRETRAINING = replace(SMALL, loss="in-batch", corruption=0.75)
IDS = codes_of(SPLIT)


def fitted(config: VQRecConfig = SMALL, training: TrainingConfig = BRIEF, ids: SemanticIds = IDS) -> VQRec:
    return VQRec(config, training, semantic_ids=ids).fit(SPLIT)


def network_and_objective(
    config: VQRecConfig = SMALL, ids: SemanticIds = IDS, training: TrainingConfig = BRIEF
) -> tuple[VQRecNetwork, CodesNextItem]:
    model = VQRec(config, training, semantic_ids=ids)
    with seeded(0):
        network = model._make_network(N_ITEMS)
    tables = model._tables(model.features)
    return network, CodesNextItem(SPLIT.train, tables, N_ITEMS, config, training, network=network)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained") / "model"
    fitted(PRETRAINING).save(folder)
    return folder


# -- item vectors and states -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(4, 4, 4), (8, 2, 5)])
def test_pooled_vectors_are_the_means_of_a_plain_loop(sizes):
    random = np.random.default_rng(0)
    codes = np.stack([random.integers(size, size=9) for size in sizes], axis=1)
    ids = SemanticIds(Catalogue([f"i{row}" for row in range(9)]), codes, sizes)
    with seeded(0):
        items = CodeItems(sizes, 6)
        torch.nn.init.normal_(items.table)
    model = VQRec(SMALL, semantic_ids=ids)
    (rows,) = model._tables(model.features)
    tables = torch.split(items.table, list(sizes))
    plain = torch.stack([
        sum(table[code] for table, code in zip(tables, row, strict=True)) / len(sizes) for row in codes.tolist()
    ])  # fmt: skip
    assert_close(items(torch.arange(9), rows), plain)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_one_pass_over_a_user_gives_the_states_of_one_row_per_prefix(norm):
    network, objective = network_and_objective(replace(SMALL, norm=norm))
    network.eval()
    bundle = objective.step(np.arange(5)).parts[0]
    every = torch.arange(N_ITEMS)
    states = network(bundle.parts, every, objective.features_of(every)).states
    vectors = network.catalogue(objective.features, N_ITEMS)
    at = 0
    for row in np.argsort(objective.sequences.lengths[:5], kind="stable"):
        sequence = objective.sequences.take(np.array([row]))
        for length in range(1, int(sequence.lengths[0])):
            prefix = type(sequence)(sequence.values, sequence.starts, sequence.starts + length)
            packed = pack(prefix)
            alone = network.query(network.encoder(packed, vectors[packed.items])[length - 1])
            assert_close(alone, states[at])
            at += 1
    assert at == len(states)


def test_the_catalogue_may_have_residual_codes_with_an_extra_level():
    rows = np.arange(N_ITEMS)
    ids = SemanticIds(SPLIT.dataset.catalogue, np.stack([rows % 5, rows // 15, rows % 15 // 5], axis=1), (5, 2, 3),
                      collision_policy="extra-level")  # fmt: skip
    assert (fitted(ids=ids).rank(SPLIT.test).ahead == 0).mean() > 0.9


def test_items_of_equal_codes_have_exactly_equal_scores(tmp_path):
    model = fitted(training=replace(BRIEF, epochs=2), ids=codes_of(SPLIT, distinct=11))
    scores = model.score(SPLIT.test.histories)
    for code in range(11):
        assert (np.ptp(scores[:, np.arange(N_ITEMS) % 11 == code], axis=1) == 0).all()
    assert (model.rank(SPLIT.test).tied >= 2).all()
    model.save(tmp_path / "model")
    assert np.array_equal(load_recommender(tmp_path / "model").score(SPLIT.test.histories), scores)


# -- training from scratch and before ----------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [
    {}, {"norm": "post", "ff_width": 32}, {"temperature": None}, {"loss": "in-batch"},
    {"loss": "in-batch", "corruption": 0.75}, {"loss": "sampled-softmax", "n_negatives": 16},
])  # fmt: skip
def test_it_finds_the_planted_next_item(settings):
    model = fitted(replace(SMALL, **settings))
    assert (model.rank(SPLIT.test).ahead == 0).mean() > 0.9


@pytest.mark.parametrize("share", [0.0, 0.75, 1.0])
def test_codes_are_redrawn_within_their_level_at_the_rate_that_was_asked_for(share):
    sizes = (4, 16)
    codes = np.tile([[1, 4 + 7]], (20_000, 1))
    copies = corrupted(codes, sizes, share, np.random.default_rng(0))
    changed = (copies != codes).mean(axis=0)
    assert changed == pytest.approx(share * (1 - 1 / np.array(sizes)), abs=0.02)
    assert copies[:, 0].max() < 4 <= copies[:, 1].min()
    assert copies.max() < 20


def test_the_semi_synthetic_loss_is_that_of_its_formula_in_double_precision():
    network, objective = network_and_objective(PRETRAINING)
    (bundle,) = objective.step(np.arange(12)).parts
    loss = objective.loss(network, bundle, torch.device("cpu"))
    loss.backward()
    gradient = network.items.table.grad.clone()
    assert gradient.abs().sum() > 0

    network.zero_grad()
    every = torch.arange(N_ITEMS)
    targets = torch.cat([part.targets for part in bundle.parts])
    states = network(bundle.parts, every, objective.features_of(every)).states.double()
    unit = torch.nn.functional.normalize
    table = network.items.table.double()
    vectors = unit(table[objective.features[0]].mean(dim=1), dim=1)
    fakes = unit(table[bundle.extra[0]].mean(dim=1), dim=1)
    wanted = torch.zeros((), dtype=torch.float64)
    for state, target, fake in zip(states, targets, fakes, strict=True):
        positive = (state @ vectors[target]).exp()
        others = sum((state @ vectors[other]).exp() for other in targets if other != target)
        wanted = wanted - torch.log(positive / (positive + others + (state @ fake).exp()))
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    wanted.backward()
    assert_close(gradient, network.items.table.grad, rtol=1e-3, atol=1e-3)


def test_a_step_draws_its_negatives_from_seed_and_sequences_alone(monkeypatch):
    _, objective = network_and_objective(PRETRAINING)
    rows = np.arange(9)[::-1].copy()

    def drawn(bundles) -> dict[int, list[int]]:
        return {
            event: codes
            for bundle in bundles
            for event, codes in zip(
                torch.cat([part.events for part in bundle.parts]).tolist(), bundle.extra[0].tolist(), strict=True
            )
        }

    whole = drawn(objective.step(rows).parts)
    monkeypatch.setattr("tesserec.recommenders.item_vectors.n_processes", lambda: 3)
    shared = objective.step(rows).parts
    assert len(shared) == 3
    assert drawn(shared) == whole
    assert drawn(objective.step(rows[1:]).parts) != whole


PROCESSES = """
import sys, torch
sys.path[:0] = {paths!r}
from dataclasses import replace
from test_vqrec import BRIEF, IDS, PRETRAINING, SPLIT
from tesserec.recommenders.vqrec import VQRec
torch.set_num_threads(1)
training = replace(BRIEF, max_steps=3, batch_size=24, validate_every=9)
model = VQRec(PRETRAINING, training, semantic_ids=IDS).fit(SPLIT)
assert torch.distributed.get_backend() == "gloo" and torch.distributed.get_world_size() == 2
if torch.distributed.get_rank() == 0:
    torch.save(model.network.state_dict(), {out!r})
"""


def test_two_processes_with_half_the_batch_take_the_steps_of_one(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(PROCESSES.format(paths=sys.path, out=str(tmp_path / "weights.pt")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launched = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}  # fmt: skip
    processes = [
        subprocess.Popen([sys.executable, script], env={**os.environ, **launched, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    alone = fitted(PRETRAINING, replace(BRIEF, max_steps=3, batch_size=24, validate_every=9)).network.state_dict()
    together = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert together.keys() == alone.keys()
    untrained = network_and_objective(PRETRAINING)[0].state_dict()
    for name, weight in alone.items():
        assert_close(together[name], weight, rtol=1e-3, atol=1e-5)
        assert name.startswith("encoder.positions") or not torch.equal(weight, untrained[name])


# -- alignment ---------------------------------------------------------------------------------------------------------


def test_the_plan_is_doubly_stochastic_and_its_gradient_that_of_unrolled_passes():
    logits = torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    wanted = torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plan = doubly_stochastic(logits, temperature=0.5, n_iters=200)
    assert_close(plan.sum(dim=0), torch.ones(7, dtype=torch.float64))
    assert_close(plan.sum(dim=1), torch.ones(7, dtype=torch.float64))
    (plan * wanted).sum().backward()
    gradient, logits.grad = logits.grad, None
    unrolled = logits / 0.5
    for _ in range(200):
        unrolled = unrolled - unrolled.logsumexp(dim=1, keepdim=True)
        unrolled = unrolled - unrolled.logsumexp(dim=0, keepdim=True)
    assert_close(plan, unrolled.exp())
    (unrolled.exp() * wanted).sum().backward()
    assert_close(gradient, logits.grad)


def test_rows_are_a_permutation_of_the_largest_logits():
    logits = torch.tensor([[2.0, 3.0, 0.0], [0.0, 2.9, 0.0], [0.0, 0.0, 0.1]])
    assert best_permutation(logits).tolist() == [0, 1, 2]  # 2 + 2.9 + .1 beats 3 + 0 + .1
    assert best_permutation(logits[[1, 0, 2]]).tolist() == [1, 0, 2]


@pytest.mark.parametrize("plan", ["straight-through", "soft"])
def test_alignment_gives_permutations_and_a_gradient_to_all_logits(plan):
    alignment = Alignment((6, 4), replace(SMALL, alignment_plan=plan))
    with torch.no_grad():
        for logits in alignment.logits:
            logits.normal_(generator=torch.Generator().manual_seed(0))
    table = torch.randn(10, 5, generator=torch.Generator().manual_seed(1))
    rows = alignment.rows
    assert sorted(rows[:6].tolist()) == list(range(6))
    assert sorted(rows[6:].tolist()) == list(range(6, 10))
    for matrix in alignment.plans():
        assert_close(matrix.sum(dim=0), torch.ones(len(matrix)))
        assert_close(matrix.sum(dim=1), torch.ones(len(matrix)), rtol=0, atol=0.05)
    moved = alignment.train()(table)
    if plan == "straight-through":
        assert_close(moved, table[rows])
    (moved * torch.randn(10, 5, generator=torch.Generator().manual_seed(2))).sum().backward()
    assert all((logits.grad.abs() > 0).all() for logits in alignment.logits)
    assert torch.equal(alignment.eval()(table), table[rows])


def test_a_planted_permutation_is_recovered(tmp_path):
    ids = codes_of(SPLIT, levels=2)
    fitted(ids=ids).save(tmp_path / "model")
    random = np.random.default_rng(5)
    planted = [random.permutation(size) for size in ids.codebook_sizes]
    codes = np.stack([new[column] for new, column in zip(planted, ids.codes.T, strict=True)], axis=1)
    renamed = SemanticIds(ids.catalogue, codes, ids.codebook_sizes)
    config = replace(SMALL, pretrained=str(tmp_path / "model"), tuned="nothing")
    before = load_recommender(tmp_path / "model")
    model = fitted(replace(config, alignment="learned", alignment_epochs=25), ids=renamed)
    starts = np.cumsum([0, *ids.codebook_sizes[:-1]])
    old, new = torch.from_numpy(ids.codes + starts), torch.from_numpy(codes + starts)
    assert (model.network.items.table[new] == before.network.items.table[old]).all()
    places = before.rank(SPLIT.test).ahead
    assert np.array_equal(model.rank(SPLIT.test).ahead, places)
    assert (fitted(config, ids=renamed).rank(SPLIT.test).ahead == places).mean() < 0.3
    assert len(model.alignment_log.rows) == 25


def test_codes_of_the_same_tokenizer_start_from_the_scores_of_the_other_model(pretrained):
    before = load_recommender(pretrained).score(SPLIT.test.histories)
    config = replace(SMALL, pretrained=str(pretrained), tuned="nothing")
    assert np.array_equal(fitted(config).score(SPLIT.test.histories), before)
    zero_shot = replace(config, zero_shot=True, alignment="learned", tuned="codes")
    assert np.array_equal(fitted(zero_shot).score(SPLIT.test.histories), before)
    aligned = replace(config, alignment="learned", alignment_epochs=1, alignment_rate=1e-6)
    assert np.array_equal(fitted(aligned).score(SPLIT.test.histories), before)


def test_the_reference_map_is_random_and_leaves_rows_out(pretrained):
    with seeded(0):
        rows = reference_rows((256, 256))
    assert 150 < len(rows[:256].unique()) < 230  # the sheet measured 204 of 257
    assert (rows[256:] >= 256).all()
    config = replace(SMALL, pretrained=str(pretrained), alignment="reference", tuned="nothing")
    first, second = fitted(config), fitted(config)
    table = load_recommender(pretrained).network.items.table
    assert torch.equal(first.network.items.table, second.network.items.table)
    assert torch.equal(torch.unique(torch.cat([table, first.network.items.table]), dim=0), torch.unique(table, dim=0))


# -- tuning ------------------------------------------------------------------------------------------------------------


def test_what_is_tuned_is_what_was_asked_for(pretrained):
    before = load_recommender(pretrained).network.state_dict()
    brief = replace(BRIEF, epochs=2)

    def changed(tuned: str) -> set[str]:
        after = fitted(replace(SMALL, pretrained=str(pretrained), tuned=tuned), brief).network
        assert all(parameter.requires_grad for parameter in after.parameters())
        return {name for name, weight in after.state_dict().items() if not torch.equal(weight, before[name])}

    assert changed("nothing") == set()
    assert changed("codes") == {"items.table", "encoder.input_norm.weight", "encoder.input_norm.bias"}
    assert len(changed("all")) > 10


@pytest.mark.parametrize("stage", [1, 2])
def test_an_interrupted_fine_tuning_ends_with_the_weights_of_a_whole_one(stage, pretrained, tmp_path):
    config = replace(SMALL, dropout=0.3, pretrained=str(pretrained), alignment="learned", alignment_epochs=3,
                     tuned="codes")  # fmt: skip
    training = replace(BRIEF, epochs=3, checkpoint_seconds=0.0)
    whole = fitted(config, training)
    with pytest.raises(Killed):
        VQRec(config, training, semantic_ids=IDS).fit(SPLIT, checkpoints=tmp_path, progress=Killer(stage))
    resumed = VQRec(config, training, semantic_ids=IDS).fit(SPLIT, checkpoints=tmp_path)
    for name, weight in whole.network.state_dict().items():
        assert torch.equal(weight, resumed.network.state_dict()[name])
    resumed.save(tmp_path / "model")
    loaded = load_recommender(tmp_path / "model")
    assert [row["validation"] for row in loaded.alignment_log.rows] == [
        row["validation"] for row in whole.alignment_log.rows
    ]
    assert len(loaded.log.rows) == 3
    assert "pretrained" in loaded.sources


# -- new items ---------------------------------------------------------------------------------------------------------


def test_items_that_came_later_are_recommended_from_their_text_alone():
    vectors = np.random.default_rng(1).normal(size=(N_ITEMS, 8)).astype(np.float32)
    catalogue = SPLIT.dataset.catalogue
    tokenizer = make_tokenizer("pq", {"n_levels": 4, "codebook_size": 8, "collisions": "share"})
    ids = tokenizer.fit(Embeddings(catalogue, vectors)).encode(Embeddings(catalogue, vectors))
    model = fitted(ids=ids)
    later = Embeddings(Catalogue([*catalogue.item_ids, "like item-3"]), np.concatenate([vectors, vectors[3:4]]))
    larger = model.with_items(semantic_ids=tokenizer.encode(later))
    history = ["item-12", "item-19", "item-26"]  # item-3 is next
    assert model.recommend([history], k=1).ids() == [["item-3"]]
    answer = larger.recommend([history], k=2)
    assert set(answer.ids()[0]) == {"item-3", "like item-3"}
    assert answer.scores[0, 0] == answer.scores[0, 1]
    assert larger.train_counts[-1] == 0


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "message"), [
    ({"width": 15}, "width 15 cannot be shared by 2 heads"),
    ({"corruption": 1.5}, "corruption is 1.5. Use a share"),
    ({"corruption": 0.5}, "semi-synthetic negatives belong to loss = in-batch, not softmax"),
    ({"alignment_rate": 0.0}, "alignment_rate is 0.0"),
    ({"alignment_noise": -1.0}, "alignment_noise is -1.0"),
    ({"alignment_epochs": 0}, "alignment_epochs is 0. Use 1 or more, or alignment = none"),
    ({"sinkhorn_passes": 3}, "sinkhorn_passes is 3. Use 20 or more"),
])  # fmt: skip
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(ConfigError, match=message):
        VQRecConfig(**settings)


@pytest.mark.parametrize("settings", [{"alignment": "learned"}, {"alignment": "reference"}, {"tuned": "codes"},
                                      {"tuned": "nothing"}])  # fmt: skip
def test_fine_tuning_without_a_model_to_start_from_is_refused(settings):
    with pytest.raises(ConfigError, match=r"pretrained is not set. Name its run: --set recommender.pretrained=RUN"):
        fitted(replace(SMALL, **settings))


def test_a_model_over_other_codes_is_refused(pretrained, tmp_path):
    config = replace(SMALL, pretrained=str(pretrained))
    rows = np.arange(N_ITEMS)
    other = SemanticIds(SPLIT.dataset.catalogue, np.stack([rows % 5, rows // 5], axis=1), (5, 6))
    with pytest.raises(ArtifactError, match=r"reads codes of the sizes 6 x 8, these items have 5, 6. Give the token"):
        fitted(config, ids=other)
    with pytest.raises(ArtifactError, match=r"has another network: .* Train both with the same"):
        fitted(replace(config, width=24))
    with pytest.raises(ArtifactError):
        fitted(replace(config, pretrained=str(tmp_path / "nowhere")))


def test_new_codes_of_another_tokenizer_are_refused():
    model = fitted(training=replace(BRIEF, epochs=1))
    with pytest.raises(DataError, match="30 of 30 items that this model knows have other codes now"):
        model.with_items(semantic_ids=codes_of(SPLIT, seed=7))
    rows = np.arange(N_ITEMS)
    with pytest.raises(DataError, match=r"'semantic_ids': \[5, 6\].*, those of the training .*8, 8"):
        model.with_items(
            semantic_ids=SemanticIds(SPLIT.dataset.catalogue, np.stack([rows % 5, rows // 5], axis=1), (5, 6))
        )


def test_a_domain_of_fewer_items_than_centroids_is_refused():
    vectors = np.random.default_rng(1).normal(size=(N_ITEMS, 64)).astype(np.float32)
    tokenizer = make_tokenizer("opq", {"n_levels": 32, "codebook_size": 256, "collisions": "share"})
    with pytest.raises(DataError, match=r"30 items cannot fill a codebook of 256 codewords. Set codebook_size to 30"):
        tokenizer.fit(Embeddings(SPLIT.dataset.catalogue, vectors))


def test_published_codes_are_read_and_items_without_one_share_a_reserved_code(tmp_path):
    codes = IDS.codes.copy()
    codes[[4, 9]] = -1
    np.save(tmp_path / "codes.npy", codes.astype(np.int16))
    with pytest.raises(DataError, match="no code for 2 of 30 items"):
        read_semantic_ids(tmp_path / "codes.npy", SPLIT.dataset.catalogue)
    ids = read_semantic_ids(tmp_path / "codes.npy", SPLIT.dataset.catalogue, uncoded="reserve")
    assert ids.codebook_sizes == (9,) * 6
    model = fitted(ids=ids)
    scores = model.score(SPLIT.test.histories)
    assert (scores[:, 4] == scores[:, 9]).all()
    ranks = model.rank(SPLIT.test)
    without = np.isin(SPLIT.test.targets, [4, 9])
    assert without.any()
    assert (ranks.tied[without] == 2).all()  # metrics take the expectation over both orders
    assert (ranks.tied[~without] == 1).all()
