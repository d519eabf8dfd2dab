"""What LC-Rec's tasks and the choice of semantic IDs do to a small language model on Scientific.

    python benchmarks/learned_ids.py ids scientific --source ../shared/data/scientific --runs runs/learned
    python benchmarks/lcrec_tasks.py --learned runs/learned/scientific --runs runs/lcrec
    python benchmarks/lcrec_tasks.py --learned runs/learned/scientific --runs runs/lcrec --table

Every row is recipe `lcrec` with the settings named. All rows take about as many steps of 128 rows: an epoch of all
tasks has twice the rows of one of next items alone. IDs of uniform mapping and of LETTER are those of `learned_ids.py`
(MiniLM texts). Finished runs are not repeated, interrupted ones go on; `--table` prints what is finished.
"""

import argparse
import json
import sys
from pathlib import Path

from machine import describe
from tesserec.cli.output import TerminalProgress
from tesserec.pipeline import Run, load_recipe, run

NEXT = ("recommender.tasks=seqrec",)
UNIFORM, LETTER = "rq-vae", "both-letter"  # folders of learned_ids.py
KMEANS = ("text=minilm", "tokenizer=rkmeans")
ROWS: dict[str, tuple[str, tuple[str, ...]]] = {  # row -> folder, settings; {ids} is that of learned_ids.py
    "uniform mapping, next item only": ("uniform-next", (f"tokenizer.path={{ids}}/{UNIFORM}-{{seed}}/ids", *NEXT)),
    "uniform mapping, all tasks": (
        "uniform-all",
        (f"tokenizer.path={{ids}}/{UNIFORM}-{{seed}}/ids", "training.epochs=6"),
    ),
    "LETTER, next item only": ("letter-next", (f"tokenizer.path={{ids}}/{LETTER}-{{seed}}/ids", *NEXT)),
    "residual k-means, next item only": ("kmeans-next", (*KMEANS, *NEXT)),
}
METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10", "id_recall@10")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--learned", type=Path, required=True, help="folder of learned_ids.py for Scientific")
    arguments.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    arguments.add_argument("--only", default="", help="rows whose name contains this")
    arguments.add_argument("--seeds", type=int, nargs="*", default=[0])
    arguments.add_argument("--table", action="store_true", help="run nothing, print the table of what is finished")
    options = arguments.parse_args()
    chosen = {name: row for name, row in ROWS.items() if options.only in name}
    if not options.table:
        for name, (folder, settings) in chosen.items():
            for seed in options.seeds:
                filled = [one.format(ids=options.learned, seed=seed) for one in settings]
                if any(one.startswith("tokenizer.path") for one in filled):
                    filled = ["tokenizer=file", *filled]
                print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
                recipe = load_recipe("lcrec", [*filled, f"seed={seed}"])
                run(recipe, options.learned / "data", options.runs / f"{folder}-{seed}", progress=TerminalProgress())
    print("| IDs and tasks | " + " | ".join(METRICS) + " | best epoch | epochs | training s | parameters | seed |")
    print("|---|" + "---:|" * (len(METRICS) + 5))
    for name, (folder, _) in chosen.items():
        for seed in options.seeds:
            if (options.runs / f"{folder}-{seed}" / "report" / "report.json").exists():
                print(row_of(name, Run.open(options.runs / f"{folder}-{seed}"), seed))
    print(f"\n{describe()}")


def row_of(name: str, finished: Run, seed: int) -> str:
    report = finished.report
    log = json.loads((finished.folder / "recommender" / "training_log.json").read_text())
    best = next(row for row in log["rows"] if row["step"] == log["best_step"])
    cells = [f"{report.metrics[metric]:.4f}".lstrip("0") for metric in METRICS]
    cells += [f"{best['epoch']:.0f}", f"{log['rows'][-1]['epoch']:.0f}", f"{log['rows'][-1]['seconds']:.0f}"]
    return f"| {name} | {' | '.join(cells)} | {report.card['model']['parameters']:,} | {seed} |"


if __name__ == "__main__":
    main()
