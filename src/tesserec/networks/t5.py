"""A T5-style encoder-decoder on PyTorch attention, made for short targets and many hypotheses per user.

The arithmetic is that of T5 (Raffel et al. 2020, arXiv 1910.10683): RMS normalisation before each sub-layer, no biases,
unscaled attention with a learned relative-position bias shared by all layers of a stack, ReLU feed-forward. A test
loads a Hugging Face T5's weights into it and compares logits.

What differs is the layout. The decoder takes W chains per user: their queries are extra positions of one product with
the user's encoder keys, so neither encoder states nor cross-attention keys are ever copied per beam. A chain is W = 1
training target, W prefixes to be scored, or W hypotheses of a beam search that extends its chains by a code at a time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tesserec.errors import ConfigError
from tesserec.functional.attention import attend, cross_attention, self_attention, split_heads
from tesserec.functional.dropout import Dropout, dropout
from tesserec.functional.norms import rms_norm


@dataclass(frozen=True, kw_only=True)
class T5Config:
    """Sizes of both stacks; the defaults are those of the TIGER paper."""

    width: int = 128
    ff_width: int = 1024
    n_layers: int = 4  # of the encoder and of the decoder
    n_heads: int = 6
    head_width: int = 64
    dropout: float = 0.1
    n_buckets: int = 32  # of relative distance
    max_distance: int = 128  # distances beyond share the last bucket

    def __post_init__(self) -> None:
        for name in ("width", "ff_width", "n_layers", "n_heads", "head_width", "n_buckets", "max_distance"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use 1 or more.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}. Use a value from 0 up to, but below, 1.")


class RMSNorm(nn.Module):
    """x / rms(x) * weight (T5's layer norm)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, eps=1e-6)


class FeedForward(nn.Module):
    """wo(dropout(relu(wi(x))))."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.norm = RMSNorm(config.width)
        self.wi = nn.Linear(config.width, config.ff_width, bias=False)
        self.wo = nn.Linear(config.ff_width, config.width, bias=False)
        self.p = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.wo(dropout(torch.relu(self.wi(self.norm(x))), self.p, training=self.training))
        return hidden


class SelfAttention(nn.Module):
    """Attention among the positions of one sequence, or of one chain and its past."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.n_heads, self.p = config.n_heads, config.dropout
        inner = config.n_heads * config.head_width
        self.norm = RMSNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, config.width, bias=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D); bias (heads, T, T) or (B, heads, T, T)."""
        p = self.p if self.training else 0.0
        out: Tensor = self.out(self_attention(self.qkv(self.norm(x)), bias, self.n_heads, p))
        return out

    def extend(self, x: Tensor, past: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """One more position of W hypotheses (B, W, D), which see what `bias` (B, heads, W, S + W) lets them see.

        Returns the output and the past, keys and values (2, B, heads, S, d), with theirs appended.
        """
        q, k, v = split_heads(self.qkv(self.norm(x)), 3, self.n_heads)
        past = torch.cat([past, torch.stack([k, v])], dim=3)
        out: Tensor = self.out(attend(q, past[0], past[1], bias).transpose(1, 2).flatten(2))
        return out, past


class CrossAttention(nn.Module):
    """Attention from all chains of a user to the encoder states of that user."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.n_heads, self.p = config.n_heads, config.dropout
        inner = config.n_heads * config.head_width
        self.norm = RMSNorm(config.width)
        self.q = nn.Linear(config.width, inner, bias=False)
        self.kv = nn.Linear(config.width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, config.width, bias=False)

    def keys(self, states: Tensor) -> Tensor:
        """(B, T, D) -> keys and values (2, B, heads, T, d): computed once per user."""
        return split_heads(self.kv(states), 2, self.n_heads)

    def forward(self, x: Tensor, keys: Tensor, bias: Tensor | None) -> Tensor:
        """x: (B, P, D), P query positions of each user, whichever chain they belong to."""
        p = self.p if self.training else 0.0
        out: Tensor = self.out(cross_attention(self.q(self.norm(x)), keys, bias, p))
        return out


