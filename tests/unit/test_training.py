"""The training loop: what a step is, when it stops, what it refuses, and that it survives a kill."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tesserec.data.sequences import Sequences
from tesserec.errors import ConfigError, TrainingError
from tesserec.training import loop
from tesserec.training.batching import windows
from tesserec.training.checkpoints import FILE, load_checkpoint
from tesserec.training.config import TrainingConfig
from tesserec.training.devices import resolve_device, resolve_precision
from tesserec.training.loop import Step, train
from tesserec.training.schedules import learning_rate
from tesserec.training.seeds import seeded

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))

from toy_training import N_STEPS, SumOfInputs, closeness, network, train_toy  # noqa: E402


def config(**settings: object) -> TrainingConfig:
    return TrainingConfig(**{"device": "cpu", "precision": "fp32", "learning_rate": 0.02, "epochs": 3, **settings})


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


# -- resuming ----------------------------------------------------------------------------------------------------------


def test_a_killed_process_resumes_to_the_very_weights_of_an_uninterrupted_run(tmp_path):
    expected, expected_log = train_toy(None)
    process = subprocess.Popen([sys.executable, TESTS / "toy_training.py", tmp_path])
    while not (tmp_path / FILE).exists():
        assert process.poll() is None, "the process ended before its first checkpoint"
        time.sleep(0.005)
    moment = 0.6 * random.random()
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    model, log = train_toy(tmp_path)
    assert same_weights(model, expected), f"killed {moment:.3f} s after the first checkpoint"
    untimed = [{key: value for key, value in row.items() if key != "seconds"} for row in log.rows]
    assert untimed == [{key: value for key, value in row.items() if key != "seconds"} for row in expected_log.rows]


def test_every_step_is_a_place_to_go_on_from(tmp_path):
    expected, _ = train_toy(None)

    class Killed(Exception):
        pass

    class Fragile(SumOfInputs):
        def loss(self, model, part, device):
            calls.append(None)
            if len(calls) % 40 == 0:
                raise Killed
            return super().loss(model, part, device)

    calls: list[None] = []
    settings = config(epochs=8, schedule="cosine", checkpoint_seconds=0.0)
    deaths = 0
    while True:
        model = network()
        try:
            train(model, Fragile(), settings, validate=closeness, checkpoints=tmp_path, identity="toy")
            break  # 8 epochs of 30 parts, and every 40th call dies
        except Killed:
            deaths += 1
            torch.rand(3)  # what others draw in between changes nothing
    assert deaths >= 5
    assert same_weights(model, expected)


def test_a_finished_training_only_gets_its_weights_back(tmp_path):
    expected, expected_log = train_toy(tmp_path)
    began, a_step = time.monotonic(), 30.0
    model, log = train_toy(tmp_path, pause=a_step)
    assert time.monotonic() - began < a_step
    assert same_weights(model, expected)
    assert log == expected_log


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    train(network(), SumOfInputs(), config(), validate=closeness, checkpoints=tmp_path, identity="one")
    for settings, identity in ((config(), "another"), (config(learning_rate=0.1), "one")):
        with pytest.raises(TrainingError, match=r"another configuration or data .* Delete it"):
            train(network(), SumOfInputs(), settings, validate=closeness, checkpoints=tmp_path, identity=identity)


def test_a_damaged_checkpoint_is_an_error_with_a_remedy(tmp_path):
    train_toy(tmp_path)
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(TrainingError, match=r"cannot be resumed .* Delete it"):
        train_toy(tmp_path)


def test_a_checkpoint_holds_no_code(tmp_path):
    train_toy(tmp_path)
    assert torch.load(tmp_path / FILE, weights_only=True)["position"]["step"] == 8 * N_STEPS


def test_time_before_an_interruption_counts(tmp_path, monkeypatch):
    clock = count(0.0, 0.01)
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))

    def broken(model: nn.Module) -> float:
        raise KeyboardInterrupt

    settings = config(epochs=1000, max_seconds=2.0, checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        train(network(), SumOfInputs(), settings, validate=broken, checkpoints=tmp_path)
    before = torch.load(tmp_path / FILE, weights_only=True)["position"]["seconds"]
    assert before > 0.2
    log = train(network(), SumOfInputs(), settings, validate=closeness, checkpoints=tmp_path)
    assert log.stopped == "out of time"
    assert 2.0 <= log.rows[-1]["seconds"] < 2.2


# -- steps -------------------------------------------------------------------------------------------------------------


def test_the_parts_of_a_step_add_up_to_the_whole_batch():
    models = []
    for n_parts in (1, 6):
        models.append(network(dropout=0.0))
        train(models[-1], SumOfInputs(n_parts), config(clip_norm=0.5), validate=closeness)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sharded", [False, True])
def test_two_processes_take_the_same_steps_as_one(sharded, tmp_path):
    script = tmp_path / "share.py"
    script.write_text(
        "import sys, torch\n"
        f"sys.path.insert(0, {str(TESTS)!r})\n"
        "from toy_training import SumOfInputs, closeness, network, train, TrainingConfig\n"
        "model = network(dropout=0.0)\n"
        f"config = TrainingConfig(device='cpu', precision='fp32', learning_rate=0.02, epochs=3, sharded={sharded})\n"
        "train(model, SumOfInputs(), config, validate=closeness)\n"
        "torch.save(model.state_dict(), sys.argv[1])\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, script, tmp_path / f"{rank}.pt"],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "1",
                 "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]  # fmt: skip
    alone = network(dropout=0.0)
    train(alone, SumOfInputs(), config(), validate=closeness)
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for name, weight in alone.state_dict().items():
        assert sharded or torch.equal(one[name], other[name])  # of shards, the first process gathers the model
        assert_close(one[name], weight, rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_where_it_arose():
    class Explodes(SumOfInputs):
        def steps(self, epoch):
            steps = super().steps(epoch)
            if epoch == 1:
                steps[3] = Step([torch.full((6, 4), torch.inf)], 6)
            return steps

    with pytest.raises(TrainingError, match=rf"at step {N_STEPS + 3} \(epoch 2\).*learning_rate"):
        train(network(), Explodes(), config(), validate=closeness)


def test_training_does_not_touch_the_callers_random_numbers():
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    train(network(), SumOfInputs(), config(), validate=closeness)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.skipif(not torch.cpu.get_capabilities().get("avx512_bf16"), reason="slow without bf16 instructions")
def test_bfloat16_products_leave_the_weights_in_float32():
    model = network()
    log = train(model, SumOfInputs(), config(precision="bf16"), validate=closeness)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert log.rows[-1]["loss"] < log.rows[0]["loss"]


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_training_stops_without_gain_and_keeps_the_best_weights():
    values, seen = iter([0.1, 0.5, 0.3, 0.4, 0.9]), []

    def scripted(model: nn.Module) -> float:
        assert not model.training
        seen.append({name: weight.clone() for name, weight in model.state_dict().items()})
        return next(values)

    model = network()
    log = train(model, SumOfInputs(), config(epochs=5, patience=2), validate=scripted)
    assert [row["validation"] for row in log.rows] == [0.1, 0.5, 0.3, 0.4]
    assert log.best_step == 2 * N_STEPS
    assert log.stopped == "no gain in 2 validations"
    assert all(torch.equal(weight, seen[1][name]) for name, weight in model.state_dict().items())
    assert not model.training


@pytest.mark.parametrize(("settings", "steps"), [
    ({"epochs": 3}, [10, 20, 30]),
    ({"epochs": 3, "validate_every": 2}, [20, 30]),
    ({"epochs": 3, "max_steps": 15}, [10, 15]),
])  # fmt: skip
def test_validation_comes_after_epochs_and_at_the_end(settings, steps):
    log = train(network(), SumOfInputs(), config(**settings), validate=closeness)
    assert [row["step"] for row in log.rows] == steps
    assert log.stopped == "all steps done"


def test_training_learns():
    model = network(dropout=0.0)
    before = closeness(model)
    train(model, SumOfInputs(), config(epochs=30), validate=closeness)
    assert closeness(model) > before / 100


# -- parts -------------------------------------------------------------------------------------------------------------


def test_learning_rate_rises_then_follows_its_schedule():
    def rates(schedule: str) -> list[float]:
        settings = TrainingConfig(learning_rate=1.0, warmup_steps=2, schedule=schedule)
        return [round(learning_rate(settings, step, 6), 4) for step in range(6)]

    assert rates("constant") == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert rates("cosine") == [0.5, 1.0, 1.0, 0.8536, 0.5, 0.1464]
    assert rates("inverse-sqrt") == [0.5, 1.0, 0.8165, 0.7071, 0.6325, 0.5774]


def test_seeds_depend_on_every_number():
    def draw(*numbers: int) -> float:
        with seeded(*numbers):
            return float(torch.rand(1))

    assert draw(1, 2) == draw(1, 2)
    assert len({draw(1, 2), draw(2, 1), draw(1, 3), draw(1)}) == 4


@pytest.mark.parametrize(("name", "message"), [
    ("gpu", "device is 'gpu'. Use auto, cpu, cuda"),
    ("cpu:3", "has 1 of that kind. Use device = auto"),
])  # fmt: skip
def test_a_device_that_there_is_not_is_an_error(name, message):
    with pytest.raises(ConfigError, match=message):
        resolve_device(name)


def test_automatic_precision_is_bfloat16_exactly_where_the_cpu_multiplies_in_it(monkeypatch):
    cpu = torch.device("cpu")
    for able, dtype in (({"avx512_bf16": True}, torch.bfloat16), ({"avx512_f": True}, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert resolve_precision("auto", cpu) == dtype
    with pytest.raises(ConfigError, match="fp16, which a CPU does not train in"):
        resolve_precision("fp16", cpu)


def test_windows_predict_every_item_but_the_first_exactly_once():
    sequences = Sequences.from_lists([[9], [], list(range(10, 18)), [20, 21], list(range(30, 37))])
    found = [window.tolist() for window in windows(sequences, 3)]
    assert found == [[10, 11], [11, 12, 13, 14], [14, 15, 16, 17], [20, 21], [30, 31, 32, 33], [33, 34, 35, 36]]
    assert len(windows(sequences.take(np.array([0, 1])), 3)) == 0


def test_checkpoints_are_found_only_where_they_are(tmp_path):
    assert load_checkpoint(tmp_path / "none", identity="", device=torch.device("cpu")) is None
