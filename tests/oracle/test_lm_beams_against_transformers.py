"""Beams behind one prompt against the library's own: a dictionary, a callback, and the prompt copied per beam."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tesserec.functional.beam import beam_search
from tesserec.functional.trie import ConstraintIndex
from tesserec.language.decoding import PromptDecoder
from tesserec.language.model import begin_language_model
from tesserec.language.new import NewModelConfig, new_model

SIZES = (7, 6, 5)
WIDTH = 6


@pytest.mark.parametrize(
    ("architecture", "tied", "n_kv_heads"), [("qwen3", True, 4), ("qwen3", False, 1), ("llama", False, 2)]
)
def test_beams_give_the_ids_and_scores_of_generate(architecture, tied, n_kv_heads, tmp_path):
    config = NewModelConfig(
        architecture=architecture, width=32, ff_width=48, n_layers=2, n_kv_heads=n_kv_heads, words=300, tied=tied
    )
    new_model(["some words to learn"], tmp_path / "model", config)
    model = begin_language_model(str(tmp_path / "model"), SIZES).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    random = np.random.default_rng(0)
    codes = np.unique(np.stack([random.integers(0, size, 60) for size in SIZES], axis=1), axis=0)
    index, leaves = ConstraintIndex.build(codes, SIZES), model.codes.of(codes)
    prompts = [random.integers(0, 250, length) for length in (5, 9, 6)]
    with torch.inference_mode():
        ours = beam_search(PromptDecoder(model, prompts).step, index, beam_width=WIDTH)
        for row, prompt in enumerate(prompts):
            ids, scores = generate(model, prompt, leaves)
            assert ours.valid[row].all()
            assert np.array_equal(model.codes.of(ours.codes[row].numpy()), ids)
            torch.testing.assert_close(ours.scores[row], scores, rtol=1e-5, atol=1e-4)


def generate(model, prompt: np.ndarray, leaves: np.ndarray) -> tuple[np.ndarray, Tensor]:
    followers: dict[tuple[int, ...], set[int]] = {}
    for leaf in leaves.tolist():
        for depth in range(len(leaf)):
            followers.setdefault(tuple(leaf[:depth]), set()).add(leaf[depth])

    def allowed(_: int, tokens: Tensor) -> list[int]:
        return sorted(followers[tuple(tokens[len(prompt) :].tolist())])

    tokens = torch.from_numpy(prompt)[None]
    truth = model.causal.generate(
        input_ids=tokens, attention_mask=torch.ones_like(tokens), num_beams=WIDTH, num_return_sequences=WIDTH,
        max_new_tokens=len(SIZES), do_sample=False, length_penalty=0.0, prefix_allowed_tokens_fn=allowed,
        eos_token_id=None, pad_token_id=0, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    return truth.sequences[:, len(prompt) :].numpy(), truth.sequences_scores
