"""LC-Rec's beams against those of Hugging Face on the same weights: the same items and scores, how much sooner.

Both answer the test prompts of recipe `lcrec` on Scientific (at most 20 items) with 20 beams over 4-level IDs; the
model is that of the recipe with random weights. The reference is `generate` with a dictionary of prefixes behind
`prefix_allowed_tokens_fn`, prompts filled up on the left. Both normalise over all words.

    python benchmarks/lcrec_beam.py --data runs/scientific/data --ids runs/lcrec/semantic-ids
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from machine import describe
from tesserec.data import Dataset, leave_one_out
from tesserec.functional.beam import beam_search
from tesserec.language.decoding import PromptDecoder
from tesserec.language.texts import item_texts
from tesserec.pipeline import load_recipe
from tesserec.recommenders.lcrec import LCRec
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.training.config import TrainingConfig

BEAMS = 20


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, required=True, help="prepared Scientific")
    arguments.add_argument("--ids", type=Path, required=True, help="semantic IDs of it, 4 levels")
    arguments.add_argument("--users", type=int, default=64)
    options = arguments.parse_args()
    dataset, ids = Dataset.load(options.data), SemanticIds.load(options.ids)
    model = random_model(dataset, ids)
    histories = leave_one_out(dataset).test.histories
    chosen = np.random.default_rng(0).choice(len(histories), options.users, replace=False)
    prompts = [model.history_prompt(histories[row]) for row in chosen]
    prompts.sort(key=len)
    print(describe())
    length = np.mean([len(one) for one in prompts])
    print(f"Scientific {dataset.fingerprint}, IDs {ids.fingerprint}, {len(prompts)} users, {BEAMS} beams, "
          f"prompts of {length:.0f} tokens, {model.n_parameters:,} parameters\n")  # fmt: skip
    print("| users at once | reference s | ours s | ratio | same IDs | largest score difference |")
    print("|---:|---:|---:|---:|---:|---:|")
    for batch in (1, 16):
        seconds, answers = zip(*(timed(search, model, prompts, batch) for search in (reference, ours)))
        same = np.mean([shared(a, b) for a, b in zip(answers[0][0], answers[1][0])])
        gap = np.abs(answers[0][1] - answers[1][1]).max()
        theirs, mine = seconds
        print(f"| {batch} | {theirs:.1f} | {mine:.1f} | {theirs / mine:.1f} | {same:.2%} | {gap:.1e} |")


def random_model(dataset: Dataset, ids: SemanticIds) -> LCRec:
    """The model of the recipe before any training, its weights wide enough that probabilities differ."""
    config: Any = load_recipe("lcrec").recommender.config
    model = LCRec(ids, config, TrainingConfig(device="cpu"))
    model.network = model._begin(item_texts(dataset.items)).eval()
    model.builder = model._builder(None)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(2 if parameter.ndim > 1 else 1)
    return model


@torch.inference_mode()
def timed(search: Any, model: LCRec, prompts: list[np.ndarray], batch: int) -> tuple[float, tuple[Any, Any]]:
    """Seconds, and (codes' words (M, W, L), scores (M, W))."""
    prepared = search(model)
    prepared(prompts[:batch])
    started = time.perf_counter()
    parts = [prepared(prompts[start : start + batch]) for start in range(0, len(prompts), batch)]
    seconds = time.perf_counter() - started
    return seconds, (np.concatenate([one for one, _ in parts]), np.concatenate([two for _, two in parts]))


def ours(model: LCRec) -> Any:
    index, network = model.index, model.fitted_network

    def answer(prompts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        result = beam_search(PromptDecoder(network, prompts).step, index, beam_width=BEAMS)
        return network.codes.of(result.codes.numpy()), result.scores.numpy()

    return answer


def reference(model: LCRec) -> Any:
    network, n_levels = model.fitted_network, model.semantic_ids.n_levels
    followers: dict[tuple[int, ...], set[int]] = {}
    for leaf in network.codes.of(model.semantic_ids.codes).tolist():
        for depth in range(n_levels):
            followers.setdefault(tuple(leaf[:depth]), set()).add(leaf[depth])
    allowed_after = {prefix: sorted(tokens) for prefix, tokens in followers.items()}

    def answer(prompts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        longest = max(map(len, prompts))
        tokens = torch.zeros(len(prompts), longest, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, longest - len(prompt) :] = torch.from_numpy(prompt)
        real = torch.arange(longest) >= longest - torch.tensor([[len(prompt)] for prompt in prompts])

        def allowed(_: int, so_far: Tensor) -> list[int]:
            return allowed_after[tuple(so_far[longest:].tolist())]

        found = network.causal.generate(
            input_ids=tokens, attention_mask=real.long(), num_beams=BEAMS, num_return_sequences=BEAMS,
            max_new_tokens=n_levels, do_sample=False, length_penalty=0.0, prefix_allowed_tokens_fn=allowed,
            eos_token_id=None, pad_token_id=0, return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        ids = found.sequences[:, longest:].view(len(prompts), BEAMS, -1)
        return ids.numpy(), found.sequences_scores.view(len(prompts), BEAMS).numpy()

    return answer


def shared(one: np.ndarray, other: np.ndarray) -> float:
    """The share of IDs that two lists have in common."""
    return len(set(map(tuple, one.tolist())) & set(map(tuple, other.tolist()))) / len(one)


if __name__ == "__main__":
    main()
