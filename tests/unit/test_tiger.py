"""TIGER: what is read, what is trained on, and that recommendations follow from the history."""

import dataclasses
import subprocess
import sys
from functools import partial

import numpy as np
import polars as pl
import pytest
import torch

from tesserec.data.dataset import Dataset
from tesserec.data.samples import Samples
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Cases, leave_one_out
from tesserec.errors import ConfigError, DataError
from tesserec.recommenders.tiger import (
    LENGTHS,
    START,
    Tiger,
    TigerConfig,
    TigerDecoder,
    TigerObjective,
    user_bucket,
)
from tesserec.training.batching import parts_by_length
from tesserec.training.config import TrainingConfig
from toy_ring import ITEM_IDS, N_ITEMS, ring_ids, walks

SMALL = TigerConfig(
    width=32, ff_width=64, n_layers=1, n_heads=2, head_width=16, dropout=0.0, max_items=4, beam_width=30
)
TRAINING = TrainingConfig(
    epochs=10, validate_every=5, batch_size=32, learning_rate=5e-3, device="cpu", precision="fp32"
)


@pytest.fixture(scope="module")
def dataset():
    return Dataset(pl.DataFrame({"item_id": ITEM_IDS}), *walks(150))


@pytest.fixture(scope="module")
def semantic_ids():
    return ring_ids()


@pytest.fixture(scope="module")
def trained(dataset, semantic_ids):
    return Tiger(semantic_ids, SMALL, TRAINING).fit(leave_one_out(dataset))


def test_every_prefix_of_a_training_sequence_is_a_sample(dataset):
    split = leave_one_out(dataset)
    samples = Samples.of(split.train)
    assert len(samples.users) == (split.train.lengths - 1).clip(min=0).sum()
    pairs = {(u, int(samples.values[t])) for u, t in zip(samples.users, samples.targets, strict=True)}
    assert all((user, item) in pairs for user in range(20) for item in split.train[user][1:])
    held_out = {
        (u, t) for part in (split.validation, split.test) for u, t in zip(part.users, part.targets, strict=True)
    }
    assert not pairs & held_out  # the ring is longer than any sequence, so no item occurs twice


@pytest.mark.data
def test_beauty_has_the_published_number_of_samples(real_data):
    from tesserec.data import prepare

    assert len(Samples.of(leave_one_out(prepare(real_data / "beauty" / "Beauty.inter.json")).train).users) == 131_413


def test_users_without_a_pair_to_learn_from_are_an_error():
    rows = Sequences.from_lists([[0], [1]])
    with pytest.raises(DataError, match="No user has two items to train on"):
        Samples.of(rows)


def test_a_batch_holds_the_codes_of_the_latest_items_oldest_first(trained, semantic_ids):
    histories = Sequences.from_lists([[3], [7, 8, 9], list(range(10, 20))])
    found = {}
    for rows, batch in trained.batches(histories, None, np.array([4, 10, 20]), max_tokens=100):
        lengths = batch.lengths if batch.lengths is not None else torch.full((len(rows),), batch.tokens.shape[1])
        for row, tokens, length, target in zip(rows, batch.tokens, lengths, batch.targets, strict=True):
            assert (tokens[length:] == START).all()
            found[int(row)] = (tokens[:length].tolist(), target.tolist())
    level_0, level_1 = 1, 1 + 5  # first tokens of the levels, START being 0
    assert found[0] == ([level_0 + 0, level_1 + 3], [0, 4])
    assert found[1] == ([level_0 + 1, level_1 + 1, level_0 + 1, level_1 + 2, level_0 + 1, level_1 + 3], [1, 4])
    expected = (semantic_ids.codes[16:20] + np.array([level_0, level_1])).flatten().tolist()
    assert found[2] == (expected, [3, 2])


def test_an_epoch_trains_every_sample_once_whatever_the_parts(dataset, semantic_ids):
    split = leave_one_out(dataset)
    for tokens_per_part in (20, 100_000):
        training = dataclasses.replace(TRAINING, tokens_per_part=tokens_per_part)
        objective = TigerObjective(Tiger(semantic_ids, SMALL, training), split)
        steps = [objective.steps(3)[number] for number in range(objective.n_steps(3))]
        targets = torch.cat([part.targets for step in steps for part in step.parts])
        expected = torch.from_numpy(semantic_ids.codes[objective.samples.values[objective.samples.targets]])
        assert sum(step.n_targets for step in steps) == len(targets) == len(expected)
        assert sorted(targets.tolist()) == sorted(expected.tolist())


