"""Constrained beam search against Hugging Face's on the same weights: the same items and scores, how much sooner.

Both decode the test histories of Beauty (at most 20 items) with 20 beams over the LETTER authors' 4-level IDs, on one
random 4 + 4-layer T5 of width 128. The reference is `generate` with a Python trie behind `prefix_allowed_tokens_fn`.
The vocabulary is once that of LETTER's code, 32,100 text tokens and the codes, over all of which both normalise, and
once the codes alone. In bfloat16 two implementations round differently; `as in float32` says for each how many of the
20 IDs per user are those of its float32 list.

    python benchmarks/tiger_beam.py --data ../shared/data/beauty
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine import describe, matrix_peak
from published import beauty_with_letter_ids
from tesserec.data.sequences import Sequences
from tesserec.data.splits import leave_one_out
from tesserec.functional.beam import beam_search
from tesserec.networks.t5_weights import from_hugging_face
from tesserec.recommenders.tiger import START, Batch, Tiger, TigerConfig, TigerDecoder, TigerNetwork, Vocabulary
from tesserec.tokenizers.semantic_ids import SemanticIds

BEAMS, END, HISTORY = 20, 1, 20
FIRST_CODES = {"text and codes": 32_100, "codes": 2}  # vocabulary -> the token of the first code


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, required=True, help="folder of Beauty.inter.json and Beauty.index.json")
    arguments.add_argument(
        "--users", type=int, default=256, help="decoded by ours; the reference decodes the first of them"
    )
    options = arguments.parse_args()
    dataset, semantic_ids = beauty_with_letter_ids(options.data)
    histories = leave_one_out(dataset).test.histories
    chosen = np.random.default_rng(0).choice(len(histories), options.users, replace=False)
    histories = histories.take(chosen)
    print(describe())
    print(f"Beauty {dataset.fingerprint}, IDs {semantic_ids.fingerprint}, {BEAMS} beams\n")
    print("| vocabulary | precision | users at once | reference | ours | ratio | same IDs | largest score difference"
          " | as in float32, reference | ours | share of matrix peak, reference | ours |")  # fmt: skip
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for vocabulary, first_code in FIRST_CODES.items():
        theirs, ours = same_model(semantic_ids, first_code)
        in_float32: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for dtype in (torch.float32, torch.bfloat16):
            reference = Reference(theirs.to(dtype), semantic_ids, first_code)
            engine = Engine(ours.to(dtype), semantic_ids, first_code)
            work, peak = user_operations(engine, histories), matrix_peak(dtype)
            for batch, n_theirs in ((32, 64), (1, 12)):
                their_ids, their_scores, their_seconds = timed(reference, histories.take(np.arange(n_theirs)), batch)
                our_ids, our_scores, our_seconds = timed(engine, histories, batch)
                same = shared(our_ids[:n_theirs], their_ids)
                gap = np.abs(our_scores[:n_theirs] - their_scores).max()
                exact = in_float32.setdefault(batch, (their_ids, our_ids))
                kept = [shared(found, true) for found, true in zip((their_ids, our_ids), exact, strict=True)]
                if batch == 1:
                    speeds = f"{their_seconds * 1e3:.0f} ms | {our_seconds * 1e3:.0f} ms"
                else:
                    speeds = f"{1 / their_seconds:.1f} users/s | {1 / our_seconds:.0f} users/s"
                shares = [work / seconds / peak for seconds in (their_seconds, our_seconds)]
                print(f"| {vocabulary} | {str(dtype).removeprefix('torch.')} | {batch} | {speeds} "
                      f"| {their_seconds / our_seconds:.1f} | {same:.1%} | {gap:.1e} | {kept[0]:.1%} | {kept[1]:.1%} "
                      f"| {shares[0]:.1%} | {shares[1]:.0%} |", flush=True)  # fmt: skip


def user_operations(engine: "Engine", histories: Sequences) -> float:
    """Floating-point operations of the matrix products that decoding a user needs, on average, without padding."""
    config, n_levels = engine.tiger.config, engine.index.n_levels
    tokens = np.minimum(histories.lengths, HISTORY).astype(np.float64) * n_levels
    inner, width, n_words = config.n_heads * config.head_width, config.width, len(engine.network.vocabulary)
    encoder_token = 4 * width * inner + 2 * width * config.ff_width + 2 * width * inner  # cross-attention keys included
    decoder_token = 6 * width * inner + 2 * width * config.ff_width
    queries = 1 + BEAMS * (n_levels - 1)
    attention = 2 * inner * (tokens**2 + queries * (tokens + n_levels / 2))
    products = (
        config.n_layers * (tokens * encoder_token + queries * decoder_token + attention) + queries * width * n_words
    )
    return float(2 * products.mean())


def shared(found: np.ndarray, true: np.ndarray) -> float:
    """The share of IDs (M, beams, L) that are in the other list of the same user."""
    return float((found[:, :, None] == true[:, None]).all(axis=3).any(axis=2).mean())


def same_model(semantic_ids: SemanticIds, first_code: int) -> tuple[Any, TigerNetwork]:
    """One random T5 in both libraries."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    vocabulary = Vocabulary(semantic_ids.codebook_sizes, first_code=first_code)
    sizes = TigerConfig()
    config = T5Config(vocab_size=len(vocabulary), d_model=128, d_ff=1024, num_layers=4, num_heads=6, d_kv=64,
                      decoder_start_token_id=START)  # fmt: skip
    theirs = T5ForConditionalGeneration(config).eval()
    ours = TigerNetwork(sizes, vocabulary, "shared").eval()
    ours.t5.load_state_dict(from_hugging_face(theirs.state_dict(), sizes))
    ours.embedding.load_state_dict({"weight": theirs.state_dict()["shared.weight"]})
    return theirs, ours


