"""An epoch of CCFRec against the reference's way of doing it, over the same training targets, in one run.

Both train the same network on the same codes and texts (drawn at random: their values do not matter for the speed) with
next-item loss, masked code modelling and masked sequence alignment. The reference's way (written here from the
published behaviour of its code) makes a row of 20 places, padded on the right, of every prefix, 400 rows per step;
encodes every place of every history twice, with and without hidden codes, padding included, and the candidates once
more; hides codes in a loop on the CPU and computes the logits of hidden codes for all places. Its epoch is measured on
a share of its steps, stated above the table; ours is measured whole, as `train` runs it. The fastest steps count on
both sides. Peak memory is that of a process of its own for each side, less what it held before the first step.

    python benchmarks/ccfrec_epoch.py --data ../shared/data/scientific
"""

import argparse
import json
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from machine import describe, matrix_peak
from prefix_rows import fastest_step, padded_prefixes
from tesserec.data import prepare
from tesserec.data.splits import Split, leave_one_out
from tesserec.recommenders.ccfrec import CCFRecConfig, CCFRecNetwork
from tesserec.recommenders.item_vectors import CatalogueNextItem
from tesserec.training.batching import windows
from tesserec.training.config import TrainingConfig
from tesserec.training.devices import autocast
from tesserec.training.loop import train

