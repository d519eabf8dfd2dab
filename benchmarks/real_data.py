"""The results on real data: runs of recipes on the published cuts, and the table of docs/results.md from their reports.

    python benchmarks/real_data.py scientific --source ../shared/data/scientific --runs runs/scientific
    python benchmarks/real_data.py beauty --source ../shared/data/beauty --runs runs/beauty --only sasrec --seeds 0
    python benchmarks/real_data.py beauty --source ../shared/data/beauty --runs runs/beauty --table
    python benchmarks/real_data.py joined --source runs/joined/data --runs runs/joined
    python benchmarks/real_data.py scientific --source ../shared/data/scientific --runs runs/scientific \\
        --joined runs/joined

Every run is what `tesserec run RECIPE --set ...` does with the settings listed here. Finished runs are not repeated,
interrupted ones go on; `--table` runs nothing and prints what is finished. Settings were chosen on the validation part.
What is pre-trained (`joined`) reads Games and Yelp as one data set, made by `tesserec prepare` and `tesserec join`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from machine import describe
from tesserec.cli.output import TerminalProgress
from tesserec.data import prepare
from tesserec.evaluation import Report
from tesserec.pipeline import Run, load_recipe, run


@dataclass(frozen=True)
class Experiment:
    """One row of the table."""

    recipe: str
    settings: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    published: str = "-"  # recall@10 and ndcg@10 on this cut


# TIGER on a CPU budget: half the layers and a fifth of the products of the published network, which leaves room for
# several times as many passes over the data (docs/results.md says how far that goes).
CPU_TIGER = (
    "recommender.n_layers=2", "recommender.n_heads=4", "recommender.head_width=32", "recommender.ff_width=512",
    "recommender.beam_width=20", "training.batch_size=128", "training.schedule=cosine", "training.warmup_steps=300",
    "training.learning_rate=0.002", "training.weight_decay=0.01", "training.validation_users=2000",
)  # fmt: skip
SHORT = ("training.batch_size=64", "training.epochs=12")  # a fourth of Beauty's samples: smaller steps, more of them
MINILM = ("text.encoder=minilm",)

BRIEF = ("training.epochs=10", "training.validation_users=2000")  # of pre-training

EXPERIMENTS = {
    "scientific": {
        "popularity": Experiment("popularity", seeds=(0,)),
        "item graph, untrained": Experiment("item-graph", seeds=(0,)),
        "SASRec": Experiment(
            "sasrec", ("recommender.n_layers=3", "training.weight_decay=0.5"), published=".1080 / .0553"
        ),
        "SASRec, texts": Experiment("sasrec-text", MINILM, published=".0994 / .0561"),
        "ZESRec": Experiment("zesrec", MINILM, published=".0851 / .0475"),
        "FDSA": Experiment("fdsa", MINILM, published=".0899 / .0580"),
        "BERT4Rec": Experiment("bert4rec", published=".0488 / .0243"),
        "S3-Rec": Experiment("s3rec", published=".0525 / .0275"),
        "UniSRec": Experiment("unisrec", MINILM),
        "UniSRec, pre-trained": Experiment(
            "unisrec-finetune", (*MINILM, "recommender.pretrained={joined}/unisrec-0"), published=".1188 / .0641"
        ),
        "VQ-Rec": Experiment("vqrec", MINILM, published=".1104 / .0593"),
        "VQ-Rec, the authors' codes": Experiment(
            "vqrec",
            ("tokenizer=file", "tokenizer.path={source}/vqrec_codes.npy", "tokenizer.uncoded=reserve"),
            published=".1104 / .0593",
        ),
        "CCFRec": Experiment("ccfrec", MINILM),
        "Unified": Experiment("unified", MINILM),
        "TIGER, residual k-means": Experiment("tiger", (*MINILM, *CPU_TIGER, *SHORT), seeds=(0,)),
        "TIGER, RQ-VAE": Experiment("tiger", (*MINILM, "tokenizer=rqvae", *CPU_TIGER, *SHORT), (0,)),
        "TIGER, PQ": Experiment("tiger", (*MINILM, "tokenizer=pq", *CPU_TIGER, *SHORT), seeds=(0,)),
    },
    "joined": {
        "UniSRec": Experiment("unisrec-pretrain", (*MINILM, *BRIEF), seeds=(0,)),
    },
    "beauty": {
        "popularity": Experiment("popularity", seeds=(0,)),
        "item graph, untrained": Experiment("item-graph", seeds=(0,)),
        "SASRec": Experiment("sasrec"),
        "TIGER, the LETTER authors' IDs": Experiment(
            "tiger", ("tokenizer=file", "tokenizer.path={source}/Beauty.index.json", *CPU_TIGER, "training.epochs=11"),
            seeds=(0,),
        ),
    },
}  # fmt: skip
METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10", "id_recall@10", "recall@50", "ndcg@50")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("data", choices=EXPERIMENTS)
    arguments.add_argument("--source", type=Path, required=True, help="folder of the published data")
    arguments.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    arguments.add_argument("--joined", type=Path, help="folder of the runs on joined data, for what starts from them")
    arguments.add_argument("--only", default="", help="experiments whose name contains this")
    arguments.add_argument("--seeds", type=int, nargs="*", help="only these")
    arguments.add_argument("--table", action="store_true", help="run nothing, print the table of what is finished")
    options = arguments.parse_args()
    chosen = {name: one for name, one in EXPERIMENTS[options.data].items() if options.only.lower() in name.lower()}
    if not options.table:
        prepared = options.runs / "data"
        if not prepared.exists():
            prepare(options.source, out=prepared)
        for name, experiment in chosen.items():
            for seed in experiment.seeds if options.seeds is None else options.seeds:
                settings = [one.format(source=options.source, joined=options.joined) for one in experiment.settings]
                print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
                recipe = load_recipe(experiment.recipe, [*settings, f"seed={seed}"])
                run(recipe, prepared, folder_of(options.runs, name, seed), progress=TerminalProgress())
    print(table(options.runs, chosen))


def folder_of(runs: Path, name: str, seed: int) -> Path:
    words = "".join(letter if letter.isalnum() else " " for letter in name.lower().replace("'", "")).split()
    return runs / f"{'-'.join(words)}-{seed}"


def table(runs: Path, experiments: dict[str, Experiment]) -> str:
    """One row per experiment: mean and standard deviation over the seeds that are finished, and what training took."""
    lines = [
        f"| model | {' | '.join(METRICS)} | published R@10 / N@10 | parameters | training s | epochs | seeds |",
        f"|---|{'---:|' * (len(METRICS) + 5)}",
    ]
    every = list[Report]()
    for name, experiment in experiments.items():
        folders = [folder_of(runs, name, seed) for seed in experiment.seeds]
        finished = [Run.open(folder) for folder in folders if (folder / "report" / "report.json").exists()]
        if not finished:
            continue
        reports = [one.report for one in finished]
        cells = [spread([report.metrics[metric] for report in reports]) for metric in METRICS]
        logs = [one.folder / "recommender" / "training_log.json" for one in finished]
        last = [json.loads(log.read_text())["rows"][-1] for log in logs if log.exists()]
        costs = [f"{np.mean([row[key] for row in last]):.0f}" if last else "-" for key in ("seconds", "epoch")]
        cells += [experiment.published, f"{reports[0].card['model']['parameters']:,}"]
        lines.append(f"| {name} | {' | '.join([*cells, *costs, str(len(reports))])} |")
        every += reports
    if not every:
        return f"Nothing in {runs} is finished."
    data = {report.card["protocol"]["dataset"] for report in every}
    commits = {str(report.card["made"]["library"]["commit"]) for report in every}
    return "\n".join([*lines, "", f"Data {', '.join(data)}; {describe()}; commits {', '.join(sorted(commits))}."])


def spread(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.4f}".lstrip("0")
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.4f}"


if __name__ == "__main__":
    main()
