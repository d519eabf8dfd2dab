"""LETTER: its losses by their formulas, clusters of any codebook, collaborative vectors of every kind of wrong."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from tesserec.data.catalogue import Catalogue
from tesserec.errors import ConfigError, DataError
from tesserec.functional.diversity import diversity_loss, sampled_diversity_loss
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers import load_tokenizer, make_tokenizer
from tesserec.tokenizers.letter import Letter, LetterConfig, cluster_bounds, collaborative_loss
from toy_items import clustered, embeddings_of

SMALL = LetterConfig(
    n_levels=3, codebook_size=16, hidden=(24,), latent_width=6, n_clusters=4, epochs=3, batch_size=50, precision="fp32",
    beta=0.05,
)  # fmt: skip
N_ITEMS = 150


def collaborative(n_items: int = N_ITEMS, width: int = 6) -> Embeddings:
    return embeddings_of(np.random.default_rng(5).normal(size=(n_items, width)))


# -- diversity ---------------------------------------------------------------------------------------------------------


def test_diversity_by_hand():
    """Codewords 0 and 1 are a cluster, 2 is alone and adds nothing."""
    codebook = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    loss = diversity_loss(codebook, torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 1]))
    expected = (2 * (np.log(np.exp(1) + np.exp(0)) - 1) + (np.log(np.exp(1) + np.exp(2)) - 1)) / 4
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_the_exact_diversity_loss_is_the_mean_of_the_sampled_one():
    random = torch.Generator().manual_seed(0)
    codebook = torch.randn(30, 4, generator=random)
    clusters = torch.tensor([0] * 10 + [1] * 15 + [2] * 4 + [3])  # the last one alone
    codes = torch.randint(30, (200,), generator=random)
    codes[:3] = 29
    draws = torch.stack([sampled_diversity_loss(codebook, codes, clusters, random) for _ in range(2000)])
    deviation = float(draws.std() / len(draws) ** 0.5)
    assert 0 < deviation < 0.005
    assert abs(float(draws.mean() - diversity_loss(codebook, codes, clusters))) < 4 * deviation


def test_sampled_positives_are_the_other_codewords_of_the_cluster_equally_often():
    """Only the drawn logit differs between draws, so its values tell which codeword was drawn."""
    codebook = torch.diag(torch.tensor([1.0, 1.0, 2.0, 4.0, 8.0])) + torch.tensor([[1.0, 0, 0, 0, 0]] * 5)
    clusters = torch.tensor([0, 1, 0, 0, 1])
    random = torch.Generator().manual_seed(1)
    logits = codebook @ codebook.T
    logits.fill_diagonal_(-torch.inf)
    expected = {round(float(torch.logsumexp(logits[2], 0) - logits[2, j]), 4): 0 for j in (0, 3)}
    for _ in range(400):
        expected[round(float(sampled_diversity_loss(codebook, torch.tensor([2]), clusters, random)), 4)] += 1
    assert all(150 < count < 250 for count in expected.values())


def test_gradients_of_the_diversity_loss_spread_out_codewords_of_different_clusters():
    codebook = torch.tensor([[1.0, 0.1], [1.0, 0.0], [0.9, 0.0], [0.9, 0.1]], requires_grad=True)
    clusters = torch.tensor([0, 0, 1, 1])
    diversity_loss(codebook, torch.arange(4), clusters).backward()
    moved = codebook.detach() - 0.5 * codebook.grad
    apart = lambda table: float(((table[:2].mean(0) - table[2:].mean(0)) ** 2).sum())  # noqa: E731
    assert apart(moved) > apart(codebook.detach())


@pytest.mark.parametrize("size", [2, 3, 8, 16, 19, 20, 64, 256, 600, 1024])
@pytest.mark.parametrize("wanted", [1, 4, 10, 300])
def test_cluster_bounds_can_be_met_and_leave_no_codeword_alone(size: int, wanted: int):
    n_clusters, size_min, size_max = cluster_bounds(size, wanted)
    assert n_clusters * size_min <= size <= n_clusters * size_max
    assert size_min >= 2
    assert 1 <= n_clusters <= wanted


# -- one step ----------------------------------------------------------------------------------------------------------


def by_the_formulas(
    weights: dict[str, Tensor], x: Tensor, h: Tensor, clusters: list[Tensor], config: LetterConfig
) -> tuple[Tensor, list[list[int]]]:
    """The loss and the codes, written from the paper's formulas and the released reductions, item by item."""

    def mlp(name: str, y: Tensor) -> Tensor:
        y = torch.relu(y @ weights[f"{name}.0.weight"].T + weights[f"{name}.0.bias"])
        return y @ weights[f"{name}.2.weight"].T + weights[f"{name}.2.bias"]

    z = mlp("encoder", x)
    residual, total, quantisation, diversity = z, torch.zeros_like(z), x.new_zeros(()), x.new_zeros(())
    codes = []
    for level in range(config.n_levels):
        table = weights[f"codebooks.{level}"]
        code = [int(((r - table) ** 2).sum(dim=1).argmin()) for r in residual.detach()]
        e = table[code]
        quantisation = quantisation + ((residual.detach() - e) ** 2).mean()
        quantisation = quantisation + 0.25 * ((residual - e.detach()) ** 2).mean()
        for c in code:
            logits = {j: table[c] @ table[j] for j in range(len(table)) if j != c}
            positives = [logits[j] for j in logits if clusters[level][j] == clusters[level][c]]
            log_sum = torch.logsumexp(torch.stack(list(logits.values())), 0)
            diversity = diversity + (log_sum - sum(positives) / len(positives)) / len(code)
        total = total + e
        straight = residual + (e - residual).detach()
        residual = residual - (straight if config.gradients == "released" else e.detach())
        codes.append(code)
    zq = z + (total - z).detach()
    contrast = torch.stack([torch.logsumexp(zq[i] @ h.T, 0) - zq[i] @ h[i] for i in range(len(zq))]).mean()
    loss = ((x - mlp("decoder", zq)) ** 2).mean() + quantisation / config.n_levels
    loss = loss + config.alpha * contrast + config.beta * diversity / config.n_levels
    return loss, np.array(codes).T.tolist()


