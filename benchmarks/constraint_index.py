"""What the constraint index costs: bytes per item, build time, and milliseconds per decoding step as catalogues grow.

The model is left out: each step answers ready-made log-probabilities, so the times are those of the search alone.
Beside our step stands the layout of STATIC (arXiv 2602.22647), written here from its description: for every hypothesis
as many candidates as the widest node of the level has children, masked beyond the true number. Both run on the same
index and the same log-probabilities. "Even" catalogues draw codes uniformly, "skewed" ones give a few codes most of the
items, as learned IDs do.

    python benchmarks/constraint_index.py                      # everything: about 3 GB and a few minutes
    python benchmarks/constraint_index.py --max-items 1000000
"""

import argparse
import os
import platform
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tesserec.functional.beam import beam_search
from tesserec.functional.trie import ConstraintIndex

CATALOGUES = [  # items, levels, codewords per level, skew (code = codewords * uniform ** skew)
    (10**4, 4, 256, 1),
    (10**5, 4, 256, 1),
    (10**6, 4, 256, 1),
    (10**7, 4, 256, 1),
    (10**4, 4, 256, 3),
    (10**5, 4, 256, 3),
    (10**6, 4, 256, 3),
    (10**7, 4, 256, 3),
    (10**6, 8, 2048, 1),
    (10**7, 3, 8192, 1),
    (10**7, 3, 8192, 3),
]
USERS, BEAMS, DENIED = 32, 20, 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-items", type=int, default=10**7)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; ",
        end="",
    )
    print(f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}")
    print(f"random codes, {USERS} users, {BEAMS} beams; times are the least of {options.repeats} runs\n")
    print("| items | L x K | build, CPU s | bytes per item | ms per step, by level | padded to the widest node | "
          "item set, CPU ms | deny lists, CPU ms | ms per step, by level, with both |")  # fmt: skip
    print("|---:|---|---:|---:|---|---|---:|---:|---|")
    for n_items, n_levels, size, skew in CATALOGUES:
        if n_items <= options.max_items:
            print(row(n_items, n_levels, size, skew, options.repeats), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\nLargest memory of the process: {peak:.1f} GiB")


def row(n_items: int, n_levels: int, size: int, skew: int, repeats: int) -> str:
    rng = np.random.default_rng(0)
    codes = np.stack(
        [(size * rng.random(n_items, dtype=np.float32) ** skew).astype(np.int16) for _ in range(n_levels)], axis=1
    )
    started = time.process_time()
    index = ConstraintIndex.build(codes, (size,) * n_levels)
    build = time.process_time() - started

    generator = torch.Generator().manual_seed(0)
    log_probs = [
        (2 * torch.randn(USERS, BEAMS, size, generator=generator)).log_softmax(dim=-1) for _ in range(n_levels)
    ]
    mask = rng.random(n_items) < 0.3
    rows = torch.arange(USERS).repeat_interleave(DENIED)
    histories = torch.from_numpy(rng.integers(0, n_items, USERS * DENIED))
    allow_ms = 1e3 * least(lambda: index.item_sets(mask), 3)
    sets = index.item_sets(mask)
    deny_ms = 1e3 * least(lambda: index.restrict(sets, denied=(rows, histories)), 3)
    restriction = index.restrict(sets, denied=(rows, histories))

    ours = by_level(log_probs, lambda step: beam_search(step, index, beam_width=BEAMS), repeats)
    widest_of = [int(pointers.diff().max()) for pointers in index.first_child]
    padded = by_level(log_probs, lambda step: padded_search(step, index, widest_of), repeats)
    cut = by_level(log_probs, lambda step: beam_search(step, index, beam_width=BEAMS, restriction=restriction), repeats)
    shape = f"{n_levels} x {size}, {'even' if skew == 1 else 'skewed'}"
    cells = [f"{n_items:,}", shape, f"{build:.2f}", f"{index.n_bytes / n_items:.0f}", ours, padded]
    cells += [f"{allow_ms:.1f}", f"{deny_ms:.1f}", cut]
    return f"| {' | '.join(cells)} |"


def by_level(log_probs: list[Tensor], search: Callable[[Callable[..., Tensor]], object], repeats: int) -> str:
    """Milliseconds between the model's answers, level by level; the last includes making the result."""
    times = np.zeros((repeats, len(log_probs)))
    for run in times:
        marks = list[float]()

        def step(level: int, parents: Tensor | None, codes: Tensor | None, marks: list[float] = marks) -> Tensor:
            answer = log_probs[level][:, : 1 if codes is None else codes.shape[1]].contiguous()
            marks.append(time.perf_counter())
            return answer

        search(step)
        run[:] = np.diff([*marks, time.perf_counter()])
    return " ".join(f"{1e3 * level:.2f}" for level in times.min(axis=0))


@torch.inference_mode()
def padded_search(step: Callable[..., Tensor], index: ConstraintIndex, widest_of: list[int]) -> Tensor:
    """Beam search as STATIC lays it out; without validity, ties, certificates or item sets."""
    nodes, scores = torch.zeros(USERS, 1, dtype=torch.int64), torch.zeros(USERS, 1)
    parents = codes = None
    for level, pointers in enumerate(index.first_child[:-1]):
        log_probs = step(level, parents, codes)
        widest = widest_of[level]
        first = pointers[nodes].long()
        slot = torch.arange(widest)
        legal = slot < (pointers[nodes + 1] - first)[..., None]
        child = (first[..., None] + slot).clamp_max(index.n_nodes(level + 1) - 1)
        candidate = index.codes[level][child].long()
        score = (scores[..., None] + log_probs.gather(2, candidate)).masked_fill(~legal, -torch.inf).flatten(1)
        scores, place = score.topk(min(BEAMS, score.shape[1]), dim=1)
        nodes, parents = child.flatten(1).gather(1, place), place // widest
        codes = index.codes[level][nodes].long()
    return nodes


def least(work: Callable[[], object], repeats: int) -> float:
    """CPU seconds of all threads."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


if __name__ == "__main__":
    main()