def test_the_gradient_of_a_step_does_not_depend_on_its_parts(dataset, semantic_ids):
    split, gradients = leave_one_out(dataset), []
    for tokens_per_part in (20, 100_000):
        tiger = Tiger(semantic_ids, SMALL, dataclasses.replace(TRAINING, tokens_per_part=tokens_per_part))
        objective = TigerObjective(tiger, split)
        step = objective.steps(0)[0]
        for part in step.parts:
            (objective.loss(tiger.network, part, torch.device("cpu")) / step.n_targets).backward()
        gradients.append({name: p.grad for name, p in tiger.network.named_parameters() if p.grad is not None})
    assert len(gradients[0]) > 20
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-3)


def test_the_next_item_of_the_ring_is_found(trained, dataset):
    ranks = trained.rank(leave_one_out(dataset).test)
    assert (ranks.found & (ranks.ahead == 0)).mean() > 0.9  # by chance 0.03


def test_other_histories_get_other_recommendations(trained):
    """A decoder that ignores the encoder answers everybody alike (docs/methods/tiger.md)."""
    first = trained.recommend([[f"item-{row}"] for row in range(N_ITEMS)], 3)
    swapped = trained.recommend([[f"item-{(row + 7) % N_ITEMS}"] for row in range(N_ITEMS)], 3)
    assert (first.items[:, 0] != swapped.items[:, 0]).mean() > 0.9


def test_a_beam_as_wide_as_the_catalogue_ranks_as_exact_scoring_does(trained, dataset):
    cases = leave_one_out(dataset).test
    trained.beam_width = N_ITEMS
    beams = [trained.rank(cases, exclude_seen=seen) for seen in (False, True)]
    lists = trained.recommend(cases.histories, 8)
    trained.exact = True
    try:
        exact = [trained.rank(cases, exclude_seen=seen) for seen in (False, True)]
        exact_lists = trained.recommend(cases.histories, 8)
    finally:
        trained.exact = False
    for beam, scored in zip(beams, exact, strict=True):
        assert beam.found.all()
        assert scored.found.all()
        for field in ("ahead", "tied", "id_rank"):
            assert (getattr(beam, field) == getattr(scored, field)).mean() > 0.99  # scores differ in the last bit
    assert (lists.items == exact_lists.items).mean() > 0.99
    assert "exact" not in trained.ranking


def test_items_that_share_an_id_share_their_place(trained):
    histories = Sequences.from_lists([[26, 27]])
    for target in (28, 29):
        ranks = trained.rank(Cases(np.array([0]), histories, np.array([target])))
        assert ranks.found[0]
        assert ranks.tied[0] == 2
    both = trained.recommend([["item-26", "item-27"]], N_ITEMS).ids()[0]
    assert both.index("item-29") == both.index("item-28") + 1


def test_users_who_are_encoded_in_parts_and_decoded_together_get_what_they_get_alone(trained, monkeypatch):
    monkeypatch.setattr("tesserec.recommenders.tiger.ROW_MULTIPLE_DECODING", 1)
    histories = Sequences.from_lists([[7, 8, 9, 10], [3], [28, 29], [], [5, 6], [14]])
    monkeypatch.setattr("tesserec.recommenders.tiger.parts_by_length", partial(parts_by_length, overhead=0))
    ((rows, batches),) = trained.decoding_batches(histories)
    assert len(batches) > 2
    assert sorted(rows.tolist()) == list(range(6))
    together = trained.recommend(histories, 5)
    for row in range(6):
        alone = trained.recommend(histories.take(np.array([row])), 5)
        np.testing.assert_array_equal(together.items[row], alone.items[0])
        np.testing.assert_allclose(together.scores[row], alone.scores[0], atol=1e-5)


def test_unknown_histories_are_answered(trained):
    answers = trained.recommend([["no-such-item"], [], ["no-such-item", "item-3"]], 2)
    counts = trained.train_counts
    assert answers.items[0, 0] == answers.items[1, 0] == counts.argmax()
    assert answers.ids()[2][0] == "item-4"


def test_user_tokens_are_the_same_in_every_process():
    here = [user_bucket(f"user-{row}", 2000) for row in range(50)]
    code = "from tesserec.recommenders.tiger import user_bucket as b; print([b(f'user-{r}', 2000) for r in range(50)])"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert str(here) == there.strip()
    assert len(set(here)) > 45


