"""Our encoder-decoder with the weights of a Hugging Face T5 is that T5."""

import pytest
import torch
from torch.testing import assert_close

from tesserec.networks.t5 import T5, T5Config
from tesserec.networks.t5_weights import from_hugging_face
from tesserec.recommenders.tiger import START, Batch, TigerDecoder, TigerNetwork, Vocabulary

SIZES = T5Config(width=16, ff_width=32, n_layers=2, n_heads=3, head_width=8, dropout=0.1)
N_TOKENS, CODEBOOK_SIZES = 40, (6, 5, 4)
FIRST_CODE = N_TOKENS - sum(CODEBOOK_SIZES)
LENGTHS = torch.tensor([7, 30, 12])


@pytest.fixture(scope="module")
def theirs():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=N_TOKENS, d_model=16, d_ff=32, num_layers=2, num_heads=3, d_kv=8, dropout_rate=0.1,
        decoder_start_token_id=START, pad_token_id=START, tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.T5ForConditionalGeneration(config).eval()
    for parameter in model.parameters():  # norms of one and small biases would hide mistakes
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    return model


@pytest.fixture(scope="module")
def ours(theirs):
    network = TigerNetwork(SIZES, Vocabulary(CODEBOOK_SIZES, first_code=FIRST_CODE), "shared").eval()
    weights = theirs.state_dict()
    network.t5.load_state_dict(from_hugging_face(weights, SIZES))
    network.embedding.load_state_dict({"weight": weights["shared.weight"]})
    return network


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, N_TOKENS, (3, 30), generator=generator)
    tokens[torch.arange(30) >= LENGTHS[:, None]] = START
    targets = torch.stack([torch.randint(0, size, (3,), generator=generator) for size in CODEBOOK_SIZES], dim=1)
    return Batch(tokens, LENGTHS, targets)


def their_log_probs(theirs, batch):
    mask = (torch.arange(30) < LENGTHS[:, None]).long()
    offsets = torch.tensor(Vocabulary(CODEBOOK_SIZES, first_code=FIRST_CODE).offsets)
    decoder_input = torch.nn.functional.pad((batch.targets + offsets)[:, :-1], (1, 0), value=START)
    with torch.no_grad():
        logits = theirs(input_ids=batch.tokens, attention_mask=mask, decoder_input_ids=decoder_input).logits
    return logits.log_softmax(dim=-1), offsets


def test_logits_of_whole_chains_are_those_of_hugging_face(theirs, ours, batch):
    expected, offsets = their_log_probs(theirs, batch)
    with torch.no_grad():
        memory = ours.t5.encode(ours.embedding(batch.tokens), batch.lengths)
        states = ours.t5.decode(ours.chains(batch.targets[:, None, :-1]), memory)[:, 0]
        for level, size in enumerate(CODEBOOK_SIZES):
            found = ours.log_probs(states[:, level], level)
            assert_close(found, expected[:, level, offsets[level] : offsets[level] + size], atol=1e-4, rtol=1e-4)


def test_the_training_loss_is_that_of_hugging_face(theirs, ours, batch):
    expected, offsets = their_log_probs(theirs, batch)
    truth = expected.gather(2, (batch.targets + offsets)[:, :, None]).sum() / -len(CODEBOOK_SIZES)
    assert_close(ours(batch), truth, atol=1e-4, rtol=1e-4)


def test_extending_hypotheses_gives_the_states_of_whole_chains(ours, batch):
    """Two hypotheses per user, which change places at every step."""
    chains = torch.stack([batch.targets, (batch.targets + 1) % torch.tensor(CODEBOOK_SIZES)], dim=1)  # (B, 2, L)
    swap = torch.tensor([[1, 0]]).expand(3, 2)
    decoder = TigerDecoder(ours, [batch])
    with torch.no_grad():
        states = ours.t5.decode(ours.chains(chains[:, :, :-1]), decoder.memory)
        expected = [ours.log_probs(states[:, :, level], level) for level in range(3)]
        first = decoder.step(0, None, None)
        second = decoder.step(1, torch.zeros(3, 2, dtype=torch.int64), chains[:, :, 0])
        third = decoder.step(2, swap, chains[:, :, 1].flip(1))
    assert_close(first[:, 0], expected[0][:, 0], atol=1e-4, rtol=1e-4)
    assert_close(second, expected[1], atol=1e-4, rtol=1e-4)
    assert_close(third, expected[2].flip(1), atol=1e-4, rtol=1e-4)


def test_gradients_are_those_of_plain_attention(batch):
    """The written-out backward pass against autograd through scaled_dot_product_attention, without dropout."""
    torch.manual_seed(2)
    t5 = T5(T5Config(width=16, ff_width=32, n_layers=2, n_heads=3, head_width=8, dropout=0.0)).double().train()
    x, y = torch.randn(3, 30, 16, dtype=torch.float64), torch.randn(3, 2, 4, 16, dtype=torch.float64)

    def gradients(monkeypatch_attention):
        t5.zero_grad()
        with monkeypatch_attention:
            t5.decode(y, t5.encode(x, LENGTHS)).square().sum().backward()
        return {name: parameter.grad.clone() for name, parameter in t5.named_parameters()}

    with pytest.MonkeyPatch.context() as patch:
        written_out = gradients(patch.context())
        patch.setattr("tesserec.networks.t5.self_attention", _plain_self_attention)
        patch.setattr("tesserec.networks.t5.cross_attention", _plain_cross_attention)
        plain = gradients(patch.context())
    assert len(plain) > 20
    assert any(gradient.abs().max() > 0.1 for gradient in plain.values())
    for name, gradient in plain.items():
        assert_close(written_out[name], gradient, atol=1e-9, rtol=1e-9)


def _plain_self_attention(qkv, bias, n_heads, p):
    q, k, v = (part.unflatten(-1, (n_heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    weights = torch.softmax(q @ k.transpose(-1, -2) + bias, dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def _plain_cross_attention(q, kv, bias, p):
    q = q.unflatten(-1, (kv.shape[2], -1)).transpose(1, 2)
    scores = q @ kv[0].transpose(-1, -2)
    weights = torch.softmax(scores if bias is None else scores + bias, dim=-1)
    return (weights @ kv[1]).transpose(1, 2).flatten(2)
