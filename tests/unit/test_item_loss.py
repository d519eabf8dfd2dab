"""Losses over an item table: which negatives are drawn, and settings that make sense together."""

import pytest
import torch
from torch.testing import assert_close

from tesserec.data.sequences import Sequences
from tesserec.errors import ConfigError
from tesserec.functional.losses import sampled_softmax
from tesserec.recommenders.item_loss import ItemLoss
from tesserec.recommenders.item_table import NextItem
from tesserec.recommenders.sasrec import SASRec, SASRecConfig
from tesserec.training.config import TrainingConfig
from toy_circles import circles

COUNTS = torch.tensor([6, 0, 2, 0])


def test_the_proposal_mixes_popularity_with_equal_shares():
    def proposal(share: float) -> torch.Tensor:
        return ItemLoss(loss="sampled-softmax", popular_share=share).proposal(COUNTS)

    assert proposal(0.0).tolist() == [0.25] * 4
    assert proposal(1.0).tolist() == [0.75, 0.0, 0.25, 0.0]
    assert_close(proposal(0.5), torch.tensor([0.5, 0.125, 0.25, 0.125]))


def test_negatives_are_drawn_by_the_proposal_and_corrected_for_it(monkeypatch):
    settings = ItemLoss(loss="sampled-softmax", n_negatives=20_000, popular_share=0.5, correction="logq")
    proposal = settings.proposal(COUNTS)
    seen = {}

    def spy(states, vectors, targets, negatives, *, log_q, correct_target):
        seen.update(negatives=negatives, log_q=log_q, correct_target=correct_target)
        return sampled_softmax(states, vectors, targets, negatives, log_q=log_q, correct_target=correct_target)

    monkeypatch.setattr("tesserec.recommenders.item_loss.sampled_softmax", spy)
    torch.manual_seed(0)
    settings.against_catalogue(torch.randn(3, 2), torch.randn(4, 2), torch.tensor([0, 2, 2]), proposal)
    shares = torch.bincount(seen["negatives"], minlength=4) / 20_000
    assert (shares - proposal).abs().max() < 0.015
    assert_close(seen["log_q"], proposal.log())
    assert seen["correct_target"]


def test_popularity_counts_every_event_of_the_training_part_once():
    train = Sequences.from_lists([[0, 1, 2, 3, 2], [2]])
    config = SASRecConfig(max_length=2, loss="sampled-softmax", popular_share=1.0)  # three windows that share items
    objective = NextItem(train, config, TrainingConfig())
    objective.of(torch.zeros(1, 2), torch.zeros(4, 2), torch.tensor([0]))
    assert_close(objective.proposal, torch.tensor([1, 1, 3, 1]) / 6)


@pytest.mark.parametrize("settings", [
    {"loss": "gbce"},
    {"loss": "sampled-softmax", "popular_share": 0.5, "correction": "logq"},
    {"loss": "sampled-softmax", "popular_share": 0.5, "correction": "logq-negatives"},
])  # fmt: skip
def test_every_loss_finds_the_planted_next_item(settings):
    cut = circles()
    config = SASRecConfig(width=16, n_layers=1, dropout=0.0, max_length=12, n_negatives=16, **settings)
    training = TrainingConfig(
        device="cpu", precision="fp32", epochs=80, batch_size=32, learning_rate=0.01, seed=1, patience=80
    )  # gbce stands still for the first thirty
    assert (SASRec(config, training).fit(cut).rank(cut.test).ahead == 0).mean() > 0.95


@pytest.mark.parametrize(("settings", "message"), [
    ({"calibration": 1.5}, "calibration is 1.5. Use a number from 0 to 1"),
    ({"popular_share": -0.1}, "popular_share is -0.1"),
    ({"popular_share": 0.5}, "popular_share is 0.5, but loss = 'softmax' draws no shared negatives"),
    ({"correction": "logq"}, "correction is 'logq', but loss is 'softmax'"),
    ({"loss": "gbce", "correction": "logq"}, "correction is 'logq', but loss is 'gbce'"),
    ({"n_negatives": 0}, "n_negatives is 0"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_errors(settings, message):
    with pytest.raises(ConfigError, match=message):
        ItemLoss(**settings)
