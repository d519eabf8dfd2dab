"""Losses over the catalogue against plain formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from tesserec.functional import losses
from tesserec.functional.losses import (
    binary_cross_entropy,
    calibrated_binary_cross_entropy,
    in_batch_softmax,
    log_normalizer,
    other_items,
    sampled_softmax,
    softmax_cross_entropy,
)


@pytest.fixture
def case() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(150, 8, generator=generator, requires_grad=True)
    vectors = torch.randn(40, 8, generator=generator, requires_grad=True)
    return states, vectors, torch.randint(40, (150,), generator=generator)


def reference(states: Tensor, vectors: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(states @ vectors.T, targets, reduction="sum")


def gradients(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss * 0.5, inputs)


@pytest.mark.parametrize("entries", [1, 64 * 40, 1 << 21])  # three blocks by the least size, three, one
def test_blockwise_cross_entropy_equals_the_plain_one_with_its_gradients(case, monkeypatch, entries):
    monkeypatch.setitem(losses.BLOCK_ENTRIES, "cpu", entries)
    states, vectors, _ = case
    loss, expected = softmax_cross_entropy(*case), reference(*case)
    assert_close(loss, expected)
    for found, wanted in zip(gradients(loss, states, vectors), gradients(expected, states, vectors), strict=True):
        assert_close(found, wanted)


def test_blockwise_cross_entropy_in_bfloat16_is_close_and_keeps_float32_gradients(case):
    states, vectors, _ = case
    with torch.autocast("cpu", torch.bfloat16):
        loss = softmax_cross_entropy(*case)
    expected = reference(*case)
    assert_close(loss, expected, rtol=0.01, atol=0)
    for found, wanted in zip(gradients(loss, states, vectors), gradients(expected, states, vectors), strict=True):
        assert found.dtype == torch.float32
        assert float((found - wanted).norm() / wanted.norm()) < 0.02


def test_blockwise_cross_entropy_serves_frozen_vectors_and_evaluation(case):
    states, vectors, targets = case
    (found,) = gradients(softmax_cross_entropy(states, vectors.detach(), targets), states)
    (wanted,) = gradients(reference(*case), states)
    assert_close(found, wanted)
    with torch.no_grad():
        assert_close(softmax_cross_entropy(*case), reference(*case))


def test_a_hopeless_target_has_a_finite_loss_and_pulls_with_full_force():
    states = torch.tensor([[200.0]], requires_grad=True)
    vectors = torch.tensor([[1.0], [-1.0]])
    loss = softmax_cross_entropy(states, vectors, torch.tensor([1]))
    assert_close(loss, torch.tensor(38 * 2.302585), rtol=1e-3, atol=0)
    assert torch.autograd.grad(loss, states)[0].item() == 2.0


def test_softmax_against_all_items_is_the_full_softmax(case):
    assert_close(sampled_softmax(*case, torch.arange(40)), reference(*case), rtol=1e-5, atol=1e-5)


def test_sampled_softmax_by_hand():
    states, vectors = torch.tensor([[1.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    found = sampled_softmax(states, vectors, torch.tensor([1]), torch.tensor([2, 1, 2]))  # its own target is left out
    assert_close(found, -torch.tensor(1.0) + torch.tensor([1.0, 2.0, 2.0]).logsumexp(0))


def test_uniform_draws_need_no_correction_of_all_logits_and_that_of_negatives_restores_their_number(case):
    states, vectors = case[0].detach().double(), case[1].detach().double()
    negatives, uniform = torch.tensor([3, 9, 9, 30]), torch.full((40,), 1 / 40, dtype=torch.float64).log()
    plain = sampled_softmax(*case, negatives)
    assert_close(sampled_softmax(*case, negatives, log_q=uniform), plain, rtol=1e-5, atol=0)
    of_negatives = sampled_softmax(*case, negatives, log_q=uniform, correct_target=False)
    wanted = torch.zeros((), dtype=torch.float64)
    for state, target in zip(states, case[2].tolist(), strict=True):
        others = sum(torch.exp(state @ vectors[j]) * 40 / 4 for j in negatives.tolist() if j != target)
        wanted = wanted - state @ vectors[target] + torch.log(torch.exp(state @ vectors[target]) + others)
    assert_close(of_negatives.double(), wanted, rtol=1e-5, atol=0)
    everything = sampled_softmax(*case, torch.arange(40), log_q=uniform, correct_target=False)
    assert_close(everything, reference(*case), rtol=1e-5, atol=0)


def test_the_corrected_sum_over_popular_negatives_is_unbiased():
    states, vectors = torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([[0.0], [1.0], [-2.0]]).double()
    q = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    mean = 0.0  # over all pairs of draws, of the sum over all items but the target
    for one in range(3):
        for other in range(3):
            drawn = torch.tensor([one, other])
            loss = sampled_softmax(states, vectors, torch.tensor([1]), drawn, log_q=q.log(), correct_target=False)
            mean += float(q[one] * q[other] * (torch.exp(loss + 1) - torch.e))  # loss = log(e^1 + sum) - 1
    assert mean == pytest.approx(1 + torch.exp(torch.tensor(-2.0)).item(), abs=1e-5)


def test_a_correction_by_popularity_by_hand():
    states, vectors = torch.tensor([[1.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    log_q = torch.tensor([0.25, 0.25, 0.5]).log()
    found = sampled_softmax(states, vectors, torch.tensor([1]), torch.tensor([2, 0]), log_q=log_q)
    logits = torch.tensor([1.0, 2.0, 0.0]) - torch.tensor([0.25, 0.5, 0.25]).log()
    assert_close(found, logits.logsumexp(0) - logits[0])


def test_calibration_lowers_the_targets_probability_down_to_the_share_of_items_that_are_drawn():
    states, vectors = torch.tensor([[1.0]]), torch.tensor([[0.0], [1.0], [-1.0], [0.5], [2.0]])
    target, negative = torch.tensor([1]), torch.tensor([2])
    plain = binary_cross_entropy(states, vectors, target, negative)
    assert_close(calibrated_binary_cross_entropy(states, vectors, target, negative, calibration=0.0), plain / 2)
    found = calibrated_binary_cross_entropy(states, vectors, target, negative, calibration=1.0)
    s = torch.sigmoid(torch.tensor([1.0, -1.0]))
    assert_close(found, (-0.25 * s[0].log() - (1 - s[1]).log()) / 2)  # one of four others is drawn
    found = calibrated_binary_cross_entropy(states, vectors, target, torch.tensor([2, 1, 4]), calibration=0.5)
    power = 0.75 * (0.5 * (1 - 1 / 0.75) + 1 / 0.75)
    s = torch.sigmoid(torch.tensor([1.0, -1.0, 2.0]))
    assert_close(found, (-power * s[0].log() - (1 - s[1]).log() - (1 - s[2]).log()) / 4)  # its own target is left out


def test_in_batch_softmax_is_the_sum_over_rows_without_those_of_the_same_target():
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([7, 3, 7, 9, 7, 3])  # the items of the batch's targets
    states, table = torch.randn(6, 4, generator=generator), torch.randn(10, 4, generator=generator)
    corrupted = torch.randn(6, 4, generator=generator)
    candidates, counts = torch.unique(rows, return_counts=True)
    found = in_batch_softmax(
        states, table[candidates], torch.searchsorted(candidates, rows), counts, corrupted=corrupted
    )
    plain = in_batch_softmax(states, table[candidates], torch.searchsorted(candidates, rows), counts)
    h, e, f = states.double(), table.double(), corrupted.double()
    with_corrupted = without = torch.zeros((), dtype=torch.float64)
    for row, item in enumerate(rows.tolist()):
        others = sum(torch.exp(h[row] @ e[other]) for other in rows.tolist() if other != item)
        own = h[row] @ e[item]
        without = without - own + torch.log(own.exp() + others)
        with_corrupted = with_corrupted - own + torch.log(own.exp() + others + torch.exp(h[row] @ f[row]))
    assert_close(found.double(), with_corrupted, rtol=0, atol=1e-5)
    assert_close(plain.double(), without, rtol=0, atol=1e-5)


def test_binary_cross_entropy_by_hand():
    states, vectors = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0], [-1.0]])
    found = binary_cross_entropy(states, vectors, torch.tensor([1, 2]), torch.tensor([0, 1]))
    wanted = -torch.tensor([1.0, -0.0, -2.0, -2.0]).sigmoid().log().sum()  # s(1), 1 - s(0), s(-2), 1 - s(2)
    assert_close(found, wanted)


def test_negatives_are_uniform_over_all_items_but_the_target():
    torch.manual_seed(0)
    targets = torch.arange(5).repeat_interleave(4000)
    drawn = other_items(targets, 5)
    counts = torch.zeros(5, 5).index_put_((targets, drawn), torch.ones(len(targets)), accumulate=True)
    assert counts.diagonal().sum() == 0
    assert counts[~torch.eye(5, dtype=torch.bool)].sub(1000).abs().max() < 150


@pytest.mark.parametrize("n_vectors", [40, 1000])  # one block of columns, four
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_the_normaliser_is_the_logsumexp_of_all_logits(n_vectors, scale):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2048, 8, generator=generator) * scale
    vectors = torch.randn(n_vectors, 8, generator=generator)
    assert_close(log_normalizer(states, vectors), (states @ vectors.T).logsumexp(dim=1))
