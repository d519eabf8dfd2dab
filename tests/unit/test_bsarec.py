"""BSARec: its filter, what a state depends on, what its rows are, and that it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tesserec.data.sequences import Sequences
from tesserec.errors import ConfigError, DataError
from tesserec.networks.transformer import Block, SequenceSettings, pack
from tesserec.recommenders.bsarec import (
    EMPTY,
    BSALayer,
    BSARec,
    BSARecConfig,
    BSARecNetwork,
    PrefixRows,
    low_pass,
    visible_slots,
)
from tesserec.training.config import TrainingConfig
from tesserec.training.seeds import seeded
from toy_circles import N_ITEMS, circles

SMALL = BSARecConfig(width=8, n_layers=2, n_heads=2, dropout=0.0, max_length=10, cutoff=3)
BRIEF = TrainingConfig(device="cpu", precision="fp32", epochs=16, batch_size=64, learning_rate=0.01, seed=1)


def strong(module: torch.nn.Module) -> torch.nn.Module:
    """The module with weights far from their small start, so that differences would show."""
    with seeded(0):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    return module.eval()


def table(*histories: list[int], length: int = SMALL.max_length) -> torch.Tensor:
    return torch.from_numpy(Sequences.from_lists(histories).padded(length, pad=EMPTY))


def state(network: BSARecNetwork, *histories: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return network(table(*histories))[0]


@pytest.mark.parametrize(("n_slots", "cutoff"), [(50, 5), (10, 3), (9, 9), (10, 1), (7, 5)])
def test_the_filter_keeps_the_lowest_frequencies_of_the_spectrum(n_slots, cutoff):
    signal = np.random.default_rng(0).normal(size=(n_slots, 3))
    spectrum = np.fft.fft(signal, axis=0)
    spectrum[np.abs(np.fft.fftfreq(n_slots, 1 / n_slots)) > (cutoff - 1) / 2 + 0.5] = 0
    wanted = np.fft.ifft(spectrum, axis=0)
    assert np.abs(wanted.imag).max() < 1e-12
    matrix = low_pass(n_slots, cutoff)
    assert matrix.dtype == torch.float64
    assert np.abs(matrix.numpy() @ signal - wanted.real).max() < 1e-12
    assert int(torch.linalg.matrix_rank(matrix)) == cutoff


def test_the_last_slot_gives_itself_a_tenth_and_its_circular_neighbours_nearly_as_much():
    last = low_pass(50, 5)[-1]
    assert last[[-1, 0, 1, 2]].tolist() == pytest.approx([0.100, 0.098, 0.094, 0.086], abs=6e-4)


def test_low_and_high_frequencies_add_up_so_that_beta_one_leaves_the_signal_as_it_is():
    layer = strong(BSALayer(replace(SMALL, alpha=1.0)))
    with torch.no_grad():
        layer.beta.fill_(1.0)
        for parameter in layer.feed_forward.parameters():
            parameter.zero_()
        x = torch.randn(3, 10, 8, generator=torch.Generator().manual_seed(0))
        found = layer(x, visible_slots(torch.ones(3, 10, dtype=torch.bool)), slice(None))
        assert_close(found, layer.feed_forward_norm(layer.filter_norm(2 * x)), rtol=0, atol=1e-5)
        layer.beta.zero_()  # and zero leaves the low ones alone
        found = layer(x, visible_slots(torch.ones(3, 10, dtype=torch.bool)), slice(None))
        low = torch.from_numpy(low_pass(10, 3).numpy()).float() @ x
        assert_close(found, layer.feed_forward_norm(layer.filter_norm(x + low)), rtol=0, atol=1e-5)


def test_without_the_filter_a_layer_is_that_of_a_post_norm_sasrec():
    layer = strong(BSALayer(replace(SMALL, alpha=0.0)))
    block = Block(8, SequenceSettings(n_heads=2, norm="post", dropout=0.0)).eval()
    block.attention.qkv.load_state_dict({
        name: torch.cat([getattr(layer.attention.q, name), getattr(layer.attention.kv, name)])
        for name in ("weight", "bias")
    })  # fmt: skip
    block.attention.out.load_state_dict(layer.attention.out.state_dict())
    block.attention_norm.load_state_dict(layer.attention_norm.state_dict())
    block.feed_forward.load_state_dict(layer.feed_forward.state_dict())
    block.feed_forward_norm.load_state_dict(layer.feed_forward_norm.state_dict())
    packed = pack(Sequences.from_lists([list(range(10))] * 2))
    x = torch.randn(len(packed.items), 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = layer(x[:20].view(2, 10, 8), visible_slots(torch.ones(2, 10, dtype=torch.bool)), slice(None))
        assert_close(found.view(20, 8), block(x, packed.slots, packed.shape)[:20], rtol=0, atol=1e-5)


def norm(x: np.ndarray, module: torch.nn.LayerNorm) -> np.ndarray:
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + module.eps)
    return scaled * module.weight.double().numpy() + module.bias.double().numpy()


def linear(x: np.ndarray, module: torch.nn.Linear) -> np.ndarray:
    return x @ module.weight.double().numpy().T + module.bias.double().numpy()


def by_hand(network: BSARecNetwork, history: list[int], config: BSARecConfig) -> np.ndarray:
    """(T, D) the states of all slots in float64, one slot and one head at a time."""
    length, n_empty = config.max_length, config.max_length - len(history)
    x = network.positions.double().numpy().copy()
    x[n_empty:] += network.items.weight.double().numpy()[history]
    x = norm(x, network.input_norm)
    for layer in network.layers:
        waves = [
            sum(
                (1 if k == 0 else 2) * np.cos(2 * np.pi * k * (t - s) / length) / length * x[s]
                for k in range((config.cutoff + 1) // 2)
                for s in range(length)
            )
            for t in range(length)
        ]
        low = np.stack(waves)
        filtered = low + layer.beta.double().numpy() ** 2 * (x - low)
        q, (k, v) = linear(x, layer.attention.q), np.split(linear(x, layer.attention.kv), 2, axis=1)
        size = config.width // config.n_heads
        found = np.zeros_like(x)
        for t in range(length):
            seen = [s for s in range(t + 1) if s >= n_empty or s == t]
            for head in range(config.n_heads):
                part = slice(head * size, (head + 1) * size)
                weights = np.exp([q[t, part] @ k[s, part] / np.sqrt(size) for s in seen])
                found[t, part] = weights / weights.sum() @ v[seen, part]
        attended = linear(found, layer.attention.out)
        mixed = config.alpha * norm(x + filtered, layer.filter_norm)
        mixed += (1 - config.alpha) * norm(x + attended, layer.attention_norm)
        wide = linear(mixed, layer.feed_forward[0])
        wide = torch.nn.functional.gelu(torch.from_numpy(wide)).numpy()
        x = norm(mixed + linear(wide, layer.feed_forward[2]), layer.feed_forward_norm)
    return x


@pytest.mark.parametrize("history", [[3, 1, 4], [5], list(range(10))])
def test_states_are_those_of_the_formulas(history):
    network = strong(BSARecNetwork(N_ITEMS, SMALL))
    with torch.no_grad():
        wanted = by_hand(network, history, SMALL)
        every = network.states(table(history), slice(None))[0]
    assert np.abs(every.double().numpy() - wanted).max() < 2e-5
    assert np.abs(state(network, history)[0].double().numpy() - wanted[-1]).max() < 2e-5  # the last slot alone


@pytest.mark.parametrize(("alpha", "is_causal"), [(0.7, False), (1.0, False), (0.0, True)])
def test_a_later_item_changes_earlier_states_through_the_filter_alone(alpha, is_causal):
    config = replace(SMALL, alpha=alpha)
    network = strong(BSARecNetwork(N_ITEMS, config))
    with torch.no_grad():
        one, other = network.states(table([3, 1, 4, 1, 5], [3, 1, 4, 1, 9]), slice(None))
    assert torch.allclose(one[:-1], other[:-1], rtol=0, atol=1e-6) is is_causal
    assert torch.allclose(one[:5], other[:5], rtol=0, atol=1e-3) is is_causal  # empty slots, too
    assert not torch.allclose(one[-1], other[-1], atol=1e-3)


def test_the_empty_slots_of_a_short_history_are_part_of_its_state():
    network = strong(BSARecNetwork(N_ITEMS, SMALL))
    short, long = state(network, [3, 1]), state(network, list(range(10)))
    with torch.no_grad():
        network.positions[0, 0] += 1.0
    assert not torch.allclose(state(network, [3, 1]), short, atol=1e-3)
    network = strong(BSARecNetwork(N_ITEMS, SMALL))
    wider = BSARecNetwork(N_ITEMS, replace(SMALL, max_length=12)).eval()
    with torch.no_grad():
        wider.load_state_dict({**network.state_dict(), "positions": torch.cat([torch.zeros(2, 8), network.positions])})
        other = wider(table([3, 1], list(range(10)), length=12))[0]
    assert not torch.allclose(other[:1], short, atol=1e-3)
    assert not torch.allclose(other[1:], long, atol=1e-3)


def test_slots_look_at_items_before_them_and_at_themselves():
    (visible,) = visible_slots(torch.tensor([[False, False, True, True]]))
    assert visible[0].int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


def test_an_epoch_has_a_row_of_the_items_before_every_target():
    train = Sequences.from_lists([list(range(14)), [5, 6], [1], [9, 8, 7]])
    objective = PrefixRows(train, SMALL, replace(BRIEF, batch_size=4, tokens_per_part=20))
    steps = [objective.steps(0)[index] for index in range(objective.n_steps(0))]
    assert [step.n_targets for step in steps] == [4, 4, 4, 4]
    found = [
        ([item for item in row if item != EMPTY], target)
        for part in (part for step in steps for part in step.parts)
        for row, target in zip(part.table.tolist(), part.targets.tolist(), strict=True)
    ]
    assert max(len(part.table) for step in steps for part in step.parts) == 2
    wanted = [(list(range(max(0, target - 10), target)), target) for target in range(1, 14)]
    assert sorted(found) == sorted([*wanted, ([5], 6), ([9], 8), ([9, 8], 7)])
    assert [row.tolist() for row in objective.steps(0)[0].parts[0].table] == [
        row.tolist() for row in steps[0].parts[0].table
    ]
    assert np.array_equal(objective.events.sort().values, np.sort(train.values))


@pytest.mark.parametrize("loss", ["softmax", "sampled-softmax", "gbce"])
def test_it_finds_the_planted_next_item(loss):
    cut = circles()
    settings = BSARecConfig(width=16, n_layers=2, dropout=0.0, max_length=12, loss=loss, n_negatives=16)
    model = BSARec(settings, BRIEF).fit(cut)
    assert (model.rank(cut.test).ahead == 0).mean() > 0.95
    assert model.log.rows[-1]["loss"] < model.log.rows[0]["loss"]


def test_answers_read_the_latest_items_and_an_empty_history_ties_all():
    model = BSARec(SMALL, replace(BRIEF, epochs=1)).fit(circles(20))
    scores = model.score(Sequences.from_lists([list(range(15)), list(range(5, 15)), []]))
    assert np.allclose(scores[0], scores[1], atol=1e-6)
    assert (scores[2] == 0).all()


def test_users_without_a_transition_are_an_error():
    cut = circles(3)
    train = Sequences(cut.train.values, cut.train.starts, cut.train.starts + 1)
    with pytest.raises(DataError, match="No user of the training part has two events"):
        BSARec(SMALL, BRIEF).fit(replace(cut, train=train))


@pytest.mark.parametrize(("settings", "message"), [
    ({"alpha": 1.5}, "alpha is 1.5. Use a share"),
    ({"cutoff": 4}, "cutoff is 4 for max_length = 50. Use an odd number"),
    ({"cutoff": 51}, "cutoff is 51"),
    ({"cutoff": -1}, "cutoff is -1"),
    ({"width": 10, "n_heads": 3}, "width 10 cannot be shared by 3 heads"),
])  # fmt: skip
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(ConfigError, match=message):
        BSARecConfig(**settings)