@pytest.mark.parametrize("gradients", ["paper", "released"])
def test_one_step_is_that_of_the_formulas_in_double_precision(gradients):
    config = dataclasses.replace(SMALL, gradients=gradients, uniform=False, alpha=0.3)
    letter = Letter(config)
    letter.width = 10
    torch.manual_seed(0)
    network = letter._new_network()
    for codebook in network.codebooks:
        torch.nn.init.normal_(codebook, std=0.3)
    x, rows = torch.randn(50, 10), torch.arange(50)
    h = torch.from_numpy(collaborative(50).vectors)
    letter._begin(network, h)
    letter._begin_epoch(network, 1)

    weights = {name: p.detach().double().requires_grad_() for name, p in network.named_parameters()}
    clusters = [c.clone() for c in letter._clusters]
    expected, codes = by_the_formulas(weights, x.double(), h.double(), clusters, config)
    expected.backward()
    loss = letter._loss(network, x, rows)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    loss.backward()
    optimizer.step()

    assert letter._through(network, x).quantized.codes.shape == (50, 3)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for name, parameter in network.named_parameters():
        gradient = weights[name].grad
        torch.testing.assert_close(parameter.grad.double(), gradient, atol=1e-5, rtol=1e-3)
        stepped = weights[name].detach() * (1 - 1e-3 * 1e-4) - 1e-3 * gradient / (gradient.abs() + 1e-8)
        clear = gradient.abs() > 1e-4  # the first step has the sign of the gradient
        torch.testing.assert_close(parameter.detach().double()[clear], stepped[clear], atol=2e-5, rtol=0)
    with torch.no_grad():  # the codes of the step, from the weights before it
        for name, parameter in network.named_parameters():
            parameter.copy_(weights[name])
    assert letter._through(network, x).quantized.codes.tolist() == codes


def test_the_collaborative_loss_teaches_the_encoder_and_not_the_codebooks():
    letter = Letter(SMALL)
    letter.width = 10
    network = letter._new_network()
    for codebook in network.codebooks:
        torch.nn.init.normal_(codebook)
    found = letter._through(network, torch.randn(40, 10))
    collaborative_loss(found.quantized.latent, torch.randn(40, 6)).backward()
    assert network.encoder[0].weight.grad.abs().sum() > 0
    assert all(codebook.grad is None for codebook in network.codebooks)


def test_the_collaborative_loss_by_hand():
    z, h = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    expected = (np.log(np.exp(1) + 1) - 1 + np.log(np.exp(2) + 1) - 2) / 2
    assert collaborative_loss(z, h).item() == pytest.approx(expected, abs=1e-6)
    assert collaborative_loss(torch.zeros(8, 3), torch.randn(8, 3)).item() == pytest.approx(np.log(8))