class Reference:
    """Hugging Face generation: token lists in, padded to the longest, a dictionary trie as a callback per beam."""

    def __init__(self, model: Any, semantic_ids: SemanticIds, first_code: int) -> None:
        self.model, self.n_levels = model, semantic_ids.n_levels
        self.offsets = np.array(Vocabulary(semantic_ids.codebook_sizes, first_code=first_code).offsets)
        self.tokens = semantic_ids.codes + self.offsets
        self.trie: dict[int, Any] = {}
        for row in self.tokens.tolist():
            node = self.trie
            for token in row:
                node = node.setdefault(token, {})

    def allowed(self, _: int, sequence: torch.Tensor) -> list[int]:
        node = self.trie
        for token in sequence.tolist()[1:]:
            node = node.get(token, {})
        return list(node) or [END]

    def __call__(self, histories: Sequences) -> tuple[np.ndarray, np.ndarray]:
        rows = [self.tokens[history[-HISTORY:]].flatten().tolist() for history in histories]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        answer = self.model.generate(
            input_ids=ids, attention_mask=(ids != 0).long(), num_beams=BEAMS, num_return_sequences=BEAMS,
            max_new_tokens=self.n_levels, min_new_tokens=self.n_levels, do_sample=False, length_penalty=0.0,
            prefix_allowed_tokens_fn=self.allowed, output_scores=True, return_dict_in_generate=True, use_cache=True,
        )  # fmt: skip
        codes = answer.sequences[:, 1 : 1 + self.n_levels].numpy() - self.offsets
        shape = (len(rows), BEAMS)
        return codes.reshape(*shape, -1), answer.sequences_scores.float().numpy().reshape(shape)


class Engine:
    """Our decoder and constraint index on the same weights."""

    def __init__(self, network: TigerNetwork, semantic_ids: SemanticIds, first_code: int) -> None:
        self.network, self.index = network, semantic_ids.trie()
        self.tiger = Tiger(semantic_ids, TigerConfig(max_items=HISTORY))
        self.shift = first_code - self.tiger.vocabulary.first_code

    @torch.inference_mode()
    def __call__(self, histories: Sequences) -> tuple[np.ndarray, np.ndarray]:
        codes = np.zeros((len(histories), BEAMS, self.index.n_levels), dtype=np.int64)
        scores = np.zeros((len(histories), BEAMS), dtype=np.float32)
        for rows, batches in self.tiger.decoding_batches(histories):
            decoder = TigerDecoder(self.network, [self.shifted(batch) for batch in batches])
            result = beam_search(decoder.step, self.index, beam_width=BEAMS)
            codes[rows], scores[rows] = result.codes.numpy(), result.scores.numpy()
        return codes, scores

    def shifted(self, batch: Batch) -> Batch:
        """The batch in the vocabulary whose codes come later."""
        tokens = torch.where(batch.tokens == START, START, batch.tokens + self.shift)
        return Batch(tokens, batch.lengths, batch.targets)


def timed(decode: Any, histories: Sequences, batch: int) -> tuple[np.ndarray, np.ndarray, float]:
    """IDs (M, beams, L) and scores (M, beams) of all histories, `batch` at a time, and seconds per history."""
    decode(histories.take(np.arange(batch)))
    found, seconds = [], []
    for start in range(0, len(histories), batch):
        began = time.perf_counter()
        found.append(decode(histories.take(np.arange(start, start + batch))))
        seconds.append(time.perf_counter() - began)
    ids, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return ids, scores, float(np.median(seconds)) / batch


if __name__ == "__main__":
    main()
