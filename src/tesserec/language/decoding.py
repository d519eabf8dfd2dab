"""Beams of a causal language model behind one prompt: a prefill per user, then a tree of query positions.

The prompt of a user is read once. The hypotheses of a beam are further positions behind it, all in one row: a mask lets
each see the prompt and its own ancestors, and its position number is that of its depth. So no key or value is copied
per beam, and nothing is reordered. The library's own search copies the prompt for every beam before it reads it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tesserec.environment import require_library
from tesserec.language.model import LanguageModel
from tesserec.types import IntArray

MASK_ENTRIES = 1 << 25  # of a mask at a time, when all nodes of a trie are scored: 128 MB

KeysValues = list[tuple[Tensor, Tensor]]  # of each layer: (B, heads, T, d)


class PromptDecoder:
    """A batch of users whose prompts are read in (a `Decoder` of `tesserec.recommenders.generative`)."""

    def __init__(self, model: LanguageModel, prompts: Sequence[IntArray]) -> None:
        """prompts: the tokens of each of B users, similar in length."""
        self.model, device = model, model.device
        self.lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        longest = int(self.lengths.max())
        tokens = torch.zeros(len(prompts), longest, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.from_numpy(prompt)
        output = model.states(tokens.to(device), use_cache=True)
        states = output.last_hidden_state
        self.cache = output.past_key_values
        self.prompt: KeysValues = [(layer.keys, layer.values) for layer in self.cache.layers]
        self.last = states[torch.arange(len(prompts), device=device), self.lengths - 1][:, None]  # (B, 1, D)
        self.real = torch.arange(longest, device=device) < self.lengths[:, None]  # (B, T)
        self.ancestors = torch.zeros(len(prompts), 1, 0, dtype=torch.bool, device=device)  # (B, W, tree positions)

    def step(self, level: int, parents: Tensor | None, codes: Tensor | None) -> Tensor:
        """One step of a beam search; see `tesserec.functional.beam.Step`."""
        if parents is None or codes is None:
            return self.model.log_probs(self.last, level)
        n_users, width = codes.shape
        seen = self.ancestors.gather(1, parents[..., None].expand(-1, -1, self.ancestors.shape[2]))
        itself = torch.eye(width, dtype=torch.bool, device=codes.device).expand(n_users, -1, -1)
        self.ancestors = torch.cat([seen, itself], dim=2) if level > 1 else itself
        visible = torch.cat([self.real[:, None].expand(-1, width, -1), self.ancestors], dim=2)
        positions = (self.lengths + level - 1)[:, None].expand(-1, width)
        states = self._extend(self.model.code_tokens(level - 1)[codes], positions, visible, self.cache)
        return self.model.log_probs(states, level)

    def node_log_probs(self, level: int, prefixes: Tensor) -> Tensor:
        """All nodes of a level at once; see `tesserec.functional.exact.NodeLogProbs`."""
        if level == 0:
            return self.model.log_probs(self.last, 0)
        n_nodes = len(prefixes)
        tokens = torch.stack([self.model.code_tokens(depth)[prefixes[:, depth]] for depth in range(level)], dim=1)
        node = torch.arange(n_nodes, device=tokens.device).repeat_interleave(level)
        depth = torch.arange(level, device=tokens.device).repeat(n_nodes)
        chain = (node[:, None] == node) & (depth[:, None] >= depth)  # (n * level, n * level)
        n_users = max(1, MASK_ENTRIES // (chain.shape[0] * (chain.shape[1] + self.real.shape[1])))
        parts = list[Tensor]()
        for users in torch.split(torch.arange(len(self.lengths), device=tokens.device), n_users):
            real = self.real[users, None].expand(-1, len(node), -1)
            visible = torch.cat([real, chain.expand(len(users), -1, -1)], dim=2)
            cache = _cache([(keys[users], values[users]) for keys, values in self.prompt])
            positions = self.lengths[users, None] + depth
            states = self._extend(tokens.flatten().expand(len(users), -1), positions, visible, cache)
            last = states.view(len(users), n_nodes, level, -1)[:, :, -1]
            parts.append(self.model.log_probs(last, level))
        return torch.cat(parts)

    def _extend(self, tokens: Tensor, positions: Tensor, visible: Tensor, cache: Any) -> Tensor:
        """States (B, Q, D) of further positions: tokens and position numbers (B, Q), visible (B, Q, T + Q) bool."""
        dtype = self.last.dtype
        mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
        mask.masked_fill_(~visible, torch.finfo(dtype).min)
        output = self.model.states(
            tokens, position_ids=positions, attention_mask=mask[:, None], past_key_values=cache, use_cache=True
        )
        states: Tensor = output.last_hidden_state
        return states


def _cache(layers: KeysValues) -> Any:
    """A cache of the library with these keys and values in it."""
    cache = require_library("transformers", extra="llm", purpose="Decoding").DynamicCache()
    for number, (keys, values) in enumerate(layers):
        cache.update(keys, values, number)
    return cache