# -- the tokenizer -----------------------------------------------------------------------------------------------------


def agreement(codes: np.ndarray, groups: np.ndarray) -> float:
    """Share of pairs of a group that have the same first code."""
    same = codes[:, None, 0] == codes[None, :, 0]
    pairs = (groups[:, None] == groups) & ~np.eye(len(groups), dtype=bool)
    return float(same[pairs].mean())


def test_items_that_are_taken_together_come_to_share_codes():
    """Two of ten equally loud properties of an item decide who takes it; only collaborative vectors say which."""
    random = np.random.default_rng(0)
    items = embeddings_of(random.normal(size=(400, 10)))
    groups = (items.vectors[:, 0] > 0) * 2 + (items.vectors[:, 1] > 0)
    h = embeddings_of(3 * np.eye(6)[groups] + 0.1 * random.normal(size=(400, 6)))
    config = dataclasses.replace(SMALL, epochs=40, learning_rate=3e-3, uniform=False, beta=0.0)
    without = Letter(dataclasses.replace(config, alpha=0.0)).fit(items).encode(items)
    with_them = Letter(dataclasses.replace(config, alpha=1.0)).fit(items, collaborative=h).encode(items)
    assert agreement(with_them.codes, groups) > agreement(without.codes, groups) + 0.05
    assert shared_group(with_them.codes, groups) > shared_group(without.codes, groups) + 0.2


def shared_group(codes: np.ndarray, groups: np.ndarray) -> float:
    """Share of pairs with the same first code that are of one group."""
    return agreement(groups[:, None], codes[:, 0])


@pytest.mark.parametrize("distance", ["euclidean", "cosine", "mixed"])
@pytest.mark.parametrize("diversity", ["exact", "sampled"])
def test_every_combination_reloads_and_encodes_alike(distance, diversity, tmp_path):
    config = dataclasses.replace(SMALL, distance=distance, diversity_loss=diversity)
    items = clustered(N_ITEMS)
    fitted = Letter(config).fit(items, collaborative=collaborative())
    fitted.save(tmp_path / "letter")
    loaded = load_tokenizer(tmp_path / "letter")
    np.testing.assert_array_equal(loaded.encode(items).codes, fitted.encode(items).codes)
    assert loaded.collaborative_fingerprint == collaborative().fingerprint
    lengths = [np.linalg.norm(table, axis=1) for table in fitted.codebooks]
    of_length_one = [bool(np.allclose(length, 1, atol=1e-5)) for length in lengths]
    assert of_length_one == {"euclidean": [False] * 3, "cosine": [True] * 3, "mixed": [True, True, False]}[distance]


def test_collaborative_vectors_are_taken_by_item_and_not_by_row():
    items, h = clustered(N_ITEMS), collaborative()
    order = np.random.default_rng(1).permutation(N_ITEMS)
    shuffled = Embeddings(Catalogue([h.catalogue.item_ids[row] for row in order]), h.vectors[order])
    first, second = (Letter(SMALL).fit(items, collaborative=given).encode(items) for given in (h, shuffled))
    assert first.fingerprint == second.fingerprint


def test_unusable_collaborative_vectors_are_refused():
    items = clustered(N_ITEMS)
    with pytest.raises(ConfigError, match="letter aligns its codes with collaborative item vectors"):
        Letter(SMALL).fit(items)
    with pytest.raises(DataError, match=r"shape \(150, 5\), but latent_width is 6"):
        Letter(SMALL).fit(items, collaborative=collaborative(width=5))
    with pytest.raises(DataError, match=r"no row for 30 of 150 items, such as \['i120', 'i121', 'i122'\]"):
        Letter(SMALL).fit(items, collaborative=collaborative(120))
    with pytest.raises(ConfigError, match="rqvae learns from no collaborative vectors"):
        make_tokenizer("rqvae").fit(items, collaborative=collaborative())


def test_without_the_collaborative_loss_no_vectors_are_needed():
    items = clustered(N_ITEMS)
    assert Letter(dataclasses.replace(SMALL, alpha=0.0)).fit(items).encode(items).n_levels == 3


@pytest.mark.parametrize("setting", [{"alpha": -1}, {"beta": -1}, {"n_clusters": 0}, {"recluster_every": 0}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        LetterConfig(**setting)
