"""An epoch of VQ-Rec against the reference's way of doing it, over the same targets, in one run.

Both train 32 x 256 codes, width 300, two layers and two heads, feed-forward 256, with cosine / 0.07 over all items. The
reference's way (written here from its published behaviour) makes a row of 50 places, padded on the right, of every
prefix, gathers the code embeddings of all places (rows, 50, 32, 300) and averages them, does the same for all items
(items, 32, 300) in every step, and takes the state of a row's last item. Its epoch is measured on a share of its steps,
stated above the table; ours is measured whole, as `train` runs it: batches, optimiser, checks and log included. Both
figures are the fastest seen. Each way runs in a process of its own; told is its largest resident memory, less what it
was before training.

    python benchmarks/vqrec_epoch.py --data ../shared/data/scientific
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from machine import describe, matrix_peak
from prefix_rows import PostNormEncoder, epoch_seconds
from tesserec.data import prepare
from tesserec.data.splits import Split, leave_one_out
from tesserec.recommenders.vqrec import CodesNextItem, VQRecConfig, VQRecNetwork
from tesserec.training.batching import windows
from tesserec.training.config import TrainingConfig
from tesserec.training.loop import train

LENGTH, WIDTH, FF_WIDTH, HEADS, LAYERS, LEVELS, CODES, USERS = 50, 300, 256, 2, 2, 32, 256, 256
TEMPERATURE = 0.07
CPU = torch.device("cpu")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, required=True, help="folder that `tesserec prepare` takes")
    arguments.add_argument(
        "--rows", type=int, default=512, help="rows of a step of the reference's way (it takes 2048)"
    )
    arguments.add_argument("--steps", type=int, default=2, help="measured steps of that way, after one to warm up")
    arguments.add_argument("--precisions", nargs="*", default=list(DTYPES), choices=DTYPES)
    arguments.add_argument("--measure", nargs=2, metavar=("WAY", "PRECISION"), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    dataset = prepare(options.data)
    split = leave_one_out(dataset)
    if options.measure:
        way, precision = options.measure
        before = peak_memory()
        seconds = (
            our_epoch(split, precision)
            if way == "ours"
            else their_epoch(split, DTYPES[precision], options.rows, options.steps)
        )
        print(json.dumps([seconds, peak_memory() - before]))
        return
    n_targets, work = epoch_operations(split)
    print(describe())
    print(f"{len(dataset.catalogue)} items, {n_targets} targets, {work / 1e9:.0f} GFLOP of real work per epoch")
    print(f"data {dataset.fingerprint}; random codes; the reference's way measured on {options.steps} steps of "
          f"{options.rows} rows, of {-(-n_targets // options.rows)}; ours in steps of {USERS} users\n")  # fmt: skip
    print(
        "| precision | the reference's way, s per epoch | targets/s | GB | ours, s per epoch | targets/s | GB ", end=""
    )
    print("| ratio | share of matrix peak, the reference's way | ours |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for precision in options.precisions:
        (ours, our_memory), (theirs, their_memory) = (measured(way, precision, options) for way in ("ours", "theirs"))
        peak = matrix_peak(DTYPES[precision])
        row = [f"{theirs:.0f}", f"{n_targets / theirs:,.0f}", f"{their_memory / 1e9:.1f}", f"{ours:.1f}",
               f"{n_targets / ours:,.0f}", f"{our_memory / 1e9:.1f}", f"{theirs / ours:.1f}",
               f"{work / theirs / peak:.2%}", f"{work / ours / peak:.0%}"]  # fmt: skip
        print(f"| {precision} | {' | '.join(row)} |", flush=True)


def measured(way: str, precision: str, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds of an epoch and bytes at most, in a process of its own."""
    command = [sys.executable, __file__, "--data", str(options.data), "--rows", str(options.rows),
               "--steps", str(options.steps), "--measure", way, precision]  # fmt: skip
    seconds, memory = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return float(seconds), float(memory)


def peak_memory() -> float:
    """The largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def epoch_operations(split: Split) -> tuple[int, float]:
    """Targets, and floating-point operations of the matrix products that they need, forward and backward."""
    lengths = windows(split.train, LENGTH).lengths - 1
    n_targets = int(lengths.sum())
    per_token = 4 * WIDTH**2 + 2 * WIDTH * FF_WIDTH
    layers = LAYERS * (per_token * n_targets + WIDTH * int((lengths * (lengths + 1)).sum()))
    return n_targets, 3.0 * 2 * (layers + split.n_items * WIDTH * n_targets)


def random_codes(n_items: int) -> Tensor:
    """(N, L) rows of the table: what they are makes no difference to the time."""
    codes = torch.randint(CODES, (n_items, LEVELS), generator=torch.Generator().manual_seed(0))
    return codes + CODES * torch.arange(LEVELS)


# -- ours --------------------------------------------------------------------------------------------------------------


def our_epoch(split: Split, precision: str) -> float:
    """Seconds of an epoch of the training loop, the fastest of three."""
    config = VQRecConfig(width=WIDTH, ff_width=FF_WIDTH, n_layers=LAYERS, n_heads=HEADS, norm="post", dropout=0.5,
                         max_length=LENGTH, temperature=TEMPERATURE)  # fmt: skip
    training = TrainingConfig(epochs=3, batch_size=USERS, clip_norm=None, device="cpu", precision=precision)
    network = VQRecNetwork([CODES] * LEVELS, config)
    objective = CodesNextItem(
        split.train, [random_codes(split.n_items)], split.n_items, config, training, network=network
    )
    log = train(network, objective, training, validate=lambda _: 0.0)
    return float(np.diff([row["seconds"] for row in log.rows], prepend=0.0).min())


# -- the reference's way -----------------------------------------------------------------------------------------------


class PrefixVQRec(nn.Module):
    """Scores of all items after the last item of each row."""

    codes: Tensor  # (N + 1, L), the first row for padding

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.cat([torch.zeros(1, LEVELS, dtype=torch.int64), 1 + random_codes(n_items)]))
        self.table = nn.Embedding(1 + LEVELS * CODES, WIDTH, padding_idx=0)
        self.encoder = PostNormEncoder(WIDTH, FF_WIDTH, n_layers=LAYERS, n_heads=HEADS, length=LENGTH)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, rows: Tensor, lengths: Tensor) -> Tensor:
        items = self.table(self.codes[rows]).mean(dim=-2)  # (B, 50, 32, D) -> (B, 50, D)
        state = F.normalize(self.encoder(items, rows, lengths), dim=-1)
        candidates = F.normalize(self.table(self.codes).mean(dim=-2), dim=-1)  # (N + 1, 32, D) -> (N + 1, D)
        return state @ candidates.T / TEMPERATURE


def their_epoch(split: Split, dtype: torch.dtype, n_rows: int, n_steps: int) -> float:
    """Seconds of an epoch, from the fastest of so many steps."""
    return epoch_seconds(PrefixVQRec(split.n_items), split.train, dtype, length=LENGTH, n_rows=n_rows, n_steps=n_steps)


if __name__ == "__main__":
    main()
