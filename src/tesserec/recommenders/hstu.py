"""HSTU: attention without softmax, gated item by item, that may know how long ago everything was.

A layer makes four vectors of every item, all through SiLU: a gate, a value, a query, a key. Values of the history are
summed by SiLU of query times key, plus a learned number for how many places back the item is and, with times, one for
how long ago; the gate multiplies the normalised sum. Nothing divides by the sum of weights, so that a state can tell
how much of something a history holds, not only its share.

    U, V, Q, K = SiLU(norm(X) W)
    A_ij       = SiLU(q_i.k_j + p[i - j] + w[bucket(s_i - t_j)]) / T   for j <= i, else 0;   T = max_length
    X         += dropout(U * norm(A V)) W_o + b

Paper: Zhai et al. 2024, Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative
Recommendations (ICML 2024, arXiv 2402.17152), its setting for public data.

What the time bias may see is `time`; s_i is the moment that gaps of row i are counted to:

- "none": there is no w. Numbers of places are not passed off as seconds: that would be a second p.
- "history": s_i = t_i, the time of the newest item that the row knows. Training and answering see the same.
- "request": s_i = t_{i+1}, the time of the item to be predicted, in training, which is what the public code does; when
  answering, the newest item's time stands in for the last row's, so that its gap is 0 there and was not in training.
- "target": as "request", and `rank` (hence every report) is told the time of the target. **This leaks**: on logs with
  times of a day, gap 0 says that the target was taken on the same day, as 43 % of Amazon Beauty's last pairs are. It is
  there to compare with figures that were made so; `recommend` and `score` know of no target and answer as "request".

Differences from the paper (its public code where the paper is silent), each with its reason:

- The loss is cross-entropy over all items (published with `loss="sampled-softmax"`), heads are wider and the
  temperature lower: better on the validation part of Amazon Beauty (docs/methods/hstu.md).
- Without times there still is p; the public code loses both together.
- T is `max_length`, not one more, and p has a number for each of its distances; tables are per layer, shared by heads.
- The bucket of a gap of x seconds is floor(ln(max(x, 1)) / 0.301), at most 128, as in the public code, whose constant
  suggests a base of 2: neighbouring buckets differ by a factor of 1.35.
- Norms have weights and the output product a bias, as in later implementations; sequences lie in one row, without
  padding.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesserec.data.sequences import Sequences
from tesserec.data.splits import Cases, Split
from tesserec.errors import ConfigError, DataError
from tesserec.functional.dropout import Dropout
from tesserec.networks.transformer import Packed, pack, small_weights
from tesserec.recommenders.item_loss import ItemLoss
from tesserec.recommenders.item_table import ItemTable, ItemTableRecommender, NextItem
from tesserec.recommenders.next_item import Part, last_states
from tesserec.training.loop import Objective, Step
from tesserec.types import FloatArray, IntArray

N_BUCKETS, BUCKET_WIDTH = 129, 0.301  # of gaps in time; the width in natural logarithms of seconds


@dataclass(frozen=True, kw_only=True)
class HSTUConfig(ItemLoss):
    """The network and its loss."""

    width: int = 64  # of item embeddings and states
    n_layers: int = 4
    n_heads: int = 2
    head_width: int = 16  # of queries, keys, values and gates
    dropout: float = 0.5
    max_length: int = 50  # latest items of a history that are looked at, and what attention is divided by
    temperature: float = 0.05  # scores are cosines divided by it
    time: Literal["none", "history", "request", "target"] = "none"  # what the time bias sees; "target" leaks

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "n_layers", "n_heads", "head_width", "max_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use 1 or more.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}. Use 0 or more, and less than 1.")
        if not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature}. Use a value above 0 such as 0.05.")


# -- network -----------------------------------------------------------------------------------------------------------


class Clock(NamedTuple):
    """Times of P tokens, in seconds."""

    at: Tensor  # (P,) int64 t_i, when the token's item was taken
    until: Tensor  # (P,) int64 s_i, the moment that its row counts gaps to

    def to(self, device: torch.device) -> "Clock":
        return Clock(self.at.to(device), self.until.to(device))


def time_buckets(gaps: Tensor) -> Tensor:
    """Numbers in [0, N_BUCKETS) of gaps (...) in seconds: equal steps of their logarithm."""
    return (gaps.abs().clamp(min=1).float().log() / BUCKET_WIDTH).floor().long().clamp(max=N_BUCKETS - 1)


def pointwise_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, length: int) -> Tensor:
    """sum_{j <= i} SiLU(q_i.k_j + bias_ij) v_j / length.

    In float32 on a CPU, whose bfloat16 kernels are compiled for every new shape.

    Args:
        q, k: (B, H, T, D). v: (B, H, T, E).
        bias: (T, T), or (B, 1, T, T).

    Returns:
        (B, H, T, E).
    """
    on_cpu = q.device.type == "cpu"
    with torch.autocast("cpu", enabled=False) if on_cpu else nullcontext():
        q, k, v = (part.float() if on_cpu else part for part in (q, k, v))
        weights = F.silu(q @ k.transpose(-1, -2) + bias).tril() / length
        return weights @ v


class HSTULayer(nn.Module):
    """Gated pointwise attention, added to what comes in."""

    def __init__(self, config: HSTUConfig) -> None:
        super().__init__()
        inner = config.n_heads * config.head_width
        self.n_heads, self.length = config.n_heads, config.max_length
        self.norm, self.value_norm = nn.LayerNorm(config.width), nn.LayerNorm(inner)
        self.uvqk, self.out = nn.Linear(config.width, 4 * inner, bias=False), nn.Linear(inner, config.width)
        self.places = nn.Parameter(torch.randn(config.max_length) * 0.02)  # p
        self.gaps = nn.Parameter(torch.randn(N_BUCKETS) * 0.02) if config.time != "none" else None  # w
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, packed: Packed, buckets: Tensor | None) -> Tensor:
        """(P, D) -> (P, D); buckets: (B, T, T) of the gaps."""
        n_rows, length = packed.shape
        u, vqk = F.silu(self.uvqk(self.norm(x))).tensor_split([self.out.in_features], dim=1)  # (P, I), (P, 3 I)
        table = as_table(vqk, packed).view(n_rows, length, 3, self.n_heads, -1)
        v, q, k = table.permute(2, 0, 3, 1, 4)  # (B, H, T, I / H)
        back = torch.arange(length, device=x.device)
        bias = self.places[(back[:, None] - back).clamp(min=0)]  # (T, T), what lies above the diagonal is not used
        if self.gaps is not None and buckets is not None:
            bias = bias + F.embedding(buckets, self.gaps[:, None])[:, None, :, :, 0]  # (B, 1, T, T)
        seen = pointwise_attention(q, k, v, bias, self.length).transpose(1, 2).reshape(n_rows * length, -1)
        seen = seen.index_select(0, packed.slots.clamp(max=n_rows * length - 1))  # (P, I)
        return x + self.out(self.dropout(u * self.value_norm(seen)))  # type: ignore[no-any-return]


def as_table(tokens: Tensor, packed: Packed) -> Tensor:
    """Tokens (P, ...) in their places (B, T, ...); 0 where there is none."""
    n_places = packed.shape[0] * packed.shape[1]
    table = tokens.new_zeros(n_places + 1, *tokens.shape[1:]).index_copy(0, packed.slots, tokens)
    return table[:n_places].view(*packed.shape, *tokens.shape[1:])


class HSTUNetwork(ItemTable):
    """Histories -> a state after each item; scores are cosines with the item embeddings, over the temperature."""

    def __init__(self, n_items: int, config: HSTUConfig) -> None:
        super().__init__(n_items, config.width)
        self.scale, self.temperature = math.sqrt(config.width), config.temperature
        self.positions = nn.Embedding(config.max_length, config.width)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(HSTULayer(config) for _ in range(config.n_layers))
        small_weights(self)

    def forward(self, packed: Packed, clock: Clock | None = None) -> tuple[Tensor, Tensor]:
        """States (P, D) of the tokens, of length 1 / temperature, and item vectors (N, D), of length 1."""
        states = self.states(packed, clock)
        return F.normalize(states.float(), dim=-1) / self.temperature, self.vectors

    def states(self, packed: Packed, clock: Clock | None) -> Tensor:
        """(P, D) after the last layer."""
        buckets = None
        if clock is not None:
            until, at = as_table(clock.until, packed), as_table(clock.at, packed)
            buckets = time_buckets(until[:, :, None] - at[:, None, :])
        x = self.dropout(self.items(packed.items) * self.scale + self.positions(packed.slots % packed.shape[1]))
        for layer in self.layers:
            x = layer(x, packed, buckets)
        return x  # type: ignore[no-any-return]

    @property
    def vectors(self) -> Tensor:
        """(N, D) of length 1."""
        return F.normalize(self.items.weight, dim=-1)


# -- training ----------------------------------------------------------------------------------------------------------


class TimedPart(NamedTuple):
    """Inputs, their next items, and when all that was."""

    part: Part
    clock: Clock


class TimedNextItem(NextItem):
    """Objective: every item of a sequence predicts the one after it, knowing times."""

    config: HSTUConfig

    def step(self, rows: IntArray) -> Step:
        step = super().step(rows)
        return Step([TimedPart(part, self.clock(part)) for part in step.parts], step.n_targets)

    def clock(self, part: Part) -> Clock:
        """Of a part's inputs, each the event before its target."""
        targets = part.events.numpy()
        at, until = targets - 1, targets - 1 if self.config.time == "history" else targets
        return clock_of(self.sequences, at, until, n_tokens=len(part.inputs.items))

    def loss(self, model: nn.Module, part: Any, device: torch.device) -> Tensor:
        targets = part.part.targets.to(device)
        states, vectors = model(part.part.inputs.to(device), part.clock.to(device))
        return self.of(states[: len(targets)], vectors, targets)


