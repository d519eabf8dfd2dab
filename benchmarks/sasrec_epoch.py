"""An epoch of SASRec against RecBole's way of doing it, over the same targets, in one run.

Both train hidden size 64, two layers and two heads with cross-entropy over all items. RecBole's way (written here from
its published behaviour) makes a row of 50 places, padded on the right, of every prefix, takes the state of its last
item and 2,048 rows per step. Its epoch is measured on a share of its steps, stated above the table; ours is measured
whole, as `train` runs it: batches, clipping, optimiser, checks and log included. Both figures are the fastest seen.

    python benchmarks/sasrec_epoch.py --data ../shared/data/beauty
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from machine import describe, matrix_peak
from prefix_rows import PostNormEncoder, epoch_seconds
from tesserec.data import prepare
from tesserec.data.splits import Split, leave_one_out
from tesserec.recommenders.item_table import ItemTableNetwork, NextItem
from tesserec.recommenders.sasrec import SASRecConfig
from tesserec.training.batching import windows
from tesserec.training.config import TrainingConfig
from tesserec.training.loop import train

LENGTH, WIDTH, HEADS, LAYERS, ROWS = 50, 64, 2, 2, 2048
CPU = torch.device("cpu")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, required=True, help="folder that `tesserec prepare` takes")
    arguments.add_argument("--steps", type=int, default=4, help="measured steps of RecBole's way, after one to warm up")
    options = arguments.parse_args()
    dataset = prepare(options.data)
    split = leave_one_out(dataset)
    n_targets, work = epoch_operations(split)
    print(describe())
    print(f"{len(dataset.catalogue)} items, {n_targets} targets, {work / 1e9:.0f} GFLOP of real work per epoch")
    print(f"data {dataset.fingerprint}; RecBole's way measured on {options.steps} of {-(-n_targets // ROWS)} steps\n")
    print("| precision | RecBole's way, s per epoch | targets/s | ours, s per epoch | targets/s | ratio | ", end="")
    print("share of matrix peak, RecBole's way | ours |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        ours, theirs, peak = our_epoch(split, precision), their_epoch(split, dtype, options.steps), matrix_peak(dtype)
        row = [f"{theirs:.0f}", f"{n_targets / theirs:,.0f}", f"{ours:.1f}", f"{n_targets / ours:,.0f}",
               f"{theirs / ours:.1f}", f"{work / theirs / peak:.1%}", f"{work / ours / peak:.0%}"]  # fmt: skip
        print(f"| {precision} | {' | '.join(row)} |", flush=True)


def epoch_operations(split: Split) -> tuple[int, float]:
    """Targets, and floating-point operations of the matrix products that they need, forward and backward."""
    lengths = windows(split.train, LENGTH).lengths - 1
    n_targets = int(lengths.sum())
    layers = LAYERS * (12 * WIDTH**2 * n_targets + WIDTH * int((lengths * (lengths + 1)).sum()))
    return n_targets, 3.0 * 2 * (layers + split.n_items * WIDTH * n_targets)


# -- ours --------------------------------------------------------------------------------------------------------------


def our_epoch(split: Split, precision: str) -> float:
    """Seconds of an epoch of the training loop, the fastest of three."""
    config = SASRecConfig(width=WIDTH, n_layers=LAYERS, n_heads=HEADS, dropout=0.5, max_length=LENGTH)
    training = TrainingConfig(epochs=3, device="cpu", precision=precision)
    network = ItemTableNetwork(split.n_items, config)
    log = train(network, NextItem(split.train, config, training), training, validate=lambda _: 0.0)
    return float(np.diff([row["seconds"] for row in log.rows], prepend=0.0).min())


# -- RecBole's way -----------------------------------------------------------------------------------------------------


class PrefixSASRec(nn.Module):
    """Scores of all items after the last item of each row."""

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items + 1, WIDTH, padding_idx=0)
        self.encoder = PostNormEncoder(WIDTH, 4 * WIDTH, n_layers=LAYERS, n_heads=HEADS, length=LENGTH)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, rows: Tensor, lengths: Tensor) -> Tensor:
        return self.encoder(self.items(rows), rows, lengths) @ self.items.weight.T


def their_epoch(split: Split, dtype: torch.dtype, n_steps: int) -> float:
    """Seconds of an epoch, from the fastest of so many steps."""
    return epoch_seconds(PrefixSASRec(split.n_items), split.train, dtype, length=LENGTH, n_rows=ROWS, n_steps=n_steps)


if __name__ == "__main__":
    main()