CPU = torch.device("cpu")
ATTRIBUTES, PER_ATTRIBUTE, SIZE = 3, 4, 256  # attributes, codes for each of them, codewords per level
LEVELS = ATTRIBUTES * PER_ATTRIBUTE
WIDTH, LAYERS, HEADS, LENGTH, ROWS, TEMPERATURE, RATIO = 32, 2, 2, 20, 400, 0.07, 0.5
MASKED_CODES, ALIGNMENT = 0.1, 0.5
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, required=True, help="folder that `tesserec prepare` takes")
    arguments.add_argument("--negatives", type=int, default=512, help="drawn per step; 0: all items are candidates")
    arguments.add_argument("--steps", type=int, default=2, help="measured steps of the reference's way, after one")
    arguments.add_argument("--users", type=int, default=256, help="per step of ours")
    arguments.add_argument("--precision", choices=PRECISIONS, nargs="*", default=list(PRECISIONS))
    arguments.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)  # one measurement, as JSON
    options = arguments.parse_args()
    dataset = prepare(options.data)
    split = leave_one_out(dataset)
    if options.side:
        measure = our_epoch if options.side == "ours" else their_epoch
        print(json.dumps(measure(split, options.precision[0], options)))
        return
    n_targets, n_steps, work = epoch_operations(split, options)
    print(describe())
    negatives = options.negatives or "all"
    print(f"{split.n_items} items, {n_targets} targets, {negatives} negatives, {options.users} users per step of ours")
    print(f"{ATTRIBUTES} attributes, {LEVELS} codes, width {WIDTH}; {work / 1e9:.0f} GFLOP of real work per epoch")
    print(f"data {dataset.fingerprint}; the reference's way measured on {options.steps} of {n_steps} steps\n")
    print(
        "| precision | reference's way, s per epoch | targets/s | peak MB | ours, s per epoch | targets/s | peak MB ",
        end="",
    )
    print("| ratio | share of matrix peak, reference's way | ours |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for precision in options.precision:
        theirs, ours = alone("theirs", precision, options), alone("ours", precision, options)
        peak = matrix_peak(PRECISIONS[precision])
        row = [f"{theirs['seconds']:.0f}", f"{n_targets / theirs['seconds']:,.0f}", f"{theirs['peak']:.0f}",
               f"{ours['seconds']:.1f}", f"{n_targets / ours['seconds']:,.0f}", f"{ours['peak']:.0f}",
               f"{theirs['seconds'] / ours['seconds']:.1f}", f"{work / theirs['seconds'] / peak:.1%}",
               f"{work / ours['seconds'] / peak:.1%}"]  # fmt: skip
        print(f"| {precision} | {' | '.join(row)} |", flush=True)


def alone(side: str, precision: str, options: argparse.Namespace) -> dict[str, float]:
    """A measurement in a process of its own."""
    settings = ["data", "negatives", "steps", "users"]
    command = [sys.executable, __file__, "--side", side, "--precision", precision]
    command += [part for name in settings for part in (f"--{name}", str(getattr(options, name)))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def held() -> float:
    """Megabytes that the process has held at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def features(n_items: int) -> tuple[Tensor, Tensor]:
    """Texts (N, A, D) and codes (N, L)."""
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(n_items, ATTRIBUTES, WIDTH, generator=generator)
    return texts, torch.randint(SIZE, (n_items, LEVELS), generator=generator)


def epoch_operations(split: Split, options: argparse.Namespace) -> tuple[int, int, float]:
    """Targets, the reference's steps, and the operations of the products that an epoch of ours needs, both ways."""
    objective = objective_of(split, options)
    lengths = windows(split.train, LENGTH).lengths - 1
    n_targets = int(lengths.sum())
    block = 14 * WIDTH**2 + 2 * WIDTH * (LEVELS + ATTRIBUTES) + 2 * WIDTH**2 * ATTRIBUTES / LEVELS
    n_items = 0.0  # whose vectors are made, over all steps
    for step in (objective.steps(0)[index] for index in range(objective.n_steps(0))):
        bundle = step.parts[0]
        targets = torch.cat([part.targets for part in bundle.parts])
        n_items += len(objective.items_of(bundle, targets, objective.config.draw(targets, split.n_items)))
    fusion = LAYERS * LEVELS * block * (n_items + n_targets)  # once clean, and hidden once per occurrence
    sequences = 2 * LAYERS * (12 * WIDTH**2 * n_targets + WIDTH * int((lengths * (lengths + 1)).sum()))
    rows = options.users * n_targets / len(lengths)  # positions of a step
    losses = (
        WIDTH * n_targets * ((options.negatives or split.n_items) + RATIO * LEVELS * LEVELS * SIZE + min(rows, 2048))
    )
    return n_targets, -(-n_targets // ROWS), 3.0 * 2 * (fusion + sequences + losses)


# -- ours --------------------------------------------------------------------------------------------------------------


def objective_of(split: Split, options: argparse.Namespace) -> CatalogueNextItem:
    config = CCFRecConfig(
        width=WIDTH, n_layers=LAYERS, n_heads=HEADS, fusion_layers=LAYERS, fusion_heads=HEADS, max_length=LENGTH,
        loss="sampled-softmax" if options.negatives else "softmax", n_negatives=options.negatives or 1,
        masked_codes=MASKED_CODES, alignment=ALIGNMENT, mask_ratio=RATIO, temperature=TEMPERATURE,
    )  # fmt: skip
    training = TrainingConfig(epochs=3, batch_size=options.users, device="cpu", precision=options.precision[0])
    return CatalogueNextItem(split.train, features(split.n_items), split.n_items, config, training)


def our_epoch(split: Split, precision: str, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of an epoch of the training loop, the fastest of three."""
    import_module("accelerate")  # which the loop imports; libraries are not what is measured
    objective = objective_of(split, options)
    network = CCFRecNetwork((ATTRIBUTES, WIDTH, WIDTH), [SIZE] * LEVELS, objective.config)
    before = held()
    log = train(network, objective, objective.training, validate=lambda _: 0.0)
    seconds = np.diff([row["seconds"] for row in log.rows], prepend=0.0).min()
    return {"seconds": float(seconds), "peak": held() - before}


# -- the reference's way -----------------------------------------------------------------------------------------------


class ReferenceAttention(nn.Module):
    """Attention with its weights written out, dropout on them, and the norm after the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm, self.dropout = nn.LayerNorm(WIDTH, eps=1e-12), nn.Dropout(0.1)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        def heads(y: Tensor) -> Tensor:
            return y.view(*y.shape[:-1], HEADS, -1).transpose(-3, -2)

        scores = heads(self.q(x)) @ heads(self.k(context)).transpose(-1, -2) / (WIDTH // HEADS) ** 0.5
        weights = self.dropout((scores if mask is None else scores + mask).softmax(dim=-1))
        seen = (weights @ heads(self.v(context))).transpose(-3, -2).flatten(-2)
        return self.norm(x + self.dropout(self.out(seen)))


class ReferenceFeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.norm, self.dropout = nn.LayerNorm(WIDTH, eps=1e-12), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.dropout(self.narrow(F.gelu(self.wide(x)))))


class ReferenceCCFRec(nn.Module):
    """Row 0 of codes and items is padding, and for codes MASK."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Embedding(LEVELS * SIZE + 1, WIDTH, padding_idx=0)
        self.fusion = nn.ModuleList(
            nn.ModuleList([ReferenceAttention(), ReferenceAttention(), ReferenceFeedForward()]) for _ in range(LAYERS)
        )
        self.positions, self.norm = nn.Embedding(LENGTH, WIDTH), nn.LayerNorm(WIDTH, eps=1e-12)
        self.blocks = nn.ModuleList(
            nn.ModuleList([ReferenceAttention(), ReferenceFeedForward()]) for _ in range(LAYERS)
        )
        self.dropout = nn.Dropout(0.3)

    def read(self, codes: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """(n, L), (n, A, D) -> what becomes of the codes, and their embeddings: (n, L, D)."""
        z = self.codes(codes)
        h = z
        for among, to_texts, feed_forward in self.fusion:
            h = feed_forward(to_texts(among(h, h), texts))
        return h, z

    def states(self, vectors: Tensor, rows: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D) -> (B, D) after the last item of each row."""
        visible = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril() & (rows > 0)[:, None, None, :]
        mask = torch.where(visible, 0.0, -10000.0)
        x = self.dropout(self.norm(vectors + self.positions(torch.arange(LENGTH).expand_as(rows))))
        for attention, feed_forward in self.blocks:
            x = feed_forward(attention(x, x, mask))
        return x[torch.arange(len(rows)), lengths - 1]


def hide(rows: list[list[int]], random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Codes of the places with hidden ones, and the labels: the codes to be found, 0 elsewhere; code by code."""
    hidden, labels = [], []
    for codes in rows:
        kept, wanted = [], []
        for code in codes:
            chance = random.random()
            if code == 0 or chance >= RATIO:
                kept.append(code)
                wanted.append(0)
                continue
            chance /= RATIO
            kept.append(0 if chance < 0.8 else int(random.integers(1, LEVELS * SIZE + 1)) if chance < 0.9 else code)
            wanted.append(code)
        hidden.append(kept)
        labels.append(wanted)
    return torch.tensor(hidden), torch.tensor(labels)


def their_epoch(split: Split, precision: str, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of an epoch, from the fastest of so many steps after one to warm up."""
    rows, lengths, targets = padded_prefixes(split.train, LENGTH)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    texts, codes = features(split.n_items)
    texts = torch.cat([torch.zeros(1, *texts.shape[1:]), texts])
    codes = torch.cat([torch.zeros(1, LEVELS, dtype=torch.int64), codes + SIZE * torch.arange(LEVELS) + 1])
    model, random = ReferenceCCFRec().train(), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    every = np.arange(1, split.n_items + 1)

    def step(number: int) -> None:
        batch = order[number * ROWS : (number + 1) * ROWS]
        history, wanted = rows[batch], targets[batch]
        places = history.flatten()
        hidden, labels = hide(codes[places].tolist(), random)
        positives = sorted(set(wanted.tolist()))
        others = np.array(sorted(set(every.tolist()) - set(positives)))
        n_drawn = min(options.negatives, len(others)) or len(others)
        candidates = torch.from_numpy(np.concatenate([positives, random.choice(others, n_drawn, replace=False)]))
        with autocast(CPU, PRECISIONS[precision]):
            h, _ = model.read(codes[places], texts[places])
            user = F.normalize(model.states(h.mean(dim=1).view(*history.shape, -1), history, lengths[batch]), dim=-1)
            masked, _ = model.read(hidden, texts[places])
            other = model.states(masked.mean(dim=1).view(*history.shape, -1), history, lengths[batch])
            other = F.normalize(other, dim=-1)
            read, own = model.read(codes[candidates], texts[candidates])
            items = F.normalize(read.mean(dim=1) + own.mean(dim=1), dim=-1)
            logits = user @ items.T / TEMPERATURE
            place = torch.searchsorted(torch.tensor(positives), wanted)
            not_own = torch.arange(len(candidates)) < len(positives)  # a positive is a candidate of its rows alone
            not_own = not_own & (torch.arange(len(candidates)) != place[:, None])
            loss = F.cross_entropy(logits.float().masked_fill(not_own, -torch.inf), place)
            found = F.normalize(masked.flatten(0, 1), dim=-1) @ F.normalize(model.codes.weight, dim=-1).T / TEMPERATURE
            loss = loss + MASKED_CODES * F.cross_entropy(found.float(), labels.flatten(), ignore_index=0)
            contrast = (user @ other.T / TEMPERATURE).float()
            same = torch.arange(len(batch))
            loss = loss + ALIGNMENT * (F.cross_entropy(contrast, same) + F.cross_entropy(contrast.T, same)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    before = held()
    seconds = fastest_step(step, options.steps)
    return {"seconds": seconds * len(targets) / ROWS, "peak": held() - before}


if __name__ == "__main__":
    main()
