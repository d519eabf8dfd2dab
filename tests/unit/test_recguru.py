"""RecGURU: what user vectors tell, which part of the network learns from which loss, and that it learns."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch.testing import assert_close

from tesserec.data import join_datasets
from tesserec.data.join import item_domains
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split, leave_one_out
from tesserec.errors import ConfigError, DataError
from tesserec.networks.transformer import pack
from tesserec.recommenders.next_item import next_items
from tesserec.recommenders.recguru import (
    GURPretext,
    Pair,
    Pretraining,
    RecGURU,
    RecGURUConfig,
    RecGURUNetwork,
    Reverse,
    Tuning,
    gradient_penalty,
    probe_accuracy,
)
from tesserec.training.config import TrainingConfig
from tesserec.training.loop import train
from tesserec.training.seeds import seeded
from toy_circles import N_ITEMS, Killed, Killer, circle_shop, circles

SMALL = RecGURUConfig(width=8, n_layers=1, n_heads=2, dropout=0.0, max_length=12, pretrain_epochs=4, warmup_epochs=1)
BRIEF = TrainingConfig(device="cpu", precision="fp32", epochs=15, batch_size=32, learning_rate=0.01, seed=1)
SPLIT = leave_one_out(join_datasets({"a": circle_shop(step=7), "b": circle_shop(80, step=11)}))
DOMAINS = item_domains(SPLIT.dataset)
CPU = torch.device("cpu")


def strong(network: torch.nn.Module) -> torch.nn.Module:
    """With weights far from their small start, so that differences would show."""
    with seeded(0):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def pair(a: list[list[int]], b: list[list[int]]) -> Pair:
    return Pair((next_items(Sequences.from_lists(a)), next_items(Sequences.from_lists(b))))


def test_a_user_vector_is_the_state_after_the_last_item_whatever_comes_after_and_whoever_is_beside():
    network = strong(GURPretext(2 * N_ITEMS, SMALL))
    rows = [[3, 1, 4, 1], [5], [9, 2]]
    with torch.no_grad():
        states, last = network.users(pack(Sequences.from_lists(rows)))
        alone = torch.cat([network.users(pack(Sequences.from_lists([row])))[1] for row in rows])
        prefix = network.users(pack(Sequences.from_lists([[3, 1]])))[1]
    assert_close(last, alone, rtol=0, atol=1e-5)
    assert_close(states[[3, 4, 6]], last)
    assert_close(states[1], prefix[0], rtol=0, atol=1e-5)


def test_an_item_is_rebuilt_from_those_before_it_and_the_user_vector():
    network = strong(GURPretext(2 * N_ITEMS, SMALL))
    users = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = network.reconstruction(pack(Sequences.from_lists([[3, 1, 4]])), 3, users, 0)
        first = network.reconstruction(pack(Sequences.from_lists([[3]])), 1, users, 0)
        two = network.reconstruction(pack(Sequences.from_lists([[3, 1]])), 2, users, 0)
        other = network.reconstruction(pack(Sequences.from_lists([[3]])), 1, users + 1, 0)
        other_domain = network.reconstruction(pack(Sequences.from_lists([[3]])), 1, users, 1)
        inputs = network.start + network.user_maps[0](users)
        packed = pack(Sequences.from_lists([[3]]))
        state = network.decoders[0](packed, torch.cat([inputs, torch.zeros(63, 8)]))[:1]
        wanted = torch.nn.functional.cross_entropy(state @ network.items.weight.T, torch.tensor([3]))
        swapped = network.reconstruction(pack(Sequences.from_lists([[3, 1, 9]])), 3, users, 0)
        last = [network.reconstruction(pack(Sequences.from_lists([[3, 1, x]])), 3, users, 0) - two for x in range(60)]
    assert_close(first, wanted, rtol=1e-5, atol=1e-5)
    assert float(whole) > float(two) > float(first)
    assert torch.stack(last).neg().exp().sum().item() == pytest.approx(1, abs=1e-3)  # the last one's probabilities
    assert not torch.isclose(whole, swapped)
    assert not torch.isclose(first, other)
    assert not torch.isclose(first, other_domain)


def test_a_reversed_gradient():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = Reverse.apply(x, 0.5)
    assert torch.equal(y, x)
    assert torch.autograd.grad((y * torch.tensor([3.0, 4.0])).sum(), x)[0].tolist() == [-1.5, -2.0]


@pytest.mark.parametrize("length", [1.0, 3.0])
def test_the_penalty_asks_for_slopes_of_one(length):
    weight = torch.tensor([0.6, 0.8], requires_grad=True)
    penalty = gradient_penalty(lambda x: x @ weight * length, torch.randn(5, 2))
    assert penalty.item() == pytest.approx((length - 1) ** 2, abs=1e-6)
    (slope,) = torch.autograd.grad(penalty, weight)
    assert bool(slope.abs().sum() > 0.1) is (length != 1)


def test_the_critic_moves_user_vectors_against_itself():
    a, b = (torch.randn(6, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))

    def gradients(weight: float) -> tuple[torch.Tensor, torch.Tensor]:
        network = strong(GURPretext(10, replace(SMALL, penalty=0.0)))
        x = b.clone().requires_grad_()
        loss = network.contest(a, x, weight=weight)
        assert_close(loss, network.critic(b).mean() - network.critic(a).mean())
        of_users, of_critic = torch.autograd.grad(loss, [x, network.critic[0].weight])
        (plain,) = torch.autograd.grad(network.critic(x).mean(), x)
        assert_close(of_users, -plain * weight, rtol=0, atol=1e-6)
        return of_users, of_critic

    users, critic = gradients(2.0)
    idle, same = gradients(0.0)
    assert_close(critic, same)
    assert users.abs().sum() > 0.01
    assert idle.abs().sum() == 0


@pytest.mark.parametrize("tune_encoder", [False, True])
def test_next_items_move_the_encoder_only_if_they_may(tune_encoder):
    network = strong(RecGURUNetwork(2 * N_ITEMS, replace(SMALL, tune_encoder=tune_encoder)))
    states, vectors, rebuilt = network(pair([[3, 1, 4]], [[33, 41]]))
    assert states.shape == (3, 8)
    weight = network.encoder.blocks[0].attention.qkv.weight
    (of_next,) = torch.autograd.grad((states @ vectors.T).sum(), weight, allow_unused=True, retain_graph=True)
    assert (of_next is not None and bool(of_next.abs().sum() > 0)) is tune_encoder
    assert torch.autograd.grad(rebuilt, weight)[0].abs().sum() > 0


def test_a_step_is_a_pair_of_both_domains_with_as_many_sequences_of_each():
    objective = Tuning(SPLIT.train, DOMAINS, SMALL, replace(BRIEF, batch_size=64))
    seen = np.zeros(2, dtype=np.int64)
    for index in range(objective.n_steps(0)):
        step = objective.steps(0)[index]
        (found,) = step.parts
        assert step.n_targets == sum(len(part.targets) for part in found.parts)
        for domain, part in enumerate(found.parts):
            items = part.inputs.items[: len(part.targets)].numpy()
            assert (DOMAINS[items] == domain).all()
            seen[domain] += part.inputs.shape[0]
    assert seen[0] == seen[1]


def test_the_critic_has_steps_of_its_own_and_only_looks_on_in_the_first_epochs():
    objective = Pretraining(SPLIT.train, DOMAINS, replace(SMALL, warmup_epochs=1, critic_steps=2), BRIEF)
    n_batches = Tuning(SPLIT.train, DOMAINS, SMALL, BRIEF).n_steps(0)
    assert objective.n_steps(0) == 3 * n_batches
    for epoch, learns in ((0, "encoder"), (1, "all")):
        pairs = [objective.steps(epoch)[index].parts[0] for index in range(objective.n_steps(epoch))]
        assert [each.learns for each in pairs] == ["critic", "critic", learns] * n_batches
        targets = [each.parts[0].targets.tolist() for each in pairs]
        assert len({tuple(each) for each in targets[2::3]}) == n_batches  # every batch once
        assert sorted(targets[::3]) == sorted(targets[1::3]) == sorted(targets[2::3])


@pytest.mark.parametrize(("learns", "moved"), [("critic", {"critic"}), ("all", {"critic", "encoder", "decoders"})])
def test_a_step_of_the_critic_moves_nothing_else(learns, moved):
    network = strong(GURPretext(2 * N_ITEMS, SMALL))
    network(pair([[3, 1, 4]], [[33, 41]])._replace(learns=learns)).backward()
    found = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert moved <= found
    assert found == {"critic"} if learns == "critic" else "items" in found


def told_apart(adversarial: float) -> float:
    """The share of domains that a probe finds after pre-training on two shops of equal size."""
    cut = leave_one_out(join_datasets({"a": circle_shop(150, step=7), "b": circle_shop(150, step=11)}))
    config = replace(SMALL, max_length=6, adversarial=adversarial)
    training = replace(BRIEF, epochs=12, validate_every=12, batch_size=64, schedule="cosine")
    objective = Pretraining(cut.train, item_domains(cut.dataset), config, training)
    with seeded(0):
        network = GURPretext(2 * N_ITEMS, config)
    train(network, objective, training, validate=lambda _: 0.0)
    return objective.told_apart(network, CPU)


def test_the_adversary_hides_the_domains_that_show_without_it():
    assert told_apart(0.0) > 0.95
    assert told_apart(1.0) < 0.8  # chance: .5; both take turns to win, .56 to .75 were seen


def test_a_probe_finds_what_is_there_and_nothing_else():
    noise = torch.randn(2, 2000, 4, generator=torch.Generator().manual_seed(0))
    assert probe_accuracy(noise[0], noise[1]) == pytest.approx(0.5, abs=0.05)
    assert probe_accuracy(noise[0], noise[1] + torch.tensor([6.0, 0, 0, 0])) > 0.99


@pytest.mark.parametrize("pretrain_epochs", [0, 4])
def test_it_finds_the_planted_next_item_in_both_domains(pretrain_epochs):
    settings = replace(SMALL, width=16, pretrain_epochs=pretrain_epochs)
    model = RecGURU(settings, BRIEF).fit(SPLIT)
    first = model.rank(SPLIT.test).ahead == 0
    domain = DOMAINS[SPLIT.test.targets]
    assert first[domain == 0].mean() > 0.95
    assert first[domain == 1].mean() > 0.95
    assert len(model.pretraining_log.rows) == (1 if pretrain_epochs else 0)


def test_the_first_item_of_a_history_says_which_recommender_answers():
    model = RecGURU(SMALL, replace(BRIEF, epochs=1)).fit(SPLIT)
    histories = Sequences.from_lists([[1, 2, 3], [31, 2, 3], [1, *([2] * 20)], []])
    with torch.no_grad():
        strong(model._fitted_network)
        before = model.score(histories)
        for parameter in model._fitted_network.recommenders[1].parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        after = model.score(histories)
    changed = [not np.allclose(one, other, atol=1e-4) for one, other in zip(before, after, strict=True)]
    assert changed == [False, True, False, False]
    assert (after[3] == 0).all()


@pytest.mark.parametrize("stage", [1, 2])
def test_a_training_killed_in_either_stage_goes_on_to_the_same_weights(stage, tmp_path):
    settings, brief = replace(SMALL, dropout=0.2), replace(BRIEF, epochs=3)
    whole = RecGURU(settings, brief).fit(SPLIT).score(SPLIT.test.histories)
    with pytest.raises(Killed):
        RecGURU(settings, brief).fit(SPLIT, checkpoints=tmp_path, progress=Killer(stage))
    resumed = RecGURU(settings, brief).fit(SPLIT, checkpoints=tmp_path)
    assert np.array_equal(resumed.score(SPLIT.test.histories), whole)


def other_domains(count: int) -> Split:
    shops = {name: circle_shop(10) for name in "abc"[:count]}
    return leave_one_out(join_datasets(shops))


def test_data_of_other_than_two_domains_is_an_error():
    with pytest.raises(ConfigError, match=r"no column 'domain'\. Join two data sets with `tesserec join`"):
        RecGURU(SMALL, BRIEF).fit(circles(20))
    with pytest.raises(DataError, match=r"these items are of 3\. Join two"):
        RecGURU(SMALL, BRIEF).fit(other_domains(3))
    cut = other_domains(2)
    silent = np.where(item_domains(cut.dataset)[cut.train.values[cut.train.starts]] == 1, 1, 99)
    train_part = replace(cut.train, stops=np.minimum(cut.train.stops, cut.train.starts + silent))
    with pytest.raises(DataError, match="Only 1 of the two domains has users with two events"):
        RecGURU(SMALL, BRIEF).fit(replace(cut, train=train_part))


def test_several_processes_are_refused_once_training_knows_of_them(monkeypatch):
    """They only do when the loop has joined them, which is after the objectives are made."""
    objectives = [kind(SPLIT.train, DOMAINS, SMALL, BRIEF) for kind in (Pretraining, Tuning)]
    monkeypatch.setattr("tesserec.recommenders.recguru.n_processes", lambda: 2)
    for objective in objectives:
        with pytest.raises(ConfigError, match="recguru trains in one process, not in 2"):
            objective.steps(0)


def test_the_domain_of_items_is_a_label_and_no_text():
    assert SPLIT.dataset.items.schema["domain"] == pl.Enum(["a", "b"])
    assert DOMAINS.tolist() == [0] * N_ITEMS + [1] * N_ITEMS
    assert item_domains(circles(5).dataset) is None


@pytest.mark.parametrize(("settings", "message"), [
    ({"adversarial": -1.0}, "adversarial is -1.0. Use 0 or more"),
    ({"reconstruction": 0.0}, "nothing would tune the encoder"),
    ({"width": 10, "n_heads": 3}, "width 10 cannot be shared by 3 heads"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_errors(settings, message):
    with pytest.raises(ConfigError, match=message):
        RecGURUConfig(**settings)
