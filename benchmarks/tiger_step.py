"""A TIGER training step against the reference's way of doing it, in one run.

Both draw the same batches of 256 (history, next item) pairs at random from the training part of Beauty with the LETTER
authors' IDs, histories of at most 20 items, and take one optimiser step (forward, backward, clipping, AdamW) on a
4 + 4-layer T5 of width 128. The reference is LETTER's: Hugging Face T5 over 32,100 text tokens and the codes, inputs
padded to the longest of the batch, an end token behind inputs and targets. String handling is left out on both sides.

    python benchmarks/tiger_step.py --data ../shared/data/beauty
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from machine import describe, matrix_peak
from published import beauty_with_letter_ids
from tesserec.data.splits import leave_one_out
from tesserec.recommenders.tiger import Tiger, TigerConfig, TigerObjective
from tesserec.training.config import TrainingConfig
from tesserec.training.devices import autocast
from tesserec.training.loop import make_optimizer

BATCH, TEXT_TOKENS = 256, 32_100
CPU = torch.device("cpu")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument(
        "--data", type=Path, required=True, help="folder with Beauty.inter.json and Beauty.index.json"
    )
    arguments.add_argument(
        "--steps", type=int, default=12, help="of ours, after a warm-up; the reference takes a third"
    )
    options = arguments.parse_args()
    dataset, semantic_ids = beauty_with_letter_ids(options.data)
    split = leave_one_out(dataset)
    tiger = Tiger(semantic_ids, TigerConfig(), TrainingConfig(batch_size=BATCH, device="cpu"))
    objective = TigerObjective(tiger, split)
    steps = objective.steps(0)
    work = np.mean([step_operations(tiger, objective, steps.order[i * BATCH : (i + 1) * BATCH]) for i in range(20)])
    print(describe())
    print(f"Beauty {dataset.fingerprint}, IDs {semantic_ids.fingerprint}")
    print(f"Real work: {work / BATCH / 1e9:.2f} GFLOP per sample\n")
    print("| precision | reference, samples/s | ours, samples/s | ratio | share of matrix peak, reference | ours |")
    print("|---|---:|---:|---:|---:|---:|")
    for dtype in (torch.float32, torch.bfloat16):
        objective.few_shapes = dtype != torch.float32  # as training in this precision has it
        ours = our_rate(tiger, objective, dtype, options.steps)
        theirs = their_rate(
            objective, semantic_ids.codes, semantic_ids.codebook_sizes, dtype, max(2, options.steps // 3)
        )
        peak = matrix_peak(dtype)
        shares = [rate * work / BATCH / peak for rate in (theirs, ours)]
        name = str(dtype).removeprefix("torch.")
        print(f"| {name} | {theirs:.0f} | {ours:.0f} | {ours / theirs:.1f} | {shares[0]:.0%} | {shares[1]:.0%} |")


def step_operations(tiger: Tiger, objective: TigerObjective, rows: np.ndarray) -> float:
    """Floating-point operations of the matrix products that a step's real tokens need, forward and backward."""
    config, levels = tiger.config, tiger.semantic_ids.n_levels
    histories = np.minimum(objective.samples.targets[rows] - objective.samples.starts[rows], config.max_items) * levels
    inner, width = config.n_heads * config.head_width, config.width
    encoder_token = 4 * width * inner + 2 * width * config.ff_width + 2 * width * inner  # cross-attention keys included
    decoder_token = 6 * width * inner + 2 * width * config.ff_width
    attention = 2 * inner * (histories**2 + levels * histories + levels**2)
    heads = levels * width * max(tiger.semantic_ids.codebook_sizes)
    products = config.n_layers * (histories * encoder_token + levels * decoder_token + attention) + heads
    return float(3 * 2 * products.sum())


def our_rate(tiger: Tiger, objective: TigerObjective, dtype: torch.dtype, n_steps: int) -> float:
    """Samples per second of the training loop's step, batch preparation included."""
    network, steps = tiger.network.train(), objective.steps(0)
    optimizer = make_optimizer(network, tiger.training, CPU)

    def step(number: int) -> None:
        batch = steps[number]
        for part in batch.parts:
            with autocast(CPU, dtype):
                loss = objective.loss(network, part, CPU) / batch.n_targets
            loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return rate(step, n_steps, warm_up=6)  # every shape of a part has its kernels by then


def their_rate(
    objective: TigerObjective, codes: np.ndarray, sizes: tuple[int, ...], dtype: torch.dtype, n_steps: int
) -> float:
    """Samples per second of Hugging Face's T5 on the same batches."""
    from transformers import T5Config, T5ForConditionalGeneration

    end, first = 1, TEXT_TOKENS + np.cumsum([0, *sizes[:-1]])
    config = T5Config(vocab_size=TEXT_TOKENS + sum(sizes), d_model=128, d_ff=1024, num_layers=4, num_heads=6, d_kv=64,
                      dropout_rate=0.1, decoder_start_token_id=0)  # fmt: skip
    model = T5ForConditionalGeneration(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    samples, order = objective.samples, objective.steps(0).order

    def step(number: int) -> None:
        inputs, labels = [], []
        for row in order[number * BATCH : (number + 1) * BATCH]:
            start, target = samples.starts[row], samples.targets[row]
            history = samples.values[max(start, target - 20) : target]
            inputs.append([*(codes[history] + first).flatten().tolist(), end])
            labels.append([*(codes[samples.values[target]] + first).tolist(), end])
        longest = max(map(len, inputs))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in inputs])
        with autocast(CPU, dtype):
            loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=torch.tensor(labels)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return rate(step, n_steps, warm_up=2)


def rate(step: Callable[[int], None], n_steps: int, *, warm_up: int) -> float:
    """Samples per second: the median over consecutive steps after the first few."""
    seconds = []
    for number in range(warm_up + n_steps):
        start = time.perf_counter()
        step(number)
        seconds.append(time.perf_counter() - start)
    return BATCH / float(np.median(seconds[warm_up:]))


if __name__ == "__main__":
    main()