def test_user_tokens_stand_in_front_and_strangers_have_their_own(dataset, semantic_ids, tmp_path):
    split = leave_one_out(dataset)
    config = dataclasses.replace(SMALL, user_buckets=10)
    tiger = Tiger(semantic_ids, config, dataclasses.replace(TRAINING, epochs=1)).fit(split)
    users = tiger.user_tokens(np.array([0, 1]))
    assert [int(user) for user in users] == [1 + 5 + 6 + user_bucket(f"user-{row}", 10) for row in (0, 1)]
    (_, batch), = tiger.batches(Sequences.from_lists([[3], [4]]), users, None, 100)  # fmt: skip
    assert batch.tokens[:, 0].tolist() == users.tolist()
    (_, batch), = tiger.batches(Sequences.from_lists([[3], [4]]), None, None, 100)  # fmt: skip
    assert batch.tokens[:, 0].tolist() == [len(tiger.vocabulary) - 1] * 2
    step = TigerObjective(tiger, split).steps(0)[0]
    firsts = torch.cat([part.tokens[:, 0] for part in step.parts])
    assert (firsts >= 12).all()
    assert 0 <= (firsts == len(tiger.vocabulary) - 1).float().mean() < 0.5
    tiger.save(tmp_path / "tiger")
    again = Tiger.load(tmp_path / "tiger")
    assert (again.rank(split.test).ahead == tiger.rank(split.test).ahead).all()


@pytest.mark.parametrize("output", ["per-level", "shared"])
def test_both_outputs_are_distributions(dataset, semantic_ids, output):
    tiger = Tiger(semantic_ids, dataclasses.replace(SMALL, output=output), TRAINING)
    states = torch.randn(4, 3, SMALL.width)
    mass = tiger.network.log_probs(states, 1).exp().sum(dim=-1)
    assert mass.shape == (4, 3)
    if output == "per-level":
        torch.testing.assert_close(mass, torch.ones(4, 3))
    else:
        assert (mass < 1).all()  # other tokens have their share


@pytest.mark.parametrize("output", ["per-level", "shared"])
def test_the_temperature_divides_logits_in_training_and_in_every_score_alike(dataset, semantic_ids, output):
    plain, cold = (
        Tiger(semantic_ids, dataclasses.replace(SMALL, output=output, temperature=t), TRAINING) for t in (1.0, 0.7)
    )
    with torch.no_grad():
        for parameter, other in zip(plain.network.parameters(), cold.network.parameters(), strict=True):
            parameter.mul_(3)  # logits far enough from 0 for the temperature to matter
            other.copy_(parameter)
    histories, targets = Sequences.from_lists([[3, 4], [9, 8]]), np.array([5, 10])
    codes = torch.from_numpy(semantic_ids.codes[targets])
    (_, batch), = plain.batches(histories, None, targets, 100)  # fmt: skip
    states = torch.randn(4, SMALL.width)
    for level, size in enumerate(semantic_ids.codebook_sizes):
        if output == "per-level":
            logits = plain.network.heads[level](states)
        else:
            first = plain.vocabulary.offsets[level]
            logits = (states * SMALL.width**-0.5) @ plain.network.embedding.weight.T
        expected = torch.log_softmax(logits / 0.7, dim=-1)
        if output == "shared":
            expected = expected[:, first : first + size]
        torch.testing.assert_close(cold.network.log_probs(states, level), expected)
    scores = {}
    for name, tiger in (("plain", plain), ("cold", cold)):
        tiger.network.eval()
        decoder = TigerDecoder(tiger.network, [batch])
        prefixes = torch.zeros(1, 0, dtype=torch.int64)
        first_level = decoder.node_log_probs(0, prefixes)[:, 0]
        second = torch.stack([decoder.node_log_probs(1, codes[row : row + 1, :1])[row, 0] for row in range(2)])
        by_hand = first_level.gather(1, codes[:, :1]) + second.gather(1, codes[:, 1:])
        loss = tiger.network(batch)
        torch.testing.assert_close(loss, -by_hand.sum() / 2)  # the loss is that of the scores
        scores[name] = by_hand
    assert (scores["plain"] - scores["cold"]).abs().max() > 0.01


def test_semantic_ids_of_another_catalogue_are_refused(dataset, semantic_ids):
    items = pl.DataFrame({"item_id": [f"other-{row}" for row in range(N_ITEMS)]})
    other = Dataset(items, dataset.user_ids, dataset.sequences)
    with pytest.raises(ConfigError, match="Make the IDs from the embeddings of this data set"):
        Tiger(semantic_ids, SMALL, TRAINING).fit(leave_one_out(other))


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="beam_width"):
        TigerConfig(beam_width=0)
    with pytest.raises(ConfigError, match="temperature is 0"):
        TigerConfig(temperature=0)
    with pytest.raises(ConfigError, match="dropout is 1"):
        TigerConfig(dropout=1.0)
    with pytest.raises(ConfigError, match="n_heads is 0"):
        TigerConfig(n_heads=0)


def test_padded_lengths_never_exceed_what_is_read(trained):
    assert [trained._padded_length(n) for n in (0, 1, 3, 4)] == [0, 1, 3, 4]
    assert LENGTHS[-1] == 20
