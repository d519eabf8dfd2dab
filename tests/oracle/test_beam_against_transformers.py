"""Hugging Face's beam search with a prefix constraint, on the same random T5, as the truth for ours."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tesserec.functional.beam import beam_search
from tesserec.functional.trie import ConstraintIndex

SIZES = (12, 6, 5)
OFFSETS = np.cumsum([1, *SIZES])[:-1]  # token = code + offset of its level; 0 pads and starts


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=1 + sum(SIZES), d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, dropout_rate=0.0,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=None, initializer_factor=4.0,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config).eval()


class RerunDecoder:
    """The model as `beam_search` asks for it, without caches: every hypothesis' prefix is decoded anew."""

    def __init__(self, model: torch.nn.Module, histories: Tensor) -> None:
        self.model, self.histories = model, histories
        self.prefixes = torch.zeros(len(histories), 1, 1, dtype=torch.int64)

    def __call__(self, level: int, parents: Tensor | None, codes: Tensor | None) -> Tensor:
        if parents is not None and codes is not None:
            token = codes[..., None] + int(OFFSETS[level - 1])
            self.prefixes = torch.cat([self.prefixes.take_along_dim(parents[..., None], dim=1), token], dim=2)
        n_users, width, _ = self.prefixes.shape
        logits = self.model(
            input_ids=self.histories.repeat_interleave(width, dim=0), decoder_input_ids=self.prefixes.flatten(0, 1)
        ).logits[:, -1]
        log_probs = logits.log_softmax(dim=-1).view(n_users, width, -1)
        return log_probs[..., OFFSETS[level] : OFFSETS[level] + SIZES[level]]


def test_beam_gives_the_ids_and_scores_of_transformers_generate(model: torch.nn.Module) -> None:
    rng = np.random.default_rng(0)
    codes = np.unique(np.stack([rng.integers(0, size, 80) for size in SIZES], axis=1), axis=0)
    index = ConstraintIndex.build(codes, SIZES)
    histories = torch.from_numpy(rng.integers(1, 1 + sum(SIZES), (6, 5)))
    width = 6

    def allowed_tokens(_: int, tokens: Tensor) -> list[int]:
        level = len(tokens) - 1
        prefix = [int(token) - int(OFFSETS[depth]) for depth, token in enumerate(tokens[1:])]
        return [code + int(OFFSETS[level]) for code in index.next_codes(prefix).tolist()]

    with torch.inference_mode():
        truth = model.generate(
            histories, num_beams=width, num_return_sequences=width, max_new_tokens=len(SIZES), length_penalty=0.0,
            prefix_allowed_tokens_fn=allowed_tokens, return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
    ours = beam_search(RerunDecoder(model, histories), index, beam_width=width)
    assert ours.valid.all()
    expected = truth.sequences[:, 1:].view(len(histories), width, -1) - torch.from_numpy(OFFSETS)
    assert torch.equal(ours.codes, expected)
    torch.testing.assert_close(ours.scores, truth.sequences_scores.view(len(histories), width), rtol=1e-5, atol=1e-5)
