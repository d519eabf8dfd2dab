"""BERT4Rec: what is hidden in training, what is asked in answering, and that it learns."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch.testing import assert_close

from tesserec.data import Dataset
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split, leave_one_out
from tesserec.errors import ConfigError, DataError
from tesserec.functional.losses import softmax_cross_entropy
from tesserec.networks.transformer import pack
from tesserec.recommenders.bert4rec import BERT4Rec, BERT4RecConfig, BERT4RecNetwork, Cloze
from tesserec.recommenders.cloze import masked_places
from tesserec.training.config import TrainingConfig
from tesserec.training.seeds import seeded

N_ITEMS = 30
MASK = N_ITEMS
SMALL = BERT4RecConfig(width=16, n_layers=2, n_heads=2, dropout=0.0, max_length=12)
BRIEF = TrainingConfig(
    device="cpu", precision="fp32", epochs=50, batch_size=32, learning_rate=0.01, validate_every=10, seed=1
)


def circles(n_users: int = 120, step: int = 7) -> Split:
    """Every item is followed by the one `step` places on."""
    random = np.random.default_rng(0)
    rows = [(random.integers(N_ITEMS) + step * np.arange(random.integers(4, 20))) % N_ITEMS for _ in range(n_users)]
    items = pl.DataFrame({"item_id": [f"item-{row}" for row in range(N_ITEMS)]})
    return leave_one_out(Dataset(items, tuple(f"user-{row}" for row in range(n_users)), Sequences.from_lists(rows)))


@pytest.fixture
def model() -> BERT4Rec:
    """Not trained, and far from its small start, so that differences would show."""
    made = BERT4Rec(SMALL, replace(BRIEF, epochs=1)).fit(circles(20))
    with seeded(0):
        for parameter in made._fitted_network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def test_a_state_depends_on_both_sides_and_not_on_who_else_is_in_the_batch(model):
    network = model._fitted_network
    rows = [[3, MASK, 4], [3, MASK, 5, 6, 7], [MASK, 8], [9, 9, 9, MASK]]
    with torch.no_grad():
        together, _ = network(pack(Sequences.from_lists(rows)))
        alone = [network(pack(Sequences.from_lists([row])))[0][: len(row)] for row in rows]
    assert_close(together[: sum(map(len, rows))], torch.cat(alone), rtol=0, atol=1e-5)
    assert not torch.allclose(alone[0][1], alone[1][1], atol=1e-3)


def test_the_share_of_hidden_items_is_the_mask_ratio_and_every_sequence_has_one():
    random = np.random.default_rng(0)
    long = Sequences.from_offsets(np.zeros(100_000, dtype=np.int32), np.arange(0, 100_001, 50))
    assert masked_places(long, 0.2, random).mean() == pytest.approx(0.2, rel=0.01)
    short = Sequences.from_lists([[1, 2], [3], [4, 5, 6]] * 200)
    hidden = masked_places(short, 0.05, random)
    assert (np.add.reduceat(hidden, short.starts) >= 1).all()


def test_an_epoch_hides_anew_and_its_targets_are_what_was_hidden():
    train = Sequences.from_lists([list(range(10)), [5, 6], [1], [9, 8, 7, 6, 5]])
    objective = Cloze(train, N_ITEMS, replace(SMALL, last_only=0.0), replace(BRIEF, batch_size=8))
    drawn = []
    for epoch in (0, 0, 1):
        (part,) = objective.steps(epoch)[0].parts
        found = part.inputs.items.clone()
        found[part.places] = part.targets
        rows = Sequences.from_lists([row for row in train if len(row) > 1])
        assert sorted(found[: len(rows.flat()[0])].tolist()) == sorted(rows.flat()[0].tolist())
        assert (part.inputs.items == MASK).sum() == len(part.places) == objective.steps(epoch)[0].n_targets
        drawn.append(part.inputs.items.tolist())
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("prefixes", [False, True])
def test_some_sequences_have_only_their_last_item_hidden(prefixes):
    train = Sequences.from_lists([list(range(10))] * 300)
    objective = Cloze(train, N_ITEMS, replace(SMALL, last_only=1.0, prefixes=prefixes), replace(BRIEF, batch_size=300))
    step = objective.steps(0)[0]
    targets = np.concatenate([part.targets.numpy() for part in step.parts])
    assert step.n_targets == len(targets) == 300
    assert set(targets.tolist()) == (set(range(1, 10)) if prefixes else {9})
    for part in step.parts:
        assert (part.inputs.items[part.places - 1] == part.targets - 1).all()


def test_the_output_bias_is_a_dimension_of_states_and_items():
    with seeded(0):
        network = BERT4RecNetwork(N_ITEMS, SMALL).eval()
        torch.nn.init.normal_(network.bias)
    queries, vectors = network(pack(Sequences.from_lists([[1, MASK, 3]])), torch.tensor([1]))
    guess = queries[:, :-1]
    wanted = torch.nn.functional.cross_entropy(guess @ network.items.weight.T + network.bias, torch.tensor([4]))
    assert_close(softmax_cross_entropy(queries, vectors, torch.tensor([4])), wanted)


def test_answering_asks_for_a_mask_behind_the_latest_items(model):
    histories = Sequences.from_lists([[1, 2], [], list(range(15))])
    assert [row.tolist() for row in model._inputs(histories)] == [[1, 2, MASK], [MASK], [*range(4, 15), MASK]]


def test_mask_is_never_recommended(model):
    with torch.no_grad():
        model._fitted_network.mask.fill_(100.0)
    answer = model.recommend([["item-1", "item-2"]], k=N_ITEMS + 5)
    assert sorted(answer.items[0, :N_ITEMS].tolist()) == list(range(N_ITEMS))
    assert answer.items[0, N_ITEMS:].tolist() == [-1] * 5
    assert model.score(Sequences.from_lists([[1]])).shape == (1, N_ITEMS)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_it_finds_the_planted_next_item(norm):
    cut = circles(300)
    model = BERT4Rec(replace(SMALL, norm=norm), BRIEF).fit(cut)
    assert (model.rank(cut.test).ahead == 0).mean() > 0.4  # chance: 0.03; seeds differ from 0.5 to 0.95
    assert model.log.rows[-1]["loss"] < model.log.rows[0]["loss"]


def test_a_training_that_goes_on_ends_with_the_same_weights(tmp_path):
    cut, brief = circles(30), replace(BRIEF, epochs=4, validate_every=1)
    settings = replace(SMALL, dropout=0.2)
    whole = BERT4Rec(settings, brief).fit(cut).score(cut.test.histories)
    interrupted = BERT4Rec(settings, brief)
    calls = []

    def broken(histories: Sequences) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return BERT4Rec.score(interrupted, histories)

    interrupted.score = broken
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(cut, checkpoints=tmp_path)
    resumed = BERT4Rec(settings, brief).fit(cut, checkpoints=tmp_path)
    assert np.array_equal(resumed.score(cut.test.histories), whole)
    assert [row["epoch"] for row in resumed.log.rows] == [1, 2, 3, 4]


def test_users_without_two_items_are_an_error():
    items = pl.DataFrame({"item_id": ["a", "b", "c"]})
    cut = leave_one_out(Dataset(items, ("u",), Sequences.from_lists([[0, 1, 2]])))
    with pytest.raises(DataError, match="No user of the training part has two events"):
        BERT4Rec(SMALL, BRIEF).fit(cut)


@pytest.mark.parametrize(("settings", "message"), [
    ({"mask_ratio": 0.0}, "mask_ratio is 0.0"),
    ({"last_only": 1.5}, "last_only is 1.5. Use a share"),
    ({"max_length": 1}, "max_length is 1. Use 2 or more: a hidden item"),
    ({"width": 10, "n_heads": 3}, "width 10 cannot be shared by 3 heads"),
])  # fmt: skip
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(ConfigError, match=message):
        BERT4RecConfig(**settings)
