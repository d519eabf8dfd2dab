"""RecGURU: users of two shops described in one space, in which nobody can tell which of the shops they come from.

An encoder that both domains share turns a history into a user vector g. Pre-training asks of it that a decoder of the
domain can rebuild the history from g, and that a critic cannot tell the domains of users apart by their g. Each domain
then has a recommender that reads the history together with g.

    g_t        = encoder(x_1 .. x_t)                                          one encoder; g of a history is its last
    L_rec      = -sum_t log p_d(x_t | x_1 .. x_{t-1}, g)                      a decoder per domain d
    L_critic   = mean C(g of b) - mean C(g of a) + penalty * mean (|grad C(between)| - 1)^2;   the encoder: its negative
    L_next     = -sum_t log q_d(x_{t+1} | x_1 .. x_t, g_1 .. g_t) + L_rec     a recommender per domain

Paper: Li et al. 2022, RecGURU: Adversarial Learning of Generalized User Representations for Cross-Domain Recommendation
(WSDM 2022, arXiv 2111.10093).

**What is uncertain.** We know its public code and its abstract, not the paper's text. That code does not do what it
sets out to: tuning ends after 300 steps, the loss of users of both domains is never added, the encoder hides the place
it reads g from, and validation asks for an item of the input. So this is what it means to do, built on this library's
blocks, and no reproduction; how others adapted it to five source domains (it is in the tables of UniSRec and VQ-Rec) is
not known. Data must have exactly two domains: join two data sets.

Differences from the public code, each with its reason:

- The encoder is causal, so that one pass gives g of every prefix: in tuning every item of a sequence has a loss.
- Critic and encoder share an optimiser, so that the one training loop does, whose runs can be resumed: in four steps of
  five the critic learns alone, in the fifth everything does, the encoder by the critic's gradient reversed.
- g enters decoder and recommender through a linear map that is added to their inputs; there it is the memory of a cross
  attention, which, all places of that memory being equal, is a constant of each layer.
- Losses are cross-entropies over all items of both domains, instead of a few sampled ones.
- There is no loss of users whom both domains know: users of joined data sets are of one domain each.
- Both domains are tuned at once, and validation decides how long.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tesserec.artifacts import fingerprint_json
from tesserec.data.join import item_domains
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split
from tesserec.errors import ConfigError, DataError
from tesserec.functional.dropout import Dropout
from tesserec.functional.losses import softmax_cross_entropy
from tesserec.networks.transformer import Packed, SequenceEncoder, pack, small_weights
from tesserec.progress import Progress
from tesserec.recommenders.item_table import ItemTable, ItemTableSettings, NextItem, PretrainedItemTable
from tesserec.recommenders.next_item import Part, last_states, next_items
from tesserec.training.config import TrainingConfig
from tesserec.training.devices import n_processes
from tesserec.training.loop import Step, Steps, train
from tesserec.training.seeds import seeded
from tesserec.types import FloatArray, IntArray

CHECKED = 4096  # sequences by which the log says how well domains can be told apart


@dataclass(frozen=True, kw_only=True)
class RecGURUConfig(ItemTableSettings):
    """Encoder, decoders and recommenders (all of the same size), and how they are trained."""

    width: int = 64  # of item embeddings, user vectors and states
    pretrain_epochs: int = 20  # of reconstruction and critic; 0: none
    warmup_epochs: int = 2  # the first of these, in which the critic learns but does not move the encoder
    critic_steps: int = 4  # of the critic alone before each step of everything
    adversarial: float = 1.0  # weight of the critic's gradient on user vectors; 0: domains stay apart
    penalty: float = 0.1  # weight of the critic's gradient penalty
    reconstruction: float = 1.0  # weight of L_rec beside the next items
    tune_encoder: bool = False  # whether next items move the encoder, too; reconstruction always does

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pretrain_epochs", "warmup_epochs", "critic_steps", "adversarial", "penalty", "reconstruction"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use 0 or more.")
        if not self.reconstruction and not self.tune_encoder:
            raise ConfigError("reconstruction is 0 and tune_encoder is off, so nothing would tune the encoder.")


# -- network -----------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """Sequences of both domains: a's part, then b's; None where a batch has none of a domain."""

    parts: tuple[Part | None, Part | None]
    learns: Literal["critic", "encoder", "all"] = "all"  # in pre-training

    def to(self, device: torch.device) -> "Pair":
        a, b = (part and part.to(device) for part in self.parts)
        return Pair((a, b), self.learns)


class GURNetwork(ItemTable):
    """Item vectors, the encoder of user vectors, and a decoder for each domain."""

    def __init__(self, n_items: int, config: RecGURUConfig) -> None:
        super().__init__(n_items, config.width)
        self.config, width = config, config.width
        self.encoder = SequenceEncoder(width, config, input_norm=False)
        self.decoders = nn.ModuleList(SequenceEncoder(width, config, input_norm=False) for _ in range(2))
        self.user_maps = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.start = nn.Parameter(torch.randn(1, width))  # stands before the first item that is rebuilt
        small_weights(self.items, self.encoder, self.decoders, self.user_maps)

    def read(self, packed: Packed) -> Tensor:
        """(P, D) items as encoder, decoders and recommenders read them: SASRec's scale."""
        vectors: Tensor = self.items(packed.items) * self.config.width**0.5
        return vectors

    def users(self, packed: Packed) -> tuple[Tensor, Tensor]:
        """g after each token (P, D), and after the last of each sequence (B, D)."""
        states = self.encoder(packed, self.read(packed))
        n_rows, length = packed.shape
        rows = packed.slots // length  # fillers: row B
        return states, states[torch.searchsorted(rows, torch.arange(n_rows, device=rows.device), right=True) - 1]

    def reconstruction(self, packed: Packed, n: int, users: Tensor, domain: int) -> Tensor:
        """L_rec of the n items of packed sequences, whose user vectors are (B, D)."""
        before = self.read(packed).roll(1, dims=0)
        first = packed.slots % packed.shape[1] == 0
        of_row = (packed.slots // packed.shape[1]).clamp(max=packed.shape[0] - 1)
        inputs = torch.where(first[:, None], self.start, before) + self.user_maps[domain](users)[of_row]
        states = self.decoders[domain](packed, inputs)
        return softmax_cross_entropy(states[:n], self.items.weight, packed.items[:n])


class Reverse(torch.autograd.Function):
    """x, whose gradient comes back times minus a weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * -ctx.weight, None


def gradient_penalty(critic: Callable[[Tensor], Tensor], between: Tensor) -> Tensor:
    """mean (|grad critic(x)| - 1)^2 over rows x (n, D), a scalar that can be differentiated."""
    between = between.detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (slope.norm(dim=1) - 1).square().mean()
    return penalty


class GURPretext(GURNetwork):
    """With the critic of user vectors: D -> 5 D -> 10 D -> 5 D -> 1."""

    def __init__(self, n_items: int, config: RecGURUConfig) -> None:
        super().__init__(n_items, config)
        sizes = [config.width * factor for factor in (1, 5, 10, 5)]
        hidden = [[nn.Linear(n, m), nn.ReLU(), Dropout(0.2)] for n, m in pairwise(sizes)]
        self.critic = nn.Sequential(*chain(*hidden), nn.Linear(sizes[-1], 1))

    def forward(self, pair: Pair) -> Tensor:
        """The summed loss of a pair: L_rec + n L_critic, whose gradient moves the encoder the other way."""
        loss: Tensor = self.items.weight.new_zeros(())
        n, users = 0, list[Tensor]()
        for domain, part in enumerate(pair.parts):
            if part is None:
                continue
            with torch.set_grad_enabled(pair.learns != "critic" and torch.is_grad_enabled()):
                last = self.users(part.inputs)[1]
                if pair.learns != "critic":
                    loss = loss + self.reconstruction(part.inputs, len(part.targets), last, domain)
            users.append(last)
            n += len(part.targets)
        if len(users) < 2:
            contest: Tensor = 0.0 * self.critic(users[0]).sum()  # nobody to tell apart
        else:
            contest = self.contest(*users, weight=self.config.adversarial if pair.learns == "all" else 0.0)
        return loss + n * contest

    def contest(self, a: Tensor, b: Tensor, *, weight: float) -> Tensor:
        """L_critic of user vectors (n_a, D) and (n_b, D), whose own gradient is minus `weight` times that.

        In float32: it has the gradient of a gradient.
        """
        with torch.autocast(a.device.type, enabled=False):
            a, b = a.float(), b.float()
            apart = self.critic(Reverse.apply(b, weight)).mean() - self.critic(Reverse.apply(a, weight)).mean()  # type: ignore[no-untyped-call]
            n = min(len(a), len(b))
            shares = torch.rand(n, 1, device=a.device)
            between = shares * a[:n] + (1 - shares) * b[:n]
            loss: Tensor = apart + self.config.penalty * gradient_penalty(self.critic, between)
            return loss


class RecGURUNetwork(GURNetwork):
    """With a recommender for each domain."""

    domain_of: Tensor

    def __init__(self, n_items: int, config: RecGURUConfig) -> None:
        super().__init__(n_items, config)
        self.recommenders = nn.ModuleList(SequenceEncoder(config.width, config, input_norm=False) for _ in range(2))
        self.hints = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(2))
        self.register_buffer("domain_of", torch.zeros(n_items, dtype=torch.int64))  # (N,) of the items
        small_weights(self.recommenders, self.hints)

    def forward(self, pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
        """States before each target (n, D), a's then b's; item vectors (N, D); L_rec."""
        states, loss = list[Tensor](), self.items.weight.new_zeros(())
        for domain, part in enumerate(pair.parts):
            if part is not None:
                users, last = self.users(part.inputs)
                n = len(part.targets)
                states.append(self.states(part.inputs, users, domain)[:n])
                if self.config.reconstruction:
                    loss = loss + self.reconstruction(part.inputs, n, last, domain)
        return torch.cat(states), self.vectors, loss

    def states(self, packed: Packed, users: Tensor, domain: int) -> Tensor:
        """(P, D) of the recommender of a domain, from user vectors (P, D)."""
        users = users if self.config.tune_encoder else users.detach()
        states: Tensor = self.recommenders[domain](packed, self.read(packed) + self.hints[domain](users))
        return states


# -- training ----------------------------------------------------------------------------------------------------------


class PairSteps(NextItem):
    """Steps of as many sequences of each domain, each step one pair; the domain of a sequence is its first item's."""

    def __init__(
        self, sequences: Sequences, domain_of: IntArray, config: RecGURUConfig, training: TrainingConfig
    ) -> None:
        super().__init__(sequences, config, training, item_domains=domain_of)
        self.domain_of = domain_of

    def steps(self, epoch: int) -> Steps:
        """
        Raises:
            ConfigError: several processes train together, which they only know once training has begun.
        """
        if n_processes() > 1:
            raise ConfigError(f"recguru trains in one process, not in {n_processes()}. Launch it without accelerate.")
        return super().steps(epoch)

    def step(self, rows: IntArray) -> Step:
        batch = self.sequences.take(rows)
        domains = self.domain_of[batch.values[batch.starts]]
        a, b = (batch.take(np.flatnonzero(domains == domain)) for domain in range(2))
        pair = Pair((next_items(a) if len(a) else None, next_items(b) if len(b) else None))
        return Step([pair], int((batch.lengths - 1).sum()))


class Tuning(PairSteps):
    """Objective: every item predicts the next one, and every sequence can be rebuilt."""

    config: RecGURUConfig

    def loss(self, model: nn.Module, part: Any, device: torch.device) -> Tensor:
        pair = part.to(device)
        states, vectors, rebuilt = model(pair)
        targets = torch.cat([half.targets for half in pair.parts if half is not None])
        loss: Tensor = self.of(states, vectors, targets) + self.config.reconstruction * rebuilt
        return loss


class Pretraining(PairSteps):
    """Objective: every sequence can be rebuilt from its user vector, which does not tell its domain."""

    config: RecGURUConfig

    def steps(self, epoch: int) -> "PretrainingEpoch":
        return PretrainingEpoch(self, super().steps(epoch), warm=epoch < self.config.warmup_epochs)

    def n_steps(self, epoch: int) -> int:
        return super().n_steps(epoch) * (1 + self.config.critic_steps)

    def loss(self, model: nn.Module, part: Any, device: torch.device) -> Tensor:
        loss: Tensor = model(part.to(device))
        return loss

    @torch.no_grad()
    def told_apart(self, network: GURNetwork, device: torch.device) -> float:
        """The share of users whose domain a linear probe finds from g; .5: none better than by chance."""
        rows = self.order(0)[:CHECKED]
        (pair,) = self.step(rows).parts
        a, b = (network.users(part.inputs.to(device))[1].cpu() for part in pair.parts if part is not None)
        return probe_accuracy(a, b)


@dataclass(frozen=True)
class PretrainingEpoch:
    """The steps of one epoch."""

    objective: Pretraining
    batches: Steps
    warm: bool

    def __getitem__(self, index: int, /) -> Step:
        """Some steps of the critic, on the batches before, then one of everything."""
        n_critic = self.objective.config.critic_steps
        number, ahead = divmod(index, n_critic + 1)
        n_batches = self.objective.n_steps(0) // (n_critic + 1)
        step = self.batches[(number + ahead - n_critic) % n_batches]
        learns = "critic" if ahead < n_critic else "encoder" if self.warm else "all"
        return replace(step, parts=[pair._replace(learns=learns) for pair in step.parts])


def probe_accuracy(a: Tensor, b: Tensor) -> float:
    """The share of rows of a (n, D) and b (m, D) that a linear probe of every other row assigns right in the rest."""
    n = min(len(a), len(b))
    x = torch.cat([a[:n], b[:n]]).double()
    x = torch.cat([(x - x.mean(0)) / x.std(0).clamp(min=1e-9), x.new_ones(2 * n, 1)], dim=1)
    y = torch.cat([-x.new_ones(n, 1), x.new_ones(n, 1)])
    fitted, asked = x[::2], x[1::2]
    ridge = fitted.T @ fitted + torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(ridge, fitted.T @ y[::2])
    return float(((asked @ weights > 0) == (y[1::2] > 0)).double().mean())


# -- recommender -------------------------------------------------------------------------------------------------------


class RecGURU(PretrainedItemTable):
    """Next items in two domains, by user vectors that do not tell which."""

    method = "recguru"
    config_class = RecGURUConfig
    network: RecGURUNetwork | None

    def __init__(self, config: RecGURUConfig | None = None, training: TrainingConfig | None = None) -> None:
        super().__init__(config, training)  # the "validation" of its pre-training is minus the share of domains found
        self._domain_of: IntArray = np.zeros(0, dtype=np.int64)  # (N,) of the items, once known

    def _make_network(self, n_items: int) -> RecGURUNetwork:
        network = RecGURUNetwork(n_items, self.config)
        if len(self._domain_of):
            network.domain_of.copy_(torch.from_numpy(self._domain_of))
        return network

    def _objective(self, split: Split) -> Tuning:
        self._domain_of = two_domains(split)
        return Tuning(split.train, self._domain_of, self.config, self.training)

    def _pretrain(self, split: Split, checkpoints: Path | None, progress: Progress) -> None:
        """Item embeddings, encoder and decoders as reconstruction and critic leave them."""
        epochs = self.config.pretrain_epochs
        training = replace(
            self.training, epochs=epochs, max_steps=None, validate_every=epochs
        )  # the last weights count
        objective = Pretraining(split.train, self._domain_of, self.config, training)
        with seeded(training.seed, 1):
            network = GURPretext(split.n_items, self.config)
        self.pretraining_log = train(
            network,
            objective,
            training,
            validate=lambda _: -objective.told_apart(network, network.start.device),
            checkpoints=checkpoints,
            identity=fingerprint_json([self.full_config, self.sources, split.name]),
            measure="minus domains told apart",
            progress=progress,
        )
        own = self._fitted_network.state_dict()
        kept = {name: weight for name, weight in network.state_dict().items() if name in own}
        self._fitted_network.load_state_dict({**own, **kept})

    @torch.inference_mode()
    def score(self, histories: Sequences) -> FloatArray:
        """By the recommender of the domain of each history's first item."""
        network = self._fitted_network
        vectors = network.vectors
        recent = histories.last(self.config.max_length)
        states = torch.zeros(len(histories), self.config.width, device=vectors.device)
        filled = np.flatnonzero(histories.lengths)
        domains = network.domain_of.cpu().numpy()[histories.values[histories.starts[filled]]]
        for domain in range(2):

            def states_of(some: Sequences, domain: int = domain) -> Tensor:
                packed = pack(some).to(vectors.device)
                return network.states(packed, network.users(packed)[0], domain)

            rows = filled[domains == domain]
            states[torch.from_numpy(rows).to(vectors.device)] = last_states(
                recent.take(rows), states_of, width=self.config.width, device=vectors.device
            )
        scores: FloatArray = (states @ vectors.T).cpu().numpy()
        return scores

    @property
    def _fitted_network(self) -> RecGURUNetwork:
        return self._fitted(self.network)


def two_domains(split: Split) -> IntArray:
    """(N,) 0 or 1, the domain of each item.

    Raises:
        ConfigError: the items have no domains.
        DataError: there are other than two, or one without sequences to learn from.
    """
    domains = item_domains(split.dataset)
    if domains is None:
        raise ConfigError(
            "recguru learns from two domains, and the items have no column 'domain'. Join two data sets with "
            "`tesserec join`, or choose another recommender."
        )
    if (n_domains := len(np.unique(domains))) != 2:
        raise DataError(f"recguru learns from two domains, and these items are of {n_domains}. Join two data sets.")
    long = split.train.lengths > 1
    trained = np.unique(domains[split.train.values[split.train.starts[long]]])
    if len(trained) < 2:
        raise DataError(f"Only {len(trained)} of the two domains has users with two events to learn from.")
    return domains
