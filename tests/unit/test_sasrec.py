"""SASRec: what a state may depend on, what is trained, and that it learns."""

import numpy as np
import polars as pl
import pytest
import torch
from torch.testing import assert_close

from tesserec.data import Dataset
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split, leave_one_out
from tesserec.errors import ArtifactError, ConfigError, DataError
from tesserec.networks.transformer import pack
from tesserec.recommenders.item_table import ItemTableNetwork, NextItem
from tesserec.recommenders.next_item import next_items
from tesserec.recommenders.sasrec import SASRec, SASRecConfig
from tesserec.training.config import TrainingConfig
from tesserec.training.seeds import seeded
from toy_circles import N_ITEMS, circles

SMALL = SASRecConfig(width=16, n_layers=2, n_heads=2, dropout=0.0, max_length=12)
BRIEF = TrainingConfig(device="cpu", precision="fp32", epochs=30, batch_size=32, learning_rate=0.01, seed=1)


def split(sequences: list[list[int]], n_items: int = N_ITEMS) -> Split:
    items = pl.DataFrame({"item_id": [f"item-{row}" for row in range(n_items)]})
    users = tuple(f"user-{row}" for row in range(len(sequences)))
    return leave_one_out(Dataset(items, users, Sequences.from_lists(sequences)))


@pytest.fixture
def network() -> ItemTableNetwork:
    with seeded(0):
        made = ItemTableNetwork(N_ITEMS, SMALL).eval()
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.3)  # far from its small start, so that differences would show
    return made


def states(network: ItemTableNetwork, rows: list[list[int]]) -> list[torch.Tensor]:
    """The states of each history, one after the other."""
    sequences = Sequences.from_lists(rows)
    with torch.no_grad():
        every, _ = network(pack(sequences))
    return list(every[: int(sequences.lengths.sum())].split(sequences.lengths.tolist()))


def test_one_pass_gives_the_states_of_all_prefixes(network):
    history = [3, 1, 4, 1, 5, 9, 2, 6]
    (once,) = states(network, [history])
    prefixes = states(network, [history[:n] for n in range(1, 9)])
    assert_close(once, torch.stack([each[-1] for each in prefixes]), rtol=0, atol=1e-5)


def test_later_items_do_not_change_earlier_states(network):
    (one,), (other,) = states(network, [[3, 1, 4, 1, 5]]), states(network, [[3, 1, 4, 8, 9]])
    assert_close(one[:3], other[:3], rtol=0, atol=1e-6)
    assert not torch.allclose(one[3:], other[3:], atol=1e-2)


def test_states_do_not_depend_on_who_else_is_in_the_batch_or_on_fillers(network):
    histories = [[3, 1, 4], list(range(12)), [7]]
    for alone, together in zip(histories, states(network, histories), strict=True):
        assert_close(states(network, [alone])[0], together, rtol=0, atol=1e-5)
    packed = pack(Sequences.from_lists(histories))
    altered = packed._replace(items=packed.items.clone())
    altered.items[16:] = 5
    with torch.no_grad():
        assert torch.equal(network(packed)[0][:16], network(altered)[0][:16])


def test_order_matters(network):
    (one,), (other,) = states(network, [[3, 1, 4]]), states(network, [[1, 3, 4]])
    assert not torch.allclose(one[-1], other[-1], atol=1e-2)


def test_targets_are_the_next_items():
    part = next_items(Sequences.from_lists([[5, 6, 7], [1, 2]]))
    assert part.inputs.items[:3].tolist() == [5, 6, 1]
    assert part.inputs.slots[:4].tolist() == [0, 1, 2, 4]  # the filler lies behind the table of two by two
    assert part.targets.tolist() == [6, 7, 2]


def test_an_epoch_trains_every_transition_once_and_differs_from_the_next():
    train = Sequences.from_lists([list(range(30)), [5, 6], [1], [9, 8, 7, 6, 5]])
    objective = NextItem(train, SMALL, TrainingConfig(batch_size=2, tokens_per_part=16))

    def pairs(epoch: int) -> list[tuple[int, int]]:
        steps = [objective.steps(epoch)[index] for index in range(objective.n_steps(epoch))]
        found = []
        for step in steps:
            assert step.n_targets == sum(len(part.targets) for part in step.parts)
            for part in step.parts:
                n = len(part.targets)
                found += list(zip(part.inputs.items[:n].tolist(), part.targets.tolist(), strict=True))
        return found

    wanted = [(item, item + 1) for item in range(29)] + [(5, 6), (9, 8), (8, 7), (7, 6), (6, 5)]
    assert sorted(pairs(0)) == sorted(wanted)
    assert pairs(0) == pairs(0)
    assert pairs(0) != pairs(1)


@pytest.mark.parametrize("loss", ["softmax", "sampled-softmax", "bce"])
def test_it_finds_the_planted_next_item(loss):
    cut = circles()
    settings = SASRecConfig(width=16, n_layers=1, dropout=0.0, max_length=12, loss=loss, n_negatives=16)
    model = SASRec(settings, BRIEF).fit(cut)
    ranks = model.rank(cut.test)
    assert (ranks.ahead == 0).mean() > 0.95
    assert model.log.rows[-1]["loss"] < model.log.rows[0]["loss"]


def test_one_seed_gives_one_model():
    cut = circles(30)
    brief = TrainingConfig(device="cpu", precision="fp32", epochs=2, batch_size=16, seed=5)
    settings = SASRecConfig(width=16, n_layers=1, n_heads=1)
    torch.rand(1)
    one = SASRec(settings, brief).fit(cut).score(cut.test.histories)
    torch.rand(2)
    assert np.array_equal(one, SASRec(settings, brief).fit(cut).score(cut.test.histories))


def test_users_without_a_transition_are_an_error():
    with pytest.raises(DataError, match="No user of the training part has two events"):
        SASRec(SMALL, BRIEF).fit(split([[1, 2, 3], [4, 5, 6]]))


@pytest.mark.parametrize(("settings", "message"), [
    ({"width": 10, "n_heads": 3}, "width 10 cannot be shared by 3 heads"),
    ({"n_layers": 0}, "n_layers is 0. Use 1 or more"),
    ({"dropout": 1.0}, "dropout is 1.0"),
])  # fmt: skip
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(ConfigError, match=message):
        SASRecConfig(**settings)


def test_an_unfitted_model_says_so():
    with pytest.raises(ConfigError, match="has not been fitted"):
        SASRec().recommend([["a"]])


def test_damaged_weights_are_an_error_with_a_remedy(tmp_path):
    SASRec(SMALL, TrainingConfig(device="cpu", precision="fp32", epochs=1)).fit(circles(20)).save(tmp_path / "model")
    weights = tmp_path / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"is damaged.*Make it again"):
        SASRec.load(tmp_path / "model")