class RelativeBias(nn.Module):
    """A learned number per head and bucket of relative distance (T5, section 2.1)."""

    def __init__(self, config: T5Config, *, bidirectional: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(config.n_buckets, config.n_heads)
        self.bidirectional, self.max_distance = bidirectional, config.max_distance

    def forward(self, n_queries: int, n_keys: int) -> Tensor:
        """(heads, Tq, Tk); the queries are the last positions of the keys."""
        device = self.table.weight.device
        queries = torch.arange(n_keys - n_queries, n_keys, device=device)
        distance = torch.arange(n_keys, device=device)[None, :] - queries[:, None]
        buckets = distance_bucket(
            distance, self.table.num_embeddings, self.max_distance, bidirectional=self.bidirectional
        )
        bias: Tensor = self.table(buckets)
        return bias.permute(2, 0, 1)


def distance_bucket(distance: Tensor, n_buckets: int, max_distance: int, *, bidirectional: bool) -> Tensor:
    """Bucket of (key position - query position): exact when near, logarithmic further away.

    Causal stacks (not bidirectional) put every key that lies ahead into bucket 0; those are masked anyway.
    """
    offset = torch.zeros_like(distance)
    if bidirectional:
        n_buckets //= 2
        offset = (distance > 0) * n_buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = n_buckets // 2
    log_ratio = torch.log(distance.float().clamp(min=1) / exact) / math.log(max_distance / exact)
    far = (exact + (log_ratio * (n_buckets - exact)).long()).clamp(max=n_buckets - 1)
    return offset + torch.where(distance < exact, distance, far)


class EncoderLayer(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.attention, self.feed_forward = SelfAttention(config), FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(x, bias))
        return torch.add(x, self.dropout(self.feed_forward(x)))


class DecoderLayer(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.attention, self.cross = SelfAttention(config), CrossAttention(config)
        self.feed_forward = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, bias: Tensor, keys: Tensor, key_bias: Tensor | None) -> Tensor:
        """x: (B, W, T, D), W chains of T positions per user."""
        x = x + self.dropout(self.attention(x.flatten(0, 1), bias)).view(x.shape)
        return self._rest(x.flatten(1, 2), keys, key_bias).view(x.shape)

    def extend(
        self, x: Tensor, past: Tensor, bias: Tensor, keys: Tensor, key_bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """One more position of every hypothesis, x (B, W, D); see `SelfAttention.extend`."""
        attended, past = self.attention.extend(x, past, bias)
        return self._rest(x + attended, keys, key_bias), past

    def _rest(self, x: Tensor, keys: Tensor, key_bias: Tensor | None) -> Tensor:
        """x: (B, P, D): all chains are query positions of their user."""
        x = x + self.dropout(self.cross(x, keys, key_bias))
        return torch.add(x, self.dropout(self.feed_forward(x)))


@dataclass
class Memory:
    """What the decoder knows of B users: cross-attention keys per layer, computed once."""

    keys: list[Tensor]  # per layer (2, B, heads, T, d)
    key_bias: Tensor | None  # (B, 1, 1, T), -inf at padding; None if there is none

    @classmethod
    def join(cls, parts: Sequence["Memory"]) -> "Memory":
        """The users of all parts one after the other, padded to the longest: encoded apart, decoded together."""
        if len(parts) == 1:
            return parts[0]
        lengths = [part.keys[0].shape[3] for part in parts]
        missing = [max(lengths) - length for length in lengths]
        keys = [
            torch.cat([F.pad(layer, (0, 0, 0, n)) for layer, n in zip(layers, missing, strict=True)], dim=1)
            for layers in zip(*(part.keys for part in parts), strict=True)
        ]
        biases = []
        for part, n in zip(parts, missing, strict=True):
            first = part.keys[0]
            bias = first.new_zeros(first.shape[1], 1, 1, first.shape[3]) if part.key_bias is None else part.key_bias
            biases.append(F.pad(bias, (0, n), value=-torch.inf))
        return cls(keys, torch.cat(biases))


@dataclass
class Past:
    """Keys of all hypotheses that a beam search has extended so far, never reordered.

    `visible` says for each current hypothesis which of the S stored positions are its ancestors; `steps` gives the step
    of each stored position, from which the relative distance follows.
    """

    layers: list[Tensor]  # per layer keys and values (2, B, heads, S, d)
    visible: Tensor  # (B, W, S) bool
    steps: list[int] = field(default_factory=list)  # S entries: the step at which each position was stored


class T5(nn.Module):
    """Encoder and decoder stacks; embeddings and output heads belong to the recommender."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.n_layers))
        self.encoder_bias = RelativeBias(config, bidirectional=True)
        self.decoder_bias = RelativeBias(config, bidirectional=False)
        self.encoder_norm, self.decoder_norm = RMSNorm(config.width), RMSNorm(config.width)
        self.dropout = Dropout(config.dropout)
        self.reset_parameters()

    @property
    def _decoder_layers(self) -> list[DecoderLayer]:
        return [cast(DecoderLayer, layer) for layer in self.decoder]

    def reset_parameters(self) -> None:
        """T5's initialisation, which goes with its unscaled attention: the query projection carries 1 / sqrt(d)."""
        width, inner = self.config.width, self.config.n_heads * self.config.head_width
        for module in self.modules():
            if isinstance(module, SelfAttention):
                nn.init.normal_(module.qkv.weight, std=width**-0.5)
                nn.init.normal_(module.qkv.weight[:inner], std=(width * self.config.head_width) ** -0.5)
                nn.init.normal_(module.out.weight, std=inner**-0.5)
            elif isinstance(module, CrossAttention):
                nn.init.normal_(module.q.weight, std=(width * self.config.head_width) ** -0.5)
                nn.init.normal_(module.kv.weight, std=width**-0.5)
                nn.init.normal_(module.out.weight, std=inner**-0.5)
            elif isinstance(module, FeedForward):
                nn.init.normal_(module.wi.weight, std=width**-0.5)
                nn.init.normal_(module.wo.weight, std=self.config.ff_width**-0.5)
            elif isinstance(module, RelativeBias):
                nn.init.normal_(module.table.weight, std=width**-0.5)

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> Memory:
        """Encoder states of B histories, as the decoder needs them.

        Args:
            x: (B, T, D) embedded tokens, padded on the right.
            lengths: (B,) real tokens of each; None: all have T, and no mask is computed.
        """
        positions = x.shape[1]
        bias, key_bias = self.encoder_bias(positions, positions), None
        if lengths is not None:
            padding = torch.arange(positions, device=x.device)[None, :] >= lengths[:, None]
            key_bias = torch.zeros_like(padding, dtype=x.dtype).masked_fill(padding, -torch.inf)[:, None, None, :]
            bias = bias + key_bias
        x = self.dropout(x)
        for layer in self.encoder:
            x = layer(x, bias)
        states = self.dropout(self.encoder_norm(x))
        return Memory([layer.cross.keys(states) for layer in self._decoder_layers], key_bias)

    def decode(self, x: Tensor, memory: Memory) -> Tensor:
        """States of whole chains, each position seeing those before it.

        Args:
            x: (B, W, T, D) embedded decoder inputs of W chains per user, the start token first.

        Returns:
            (B, W, T, D); the state at position l predicts the code of level l.
        """
        positions = x.shape[2]
        causal = torch.full((positions, positions), -torch.inf, device=x.device).triu(1)
        bias = self.decoder_bias(positions, positions) + causal
        x = self.dropout(x)
        for layer, keys in zip(self.decoder, memory.keys, strict=True):
            x = layer(x, bias, keys, memory.key_bias)
        states: Tensor = self.dropout(self.decoder_norm(x))
        return states

    def begin(self, memory: Memory) -> Past:
        """The past of a beam search that has not started."""
        empty = [keys[:, :, :, :0] for keys in memory.keys]
        return Past(empty, torch.zeros(empty[0].shape[1], 1, 0, dtype=torch.bool, device=empty[0].device))

    def extend(self, x: Tensor, parents: Tensor | None, past: Past, memory: Memory) -> tuple[Tensor, Past]:
        """One more step of a beam search.

        Args:
            x: (B, W, D) embedded latest codes of the current hypotheses (the start token at first).
            parents: (B, W) which hypothesis of the previous step each one continues; None at the first step.

        Returns:
            States (B, W, D) that predict the next code, and the past including this step.
        """
        batch, width = x.shape[:2]
        step = past.steps[-1] + 1 if past.steps else 0
        visible = past.visible
        if parents is not None:
            visible = visible.gather(1, parents[:, :, None].expand(-1, -1, visible.shape[2]))
        own = torch.eye(width, dtype=torch.bool, device=x.device).expand(batch, width, width)
        visible = torch.cat([visible, own], dim=2)
        steps = past.steps + [step] * width
        by_distance = self.decoder_bias(1, step + 1)[:, 0]  # (heads, step + 1), by the step of the key
        bias = by_distance[:, torch.tensor(steps, device=x.device)][None, :, None, :]
        bias = bias.masked_fill(~visible[:, None], -torch.inf)
        layers = []
        for layer, keys, layer_past in zip(self._decoder_layers, memory.keys, past.layers, strict=True):
            x, layer_past = layer.extend(x, layer_past, bias, keys, memory.key_bias)
            layers.append(layer_past)
        return self.decoder_norm(x), Past(layers, visible, steps)
