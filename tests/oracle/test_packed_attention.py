"""Attention over packed sequences against the textbook's, one sequence at a time."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from tesserec.data.sequences import Sequences
from tesserec.networks.transformer import Block, SequenceEncoder, SequenceSettings, pack
from tesserec.training.seeds import seeded

WIDTH, N_HEADS = 12, 3


def naive_attention(block: Block, x: Tensor, *, causal: bool) -> Tensor:
    """(T, D) -> (T, D), head by head and place by place."""
    q, k, v = block.attention.qkv(x).chunk(3, dim=1)
    size = WIDTH // N_HEADS
    heads = []
    for head in range(N_HEADS):
        columns = slice(head * size, (head + 1) * size)
        rows = []
        for place in range(len(x)):
            seen = place + 1 if causal else len(x)
            weights = torch.softmax(k[:seen, columns] @ q[place, columns] / math.sqrt(size), dim=0)
            rows.append(weights @ v[:seen, columns])
        heads.append(torch.stack(rows))
    return block.attention.out(torch.cat(heads, dim=1))


def naive_block(block: Block, x: Tensor, *, causal: bool, norm: str) -> Tensor:
    if norm == "post":
        x = block.attention_norm(x + naive_attention(block, x, causal=causal))
        return block.feed_forward_norm(x + block.feed_forward(x))
    x = x + naive_attention(block, block.attention_norm(x), causal=causal)
    return x + block.feed_forward(block.feed_forward_norm(x))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_packed_states_equal_those_of_each_sequence_alone(causal, norm):
    settings = SequenceSettings(n_layers=2, n_heads=N_HEADS, norm=norm, dropout=0.3, max_length=9)
    with seeded(0):
        encoder = SequenceEncoder(WIDTH, settings, causal=causal).eval()
        for parameter in encoder.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        table = torch.randn(20, WIDTH)
    random = np.random.default_rng(0)
    rows = [random.integers(20, size=length).tolist() for length in (9, 1, 4, 7, 2)]
    packed = pack(Sequences.from_lists(rows))
    with torch.no_grad():
        together = encoder(packed, table[packed.items])[: sum(map(len, rows))]
        wanted = []
        for row in rows:
            x = encoder.input_norm(table[row] + encoder.positions.weight[: len(row)])
            for block in encoder.blocks:
                x = naive_block(block, x, causal=causal, norm=norm)
            wanted.append(encoder.output_norm(x))
    assert_close(together, torch.cat(wanted), rtol=0, atol=1e-5)
    assert F.mse_loss(together, torch.zeros_like(together)) > 0.1
