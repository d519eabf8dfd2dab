"""What the distances and the parts of an item's vector do to Unified: use of codes, distinct IDs, and ranking.

    python benchmarks/unified_distances.py --source ../shared/data/scientific --runs runs/unified

Every row is what `tesserec run unified --set ...` does with the settings listed here, reported on the validation part
(`--part test` reports the same models once more). Finished runs are not repeated, interrupted ones go on. Use of a
level: codewords with an item, of all; distinct: IDs / items; both after training, in evaluation mode.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from machine import describe
from tesserec.cli.output import TerminalProgress
from tesserec.data import prepare
from tesserec.pipeline import Run, load_recipe, run
from tesserec.tables import format_table

ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mixed": ("unified", ()),
    "cosine": ("unified", ("recommender.distance=cosine",)),
    "cosine, straight-through per level": (
        "unified",
        ("recommender.distance=cosine", "recommender.straight_through=per-level"),
    ),
    "euclidean": ("unified", ("recommender.distance=euclidean",)),
    "mixed, gradient codebooks": ("unified", ("recommender.codebooks=gradient",)),
    "semantic part alone": ("unified", ("recommender.token=semantic",)),
    "ID part alone, width 8": ("unified", ("recommender.token=id",)),
    "ID part alone, width 72": ("unified", ("recommender.token=id", "recommender.id_width=72")),
    "SASRec, as many users per step": (
        "sasrec",
        ("training.batch_size=256", "training.learning_rate=0.001", "training.validate_every=2"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="anything that `tesserec prepare` reads, with texts")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--encoder", default="minilm", help="lsa or minilm")
    parser.add_argument("--only", nargs="*", default=list(ROWS), help="rows, by their names")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--part", default="validation", choices=("validation", "test"))
    options = parser.parse_args()

    prepared = options.runs / "data"
    if not prepared.exists():
        prepare(options.source, out=prepared)
    cells = [["", "use per level, %", "distinct, %", "recall@10", "ndcg@10", "best epoch", "s", "seeds"]]
    for name in options.only:
        recipe, settings = ROWS[name]
        text = (f"text.encoder={options.encoder}",) if recipe == "unified" else ()
        finished = list[Run]()
        for seed in options.seeds:
            folder = options.runs / f"{name.replace(',', '').replace(' ', '-').lower()}-{seed}"
            print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
            chosen = load_recipe(recipe, [*text, *settings, f"seed={seed}", f"evaluation.part={options.part}"])
            finished.append(run(chosen, prepared, folder, progress=TerminalProgress()))
        cells.append([name, *row(finished), str(len(finished))])
    print(format_table(cells, align="lr"))
    print(
        f"\n{options.part} part; data {finished[0].report.card['protocol']['dataset']}; {options.encoder}; {describe()}"
    )


def row(finished: list[Run]) -> list[str]:
    """Means over the seeds."""
    logs = [json.loads((one.folder / "recommender" / "training_log.json").read_text()) for one in finished]
    best = [next(row["epoch"] for row in log["rows"] if row["step"] == log["best_step"]) for log in logs]
    metrics = [[one.report.metrics[name] for one in finished] for name in ("recall@10", "ndcg@10")]
    use, distinct = "-", "-"
    if finished[0].has("semantic-ids"):
        ids = [one.semantic_ids for one in finished]
        used = [[len(np.unique(column)) / size for column, size in zip(one.codes.T, one.codebook_sizes)] for one in ids]
        use = " / ".join(f"{share:.1%}".rstrip("%") for share in np.mean(used, axis=0))
        distinct = f"{np.mean([len(one.group_sizes) / len(one.codes) for one in ids]):.1%}".rstrip("%")
    seconds = np.mean([log["rows"][-1]["seconds"] for log in logs])
    return [use, distinct, *(f"{np.mean(values):.4f}" for values in metrics), f"{np.mean(best):.0f}", f"{seconds:.0f}"]


if __name__ == "__main__":
    main()
