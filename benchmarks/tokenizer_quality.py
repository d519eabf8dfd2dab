"""How well each tokenizer names the items of a catalogue, and what fitting costs.

    python benchmarks/tokenizer_quality.py ../shared/data/scientific --encoder minilm
    python benchmarks/tokenizer_quality.py ../shared/data/scientific --encoder minilm --seeds 2 \\
        --only rkmeans rqvae opq --plot docs/images/comparison.png

Every row is one tokenizer with its defaults, or with the settings named; figures are those of the tear-sheet
(docs/tokenizers.md), means over the seeds with the spread of the distinct IDs. Processor seconds are summed over
threads: on a machine that does nothing else, wall time is about as long with one thread and shorter with more.
With `--plot` all tear-sheets are compared, seed by seed: as tables, and as the picture of docs/tokenizers.md.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

import machine
from tesserec.data import leave_one_out, prepare
from tesserec.evaluation import Subject, compare_ids
from tesserec.tables import format_table
from tesserec.text import TextConfig, encode_items
from tesserec.text.templates import render
from tesserec.tokenizers import make_tokenizer

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "rkmeans": ("rkmeans", {}),
    "rkmeans, raw residuals": ("rkmeans", {"normalize": "none"}),
    "rkmeans, last level balanced": ("rkmeans", {"balance": "last"}),
    "rkmeans, all levels balanced": ("rkmeans", {"balance": "all"}),
    "rqvae": ("rqvae", {}),
    "rqvae, released gradients": ("rqvae", {"gradients": "released"}),
    "rqvae, mean reduction": ("rqvae", {"reduction": "mean"}),
    "rqvae, no resets": ("rqvae", {"reset_share": 0.0}),
    "pq": ("pq", {}),
    "opq": ("opq", {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="anything that `tesserec prepare` reads, with item texts")
    parser.add_argument("--encoder", default="lsa", help="lsa or minilm")
    parser.add_argument("--cache", type=Path, help="where to keep a network's vectors")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="compare the tear-sheets, and draw them into this file")
    parser.add_argument("--only", nargs="*", default=list(CASES), help="rows, by their names")
    arguments = parser.parse_args()

    dataset = prepare(arguments.source)
    texts = render(dataset.items)
    embeddings = encode_items(
        dataset.items, dataset.catalogue, TextConfig(encoder=arguments.encoder), cache=arguments.cache
    )
    split = leave_one_out(dataset)
    print(f"{machine.describe()}\n{len(texts):,} items, {len(set(texts)):,} texts, {arguments.encoder}")
    rows = [["", "distinct", "ICR", "largest", "used", "perplexity", "unexplained", "neighbours", "together",
             "wall s", "processor s"]]  # fmt: skip
    subjects: dict[str, Subject] = {}
    for name in arguments.only:
        method, settings = CASES[name]
        wall, processor = [], []
        for seed in range(arguments.seeds):
            tokenizer = make_tokenizer(method, {**settings, "seed": seed})
            started, busy = time.perf_counter(), time.process_time()
            tokenizer.fit(embeddings)
            wall.append(time.perf_counter() - started)
            processor.append(time.process_time() - busy)
            subjects[f"{name}, seed {seed}"] = Subject(tokenizer.encode(embeddings), texts, embeddings, tokenizer)
        of_name = {str(seed): subjects[f"{name}, seed {seed}"] for seed in range(arguments.seeds)}
        sheets = list(compare_ids(of_name, split=split).sheets.values())
        levels = [[level for level in sheet.levels if not level.extra] for sheet in sheets]
        distinct = [sheet.collisions.distinct for sheet in sheets]
        rows.append([
            name,
            f"{np.mean(distinct):,.0f} ± {np.std(distinct):.0f}",
            f"{np.mean([sheet.collisions.icr for sheet in sheets]):.3f}",
            f"{max(sheet.collisions.largest_group for sheet in sheets)}",
            f"{np.mean([[level.used / level.size for level in found] for found in levels]):.3f}",
            "/".join(f"{value:.0f}" for value in np.mean([[e.perplexity for e in found] for found in levels], axis=0)),
            f"{np.mean([sheet.unexplained for sheet in sheets]):.3f}",
            f"{np.mean([sheet.neighbours.prefix[0] for sheet in sheets]):.3f}",
            f"{np.mean([sheet.together.prefix[0] for sheet in sheets]):.3f}",
            f"{np.mean(wall):.0f}",
            f"{np.mean(processor):.0f}",
        ])  # fmt: skip
        print(format_table(rows, align="lr") if name == arguments.only[-1] else f"... {name}", flush=True)
    if arguments.plot is not None:
        comparison = compare_ids(subjects, split=split)
        print(f"\n{comparison.text()}")
        comparison.plot(arguments.plot)


if __name__ == "__main__":
    main()
