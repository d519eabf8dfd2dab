"""S3-Rec: its four tasks, what passes from pre-training to fine-tuning, and that it learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.testing import assert_close

from tesserec.data import Dataset
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split, leave_one_out
from tesserec.errors import ConfigError, DataError
from tesserec.recommenders.s3rec import PretextNetwork, Pretraining, S3Rec, S3RecConfig, information, item_attributes
from tesserec.recommenders.sasrec import SASRec, SASRecConfig
from tesserec.training.config import TrainingConfig
from tesserec.training.seeds import seeded

N_ITEMS = 30
MASK = N_ITEMS
SMALL = S3RecConfig(
    width=16,
    n_layers=1,
    n_heads=2,
    dropout=0.0,
    max_length=12,
    pretrain_epochs=2,
    attributes="columns",
    columns=("kind",),
)
BRIEF = TrainingConfig(device="cpu", precision="fp32", epochs=2, batch_size=32, learning_rate=0.01, seed=1)


def circles(n_users: int = 60) -> Split:
    """Every item is followed by the one 7 places on; its kind is the remainder by 5, that of multiples of 6 unknown."""
    random = np.random.default_rng(0)
    rows = [(random.integers(N_ITEMS) + 7 * np.arange(random.integers(4, 20))) % N_ITEMS for _ in range(n_users)]
    kinds = [f"kind {row % 5}" if row % 6 else None for row in range(N_ITEMS)]
    items = pl.DataFrame({"item_id": [f"item-{row}" for row in range(N_ITEMS)], "kind": kinds})
    return leave_one_out(Dataset(items, tuple(f"user-{row}" for row in range(n_users)), Sequences.from_lists(rows)))


def pretraining(split: Split, config: S3RecConfig = SMALL) -> tuple[PretextNetwork, Pretraining]:
    attributes = item_attributes(split, config) if config.reads_attributes else None
    with seeded(0):
        network = PretextNetwork(split.n_items, len(attributes.names) if attributes else 0, config)
    return network, Pretraining(split.train, split.n_items, attributes, config, replace(BRIEF, batch_size=200))


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_without_pretraining_it_is_sasrec_bit_for_bit(loss):
    cut = circles()
    shared = {"width": 16, "n_layers": 1, "n_heads": 2, "dropout": 0.1, "max_length": 12, "loss": loss}
    alone = SASRec(SASRecConfig(**shared), BRIEF).fit(cut)
    model = S3Rec(S3RecConfig(**shared, pretrain_epochs=0), BRIEF).fit(cut)
    assert np.array_equal(model.score(cut.test.histories), alone.score(cut.test.histories))
    assert not model.pretraining_log.rows


def test_pretraining_changes_what_fine_tuning_starts_from_and_its_loss_falls():
    cut = circles()
    scratch = S3Rec(replace(SMALL, pretrain_epochs=0), BRIEF).fit(cut)
    model = S3Rec(replace(SMALL, pretrain_epochs=30), BRIEF).fit(cut)
    assert model.log.rows[0]["loss"] < scratch.log.rows[0]["loss"]
    assert model.pretraining_log.rows[-1]["validation"] > model.pretraining_log.rows[0]["validation"]
    assert model.sources["attributes"]


def test_last_items_are_hidden_and_attributes_asked_where_they_are_known():
    _, objective = pretraining(circles(), replace(SMALL, prefixes=False))
    step = objective.steps(0)[0]
    assert step.n_targets == int(objective.sequences.lengths.sum())
    for part in step.parts:
        items = part.inputs.items.clone()
        assert (items[part.hidden] == MASK).all()
        items[part.hidden] = part.targets
        n = int(part.ends[1, 0] - part.ends[0, 0])  # tokens of one form
        assert set((part.ends[0] - n).tolist()) <= set(part.hidden.tolist())  # the last one of each sequence
        for known in (part.aap, part.map):
            of_pairs = items[known.places[known.rows]].tolist()
            names = [objective.attributes.names[label] for label in known.labels.tolist()]
            assert names == [f"kind: kind {row % 5}" for row in of_pairs]
            assert len(known.places) == len(known.rows)  # one kind each, and none where it is not known
            assert not (items[known.places] % 6 == 0).any()
        assert not set(part.aap.places.tolist()) & set(part.hidden.tolist())
        assert set(part.map.places.tolist()) <= set(part.hidden.tolist())


def test_stretches_hide_a_part_or_all_but_it_and_the_wrong_one_is_of_the_training_part():
    rows = [list(range(row, row + 8)) for row in range(20)]
    train = Sequences.from_lists(rows)
    objective = Pretraining(train, N_ITEMS, None, replace(SMALL, aap=0.0, map=0.0), BRIEF)
    context, right, wrong = objective.stretches(train, np.random.default_rng(0))
    for original, *forms in zip(rows, context, right, wrong, strict=True):
        outside, inside, other = (form.tolist() for form in forms)
        assert 1 <= outside.count(MASK) <= 4
        assert [b if a == MASK else a for a, b in zip(outside, inside, strict=True)] == original
        assert [row == MASK for row in other] == [row == MASK for row in inside]
        stretch = [row for row in other if row != MASK]
        assert (np.diff(stretch) == 1).all()  # of one user: never across two


@pytest.mark.parametrize("task", ["aap", "mip", "map", "sp"])
def test_the_loss_of_each_task_is_that_of_its_formula(task):
    weights = dict.fromkeys(("aap", "mip", "map", "sp"), 0.0) | {task: 0.7}
    network, objective = pretraining(circles(), replace(SMALL, **weights))
    with seeded(0):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)  # so that differences show
    part = objective.steps(0)[0].parts[0]
    negatives = (part.targets + 5) % network.items.num_embeddings
    with torch.no_grad():
        found = network.eval()(part.inputs, part, negatives).item()
        states = network(part.inputs)[0].double()
        asked, items = states @ network.tasks[task].weight.double().T, network.items.weight.double()
    total = 0.0
    if task == "mip":
        for place, item, other in zip(part.hidden, part.targets, negatives, strict=True):
            total -= float((asked[place] @ items[item] - asked[place] @ items[other]).sigmoid().log())
    elif task == "sp":
        for context, right, wrong in part.ends.T:
            total -= float((asked[context] @ states[right] - asked[context] @ states[wrong]).sigmoid().log())
    else:
        known = getattr(part, task)
        for row, place in enumerate(known.places):
            probability = (network.attributes.weight.double() @ asked[place]).sigmoid().detach()
            applies = torch.zeros(len(probability), dtype=torch.bool)
            applies[known.labels[known.rows == row]] = True
            total -= float(torch.where(applies, probability, 1 - probability).log().sum())
    assert total > 1
    assert found == pytest.approx(0.7 * total, rel=1e-3)


def test_a_task_of_weight_zero_has_no_weights_and_the_others_have_gradients():
    cut = circles()
    for left_out in ("aap", "mip", "map", "sp"):
        network, objective = pretraining(cut, replace(SMALL, **{left_out: 0.0}))
        assert set(network.tasks) == {"aap", "mip", "map", "sp"} - {left_out}
        for part in objective.steps(0)[0].parts:
            objective.loss(network, part, torch.device("cpu")).backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in network.tasks.parameters())
    network, objective = pretraining(cut, replace(SMALL, aap=0.0, map=0.0))
    assert network.attributes is None
    assert objective.attributes is None


def test_validation_and_test_items_are_not_pretrained_on():
    cut = circles()
    hidden = Split(cut.name, cut.dataset, cut.train, cut.validation.take(np.arange(3)), cut.test.take(np.arange(3)))
    drawn = [pretraining(split)[1].steps(0)[0] for split in (cut, hidden)]
    for one, other in zip(*(step.parts for step in drawn), strict=True):
        assert torch.equal(one.inputs.items, other.inputs.items)
    _, objective = pretraining(cut)
    assert len(objective.pool) == int(cut.train.lengths.sum())


def test_twice_the_logistic_function_has_a_floor():
    far, near = torch.tensor([40.0]), torch.tensor([-40.0])
    assert information(far, near, twice=False).item() == pytest.approx(0, abs=1e-6)
    assert information(far, near, twice=True).item() == pytest.approx(0.3133, abs=1e-4)


def test_the_loss_of_a_part_does_not_depend_on_how_it_is_cut():
    cut = circles()
    network, objective = pretraining(cut)
    _, fine = pretraining(cut)
    fine.training = replace(objective.training, tokens_per_part=64)
    network = network.eval()
    totals = []
    for each in (objective, fine):
        parts = each.steps(0)[0].parts
        totals.append(sum(network(part.inputs, part, part.targets * 0) for part in parts).item())
    assert len(fine.steps(0)[0].parts) > len(objective.steps(0)[0].parts)
    assert totals[0] == pytest.approx(totals[1], rel=1e-4)


@pytest.mark.parametrize("stage", ["pretraining", "fine-tuning"])
def test_a_training_that_goes_on_ends_with_the_same_weights(stage, tmp_path, monkeypatch):
    cut, settings = circles(30), replace(SMALL, dropout=0.2, pretrain_epochs=3)
    brief = replace(BRIEF, epochs=3)
    whole = S3Rec(settings, brief).fit(cut).score(cut.test.histories)
    owner, name = (Pretraining, "fixed_loss") if stage == "pretraining" else (S3Rec, "rank")
    original, calls = getattr(owner, name), []

    def broken(self: object, *arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        with pytest.raises(KeyboardInterrupt):
            S3Rec(settings, brief).fit(cut, checkpoints=tmp_path)
    assert (tmp_path / "pretraining").is_dir()
    resumed = S3Rec(settings, brief).fit(cut, checkpoints=tmp_path)
    assert np.array_equal(resumed.score(cut.test.histories), whole)
    assert [row["epoch"] for row in resumed.pretraining_log.rows] == [1, 2, 3]


def test_a_saved_model_remembers_its_pretraining(tmp_path):
    model = S3Rec(SMALL, BRIEF).fit(circles(30))
    model.save(tmp_path / "model")
    loaded = S3Rec.load(tmp_path / "model")
    assert loaded.pretraining_log == model.pretraining_log
    assert loaded.sources == model.sources


def test_it_finds_the_planted_next_item():
    cut = circles(120)
    model = S3Rec(replace(SMALL, pretrain_epochs=5), replace(BRIEF, epochs=30)).fit(cut)
    assert (model.rank(cut.test).ahead == 0).mean() > 0.95


def test_sparse_labels_are_the_dense_binary_cross_entropy():
    from tesserec.functional.losses import labels_cross_entropy

    random = torch.Generator().manual_seed(0)
    states, vectors = torch.randn(5, 4, generator=random), torch.randn(7, 4, generator=random)
    dense = (torch.rand(5, 7, generator=random) < 0.3).float()
    rows, labels = dense.nonzero(as_tuple=True)
    logits = states @ vectors.T
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, dense, reduction="sum")
    assert_close(labels_cross_entropy(states, vectors, rows, labels), wanted)


def test_items_without_attributes_are_an_error_only_where_they_are_read(tmp_path: Path):
    cut = circles(20)
    bare = leave_one_out(Dataset(cut.dataset.items[["item_id"]], cut.dataset.user_ids, cut.dataset.sequences))
    with pytest.raises(ConfigError, match="The items have no text"):
        S3Rec(replace(SMALL, attributes="words", columns=()), BRIEF).fit(bare)
    with pytest.raises(ConfigError, match="no column 'kind'"):
        S3Rec(SMALL, BRIEF).fit(bare)
    S3Rec(replace(SMALL, aap=0.0, map=0.0), BRIEF).fit(bare)
    lonely = cut.dataset.items.with_columns(kind=pl.col("item_id"))
    with pytest.raises(DataError, match="no attribute in the column"):
        S3Rec(SMALL, BRIEF).fit(leave_one_out(Dataset(lonely, cut.dataset.user_ids, cut.dataset.sequences)))


@pytest.mark.parametrize(("settings", "message"), [
    ({"sp": -1.0}, "sp is -1.0. Use 0 or more"),
    ({"n_attributes": 0}, "n_attributes is 0. Use a value above 0"),
    ({"mask_ratio": 1.0}, "mask_ratio is 1.0"),
    ({"aap": 0, "mip": 0, "map": 0, "sp": 0}, "All tasks of pre-training have weight 0"),
    ({"attributes": "columns"}, "attributes is 'columns' and columns are none"),
    ({"columns": ("brand",)}, "attributes is 'words' and columns are brand"),
    ({"max_length": 1}, "max_length is 1. Use 2 or more"),
])  # fmt: skip
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(ConfigError, match=message):
        S3RecConfig(**settings)
