"""HSTU: its attention, what a state and the time bias may see, and that it learns."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch.testing import assert_close

from tesserec.data import Dataset
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Cases, Split, leave_one_out
from tesserec.errors import ConfigError, DataError
from tesserec.evaluation import compare_reports, evaluate
from tesserec.networks.transformer import pack
from tesserec.recommenders.hstu import (
    HSTU,
    N_BUCKETS,
    Clock,
    HSTUConfig,
    HSTUNetwork,
    TimedNextItem,
    clock_of,
    pointwise_attention,
    time_buckets,
)
from tesserec.training.config import TrainingConfig
from tesserec.training.seeds import seeded
from toy_circles import N_ITEMS, circles

SMALL = HSTUConfig(width=8, n_layers=2, n_heads=2, head_width=3, dropout=0.0, max_length=10)
BRIEF = TrainingConfig(device="cpu", precision="fp32", epochs=20, batch_size=32, learning_rate=0.01, seed=1)
DAY = 86400


def network(config: HSTUConfig = SMALL) -> HSTUNetwork:
    """Far from its small start, so that differences would show."""
    with seeded(0):
        made = HSTUNetwork(N_ITEMS, config).eval()
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    return made


def states(made: HSTUNetwork, history: list[int], at: list[int] | None = None, until: list[int] | None = None):
    """(n, D) of one history, with the times of its items and those that its rows count to."""
    packed = pack(Sequences.from_lists([history]))
    clock = None
    if at is not None and until is not None:
        fillers = [0] * (len(packed.items) - len(history))
        clock = Clock(torch.tensor([*at, *fillers]), torch.tensor([*until, *fillers]))
    with torch.no_grad():
        return made.states(packed, clock)[: len(history)]


def timed(rows: list[list[int]], times: list[list[int]]) -> Split:
    sequences = Sequences.from_lists(rows)
    every = np.concatenate([np.array(row, dtype=np.int64) for row in times])
    items = pl.DataFrame({"item_id": [f"item-{row}" for row in range(N_ITEMS)]})
    dated = Sequences(sequences.values, sequences.starts, sequences.stops, every)
    return leave_one_out(Dataset(items, tuple(f"user-{row}" for row in range(len(rows))), dated))


# -- the formulas ------------------------------------------------------------------------------------------------------


def test_buckets_are_equal_steps_of_the_logarithm():
    gaps = torch.tensor([0, 1, -1, 2, DAY, -DAY, 3652 * DAY, 10**18])
    assert time_buckets(gaps).tolist() == [0, 0, 0, 2, 37, 37, 65, N_BUCKETS - 1]


def test_weights_are_no_shares_and_twice_the_length_halves_them():
    random = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 2, 6, 3, generator=random) for _ in range(2))
    v = torch.ones(2, 2, 6, 1)
    bias = torch.randn(6, 6, generator=random)
    once, twice = pointwise_attention(q, k, v, bias, 10), pointwise_attention(q, k, v, bias, 20)
    assert_close(once, 2 * twice)
    assert once.std() > 0.01  # sums of weights; a softmax would give 1


def norm(x: np.ndarray, module: torch.nn.LayerNorm) -> np.ndarray:
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + module.eps)
    return scaled * module.weight.double().numpy() + module.bias.double().numpy()


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def by_hand(made: HSTUNetwork, history: list[int], config: HSTUConfig, at=None, until=None) -> np.ndarray:
    """(n, D) in float64, one pair of items and one head at a time."""
    n, size, inner = len(history), config.head_width, config.n_heads * config.head_width
    x = made.items.weight.double().numpy()[history] * np.sqrt(config.width)
    x = x + made.positions.weight.double().numpy()[:n]
    for layer in made.layers:
        u, v, q, k = np.split(silu(norm(x, layer.norm) @ layer.uvqk.weight.double().numpy().T), 4, axis=1)
        found = np.zeros((n, inner))
        for i in range(n):
            for j in range(i + 1):
                bias = float(layer.places[i - j])
                if at is not None:
                    bucket = min(int(np.log(max(abs(until[i] - at[j]), 1)) / 0.301), N_BUCKETS - 1)
                    bias += float(layer.gaps[bucket])
                for head in range(config.n_heads):
                    part = slice(head * size, (head + 1) * size)
                    found[i, part] += silu(q[i, part] @ k[j, part] + bias) / config.max_length * v[j, part]
        gated = u * norm(found, layer.value_norm)
        x = x + gated @ layer.out.weight.double().numpy().T + layer.out.bias.double().numpy()
    return x


@pytest.mark.parametrize("time", ["none", "history"])
def test_states_are_those_of_the_formulas(time):
    config = replace(SMALL, time=time)
    made, history = network(config), [3, 1, 4, 1, 5, 9]
    times = [0, 0, DAY, 40 * DAY, 40 * DAY + 5, 900 * DAY]
    clock = () if time == "none" else (times, times)
    with torch.no_grad():
        wanted = by_hand(made, history, config, *clock)
    found = states(made, history, *clock).double().numpy()
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_scores_are_cosines_over_the_temperature():
    made = network()
    packed = pack(Sequences.from_lists([[3, 1, 4]]))
    with torch.no_grad():
        queries, vectors = made(packed)
        state = made.states(packed, None)[2]
    cosines = torch.nn.functional.cosine_similarity(state[None], made.items.weight)
    assert_close(queries[2] @ vectors.T, cosines / 0.05, rtol=1e-5, atol=1e-5)


# -- what a state may see ----------------------------------------------------------------------------------------------


def test_later_items_do_not_change_earlier_states():
    made = network()
    one, other = states(made, [3, 1, 4, 1, 5]), states(made, [3, 1, 4, 8, 9])
    assert_close(one[:3], other[:3], rtol=0, atol=1e-6)
    assert not torch.allclose(one[3:], other[3:], atol=1e-2)


def test_one_pass_gives_the_states_of_all_prefixes_whatever_else_is_in_the_batch():
    made, history = network(), [3, 1, 4, 1, 5, 9, 2, 6]
    once = states(made, history)
    assert_close(once, torch.stack([states(made, history[:n])[-1] for n in range(1, 9)]), rtol=0, atol=1e-5)
    packed = pack(Sequences.from_lists([[7, 7], history, [1]]))
    with torch.no_grad():
        together = made.states(packed, None)
        altered = made.states(packed._replace(items=packed.items.index_fill(0, torch.tensor([11, 12]), 5)), None)
    assert_close(together[2:10], once, rtol=0, atol=1e-5)
    assert torch.equal(together[:11], altered[:11])  # fillers


def test_without_places_and_times_one_layer_sees_a_set_of_earlier_items():
    made = network(replace(SMALL, n_layers=1))
    with torch.no_grad():
        made.positions.weight.zero_()
        one, other = states(made, [3, 1, 4, 5]), states(made, [4, 3, 1, 5])
        assert not torch.allclose(one[-1], other[-1], atol=1e-3)  # p alone tells them apart: no times are needed
        made.layers[0].places.zero_()
    one, other = states(made, [3, 1, 4, 5]), states(made, [4, 3, 1, 5])
    assert_close(one[-1], other[-1], rtol=0, atol=1e-5)


def test_a_row_sees_the_moment_it_counts_to_and_no_later_one():
    made, history = network(replace(SMALL, time="request")), [3, 1, 4, 1]
    at = [0, DAY, 3 * DAY, 50 * DAY]
    until = [*at[1:], 60 * DAY]  # the next item's times
    first = states(made, history, at, until)
    for moved in range(4):  # the time of item `moved` is what row `moved - 1` counts to, and part of later gaps
        dates = [*at, 60 * DAY]
        dates[moved] = dates[moved] + 20 * DAY
        other = states(made, history, dates[:4], dates[1:])
        assert_close(other[: max(moved - 1, 0)], first[: max(moved - 1, 0)], rtol=0, atol=1e-6)
        if moved:
            assert not torch.allclose(other[moved - 1], first[moved - 1], atol=1e-4)


def test_a_shift_of_all_times_changes_nothing():
    made, history, at = network(replace(SMALL, time="history")), [3, 1, 4], [5, DAY, 9 * DAY]
    later = [time + 10**9 for time in at]
    assert torch.equal(states(made, history, at, at), states(made, history, later, later))


@pytest.mark.parametrize(("time", "until"), [("history", [0, 10, 100, 5]), ("request", [10, 100, 1000, 9])])
def test_training_rows_count_to_their_own_time_or_to_their_targets(time, until):
    train = Sequences.from_lists([[1, 2, 3, 4], [5, 6], [7]])
    train = Sequences(train.values, train.starts, train.stops, np.array([0, 10, 100, 1000, 5, 9, 77]))
    objective = TimedNextItem(train, replace(SMALL, time=time), replace(BRIEF, tokens_per_part=1))
    (parts,) = [objective.step(np.arange(2)).parts]
    clocks = sorted((part.part.inputs.items[0].item(), part) for part in parts)
    at = torch.cat([part.clock.at[: len(part.part.targets)] for _, part in clocks])
    assert at.tolist() == [0, 10, 100, 5]
    assert torch.cat([part.clock.until[: len(part.part.targets)] for _, part in clocks]).tolist() == until


# -- what answers may see ----------------------------------------------------------------------------------------------

ROWS = [[row % N_ITEMS, (row + 3) % N_ITEMS, (row + 6) % N_ITEMS, (row + 9) % N_ITEMS, row % 7] for row in range(20)]
TIMES = [[0, DAY, 2 * DAY, 30 * DAY, 31 * DAY] for _ in range(20)]


def model(time: str) -> tuple[HSTU, Split]:
    cut = timed(ROWS, TIMES)
    made = HSTU(replace(SMALL, time=time), replace(BRIEF, epochs=1)).fit(cut)
    with torch.no_grad(), seeded(0):
        for parameter in made._fitted_network.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    return made, cut


def with_target_times(cases: Cases, days: int) -> Cases:
    """The same cases, whose targets were taken so many days later."""
    histories = cases.histories
    assert histories.times is not None
    times = np.array(histories.times)
    times[histories.stops] += days * DAY
    return replace(cases, histories=Sequences(histories.values, histories.starts, histories.stops, times))


@pytest.mark.parametrize(("time", "leaks"), [("history", False), ("request", False), ("target", True)])
def test_the_time_of_the_target_is_seen_by_the_option_of_that_name_alone(time, leaks):
    made, cut = model(time)
    later = with_target_times(cut.test, 300)
    assert np.allclose(made._score_cases(cut.test), made._score_cases(later), atol=1e-6) is not leaks
    assert np.array_equal(made.score(cut.test.histories), made.score(later.histories))
    assert np.array_equal(made.rank(cut.test).ahead, made.rank(later).ahead) is not leaks


def test_requests_are_answered_as_of_the_newest_item_and_earlier_rows_count_to_the_next_one():
    made, _ = model("request")
    histories = Sequences.from_lists([[3, 1, 4, 1]])
    dated = Sequences(histories.values, histories.starts, histories.stops, np.array([0, DAY, 3 * DAY, 50 * DAY]))
    last = states(made._fitted_network, [3, 1, 4, 1], [0, DAY, 3 * DAY, 50 * DAY], [DAY, 3 * DAY, 50 * DAY, 50 * DAY])
    vectors = made._fitted_network.vectors.detach()
    wanted = torch.nn.functional.normalize(last[-1], dim=0) @ vectors.T / 0.05
    assert np.allclose(made.score(dated)[0], wanted.numpy(), atol=1e-4)


def test_reports_that_were_told_times_of_targets_are_compared_with_no_others():
    reports = {}
    for time in ("request", "target"):
        made, cut = model(time)
        reports[time] = [evaluate(made, cut)]
    assert "told" not in reports["request"][0].card["protocol"]
    with pytest.raises(ConfigError, match="told: None and the time of the target"):
        compare_reports(reports)


def test_targets_that_are_not_behind_their_histories_are_refused_where_their_times_are_read():
    made, cut = model("target")
    with pytest.raises(DataError, match="are not the events behind their histories"):
        made.rank(replace(cut.test, targets=(cut.test.targets + 1) % N_ITEMS))


def test_events_without_times_are_an_error_of_models_that_read_them():
    with pytest.raises(DataError, match=r"the events have no times.*time = 'none'"):
        HSTU(replace(SMALL, time="history"), BRIEF).fit(circles(20))
    made, _ = model("history")
    with pytest.raises(DataError, match="the events have no times"):
        made.recommend([["item-1", "item-2"]], k=3)
    made, _ = model("none")
    assert len(made.recommend([["item-1", "item-2"]], k=3).ids()[0]) == 3


def test_fillers_have_no_time():
    sequences = Sequences(np.array([4, 5]), np.array([0]), np.array([2]), np.array([7, 9]))
    clock = clock_of(sequences, np.array([0, 1]), np.array([1, 1]), n_tokens=4)
    assert (clock.at.tolist(), clock.until.tolist()) == ([7, 9, 0, 0], [9, 9, 0, 0])


# -- learning ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["softmax", "sampled-softmax"])
def test_it_finds_the_planted_next_item(loss):
    cut = circles()
    settings = replace(SMALL, width=16, head_width=8, max_length=20, loss=loss, n_negatives=16)
    made = HSTU(settings, BRIEF).fit(cut)
    assert (made.rank(cut.test).ahead == 0).mean() > 0.95
    assert made.log.rows[-1]["loss"] < made.log.rows[0]["loss"]


def test_times_tell_what_items_do_not():
    """After a gap of a day the next item is one place on, after that of a year two."""
    random = np.random.default_rng(0)
    rows, times = [], []
    for _ in range(300):
        long = random.random(9) < 0.5
        steps = np.concatenate([[random.integers(N_ITEMS), 1], np.where(long, 2, 1)[:-1]])
        rows.append((np.cumsum(steps) % N_ITEMS).tolist())
        times.append(np.cumsum(np.concatenate([[0], np.where(long, 365 * DAY, DAY)])).tolist())
    cut = timed(rows, times)
    settings = replace(SMALL, width=16, head_width=8, n_layers=1)
    firsts = {
        time: (HSTU(replace(settings, time=time), BRIEF).fit(cut).rank(cut.test).ahead == 0).mean()
        for time in ("none", "history")
    }
    assert firsts["history"] > 0.9
    assert firsts["none"] < 0.7


@pytest.mark.parametrize(("settings", "message"), [
    ({"n_layers": 0}, "n_layers is 0"),
    ({"head_width": 0}, "head_width is 0"),
    ({"dropout": 1.0}, "dropout is 1.0"),
    ({"temperature": 0.0}, "temperature is 0.0. Use a value above 0"),
    ({"n_negatives": 0}, "n_negatives is 0"),
])  # fmt: skip
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(ConfigError, match=message):
        HSTUConfig(**settings)