def clock_of(sequences: Sequences, at: IntArray, until: IntArray, *, n_tokens: int) -> Clock:
    """Times of events (n,) of the data, and of those that their rows count gaps to; 0 for fillers up to n_tokens.

    Raises:
        DataError: the events have no times.
    """
    if sequences.times is None:
        raise DataError(
            "This hstu recommender counts gaps in time, and the events have no times. Give sequences with times (the "
            "data set must have been prepared from a log that has them), or train with time = 'none'."
        )
    fillers = (0, n_tokens - len(at))
    times = [np.pad(np.asarray(sequences.times[events]).astype(np.int64), fillers) for events in (at, until)]
    return Clock(*map(torch.from_numpy, times))


# -- recommender -------------------------------------------------------------------------------------------------------


class HSTU(ItemTableRecommender):
    """Next items by gated pointwise attention, with or without time."""

    method = "hstu"
    config_class = HSTUConfig
    network: HSTUNetwork | None

    def _make_network(self, n_items: int) -> HSTUNetwork:
        return HSTUNetwork(n_items, self.config)

    def _objective(self, split: Split) -> Objective:
        if self.config.time == "none":
            return super()._objective(split)
        objective = TimedNextItem(split.train, self.config, self.training)
        objective.step(np.arange(1))  # refuses events without times
        return objective

    @classmethod
    def told(cls, config: HSTUConfig) -> str:
        return "the time of the target" if config.time == "target" else ""

    def score(self, histories: Sequences) -> FloatArray:
        return self._scores(histories, target_times=False)

    def _score_cases(self, cases: Cases) -> FloatArray:
        if self.config.time != "target":
            return self.score(cases.histories)
        events, histories = cases.histories.stops, cases.histories
        if not np.array_equal(histories.values[np.minimum(events, len(histories.values) - 1)], cases.targets):
            raise DataError(
                "time is 'target', but the targets are not the events behind their histories, whose times it reads. "
                "Rank the cases of a split, or train with time = 'history'."
            )
        return self._scores(histories, target_times=True)

    @torch.inference_mode()
    def _scores(self, histories: Sequences, *, target_times: bool) -> FloatArray:
        """Args: target_times: the event behind a history is the target, and its time is known."""
        network = self._fitted_network
        vectors = network.vectors

        def states_of(some: Sequences) -> Tensor:
            packed, clock = pack(some), None
            if self.config.time != "none":
                rows, at = some.positions()
                until = at if self.config.time == "history" else at + 1
                if not target_times:
                    until = np.minimum(until, some.stops[rows] - 1)
                clock = clock_of(some, at, until, n_tokens=len(packed.items)).to(vectors.device)
            return network(packed.to(vectors.device), clock)[0]  # type: ignore[no-any-return]

        recent = histories.last(self.config.max_length)
        states = last_states(recent, states_of, width=self.config.width, device=vectors.device)
        scores: FloatArray = (states @ vectors.T).cpu().numpy()
        return scores

    @property
    def _fitted_network(self) -> HSTUNetwork:
        return self._fitted(self.network)
