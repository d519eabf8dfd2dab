"""The whole flow on a synthetic catalogue in a minute or two: four recommenders, a tear-sheet, recommendations."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tesserec.artifacts import MANIFEST
from tesserec.config import to_dict
from tesserec.data import SyntheticConfig, synthetic_catalogue
from tesserec.evaluation import Report, TearSheet, side_by_side
from tesserec.pipeline.inspection import inspect
from tesserec.pipeline.recipe import load_recipe
from tesserec.pipeline.run import Run, run, titles
from tesserec.progress import SILENT, Progress
from tesserec.types import PathLike

SHOP = SyntheticConfig(n_users=1500, n_items=300)
RECIPES: dict[str, tuple[str, ...]] = {  # small networks and few epochs: the catalogue is small, too
    "popularity": (),
    "item-graph": (),
    "sasrec": (
        "recommender.dropout=0.2", "training.batch_size=128", "training.epochs=20", "training.learning_rate=0.003",
    ),
    "tiger": (
        "text.width=64", "tokenizer.codebook_size=32",
        "recommender.width=64", "recommender.ff_width=128", "recommender.n_layers=2", "recommender.n_heads=4",
        "recommender.head_width=16", "recommender.dropout=0.0", "recommender.max_items=8", "recommender.beam_width=20",
        "training.batch_size=128", "training.tokens_per_part=8192", "training.epochs=8", "training.learning_rate=0.004",
        "training.schedule=cosine", "training.warmup_steps=50", "training.validation_users=300",
    ),
}  # fmt: skip
METRICS = ("recall@5", "recall@10", "ndcg@10", "mrr@10", "id_ndcg@10")
N_EXAMPLES, SHOWN_HISTORY, SHOWN_ITEMS = 3, 4, 5


@dataclass(frozen=True)
class Demo:
    """What the demonstration shows."""

    reports: dict[str, Report]
    sheet: TearSheet
    examples: list[dict[str, Any]]  # `history` and `took`: titles; `recommended`: rows with item_id, title and score

    def to_dict(self) -> dict[str, Any]:
        return {
            "reports": {name: report.to_dict() for name, report in self.reports.items()},
            "tear_sheet": self.sheet.to_dict(),
            "examples": self.examples,
        }

    def text(self) -> str:
        protocol = self.reports["tiger"].card["protocol"]
        sizes = protocol["dataset_sizes"]
        counts = ", ".join(f"{sizes[what]:,} {what}" for what in ("users", "items", "interactions"))
        lines = [
            counts,
            f"{protocol['part']} part of {protocol['split']}, candidates: {protocol['candidates']}",
            "",
            side_by_side(self.reports, METRICS),
            "",
            "The semantic IDs that TIGER generates:",
            "",
            self.sheet.text(),
        ]
        for example in self.examples:
            lines += ["", "After", *(f"    {title}" for title in example["history"]), "TIGER recommends"]
            for row in example["recommended"]:
                lines.append(f"  {'>' if row['title'] == example['took'] else ' '} {row['title']}")
            lines.append(f"and the user took {example['took']}")
        return "\n".join(lines)


def run_demo(out: PathLike, *, progress: Progress = SILENT) -> Demo:
    """Make a shop, run every recipe on it, and collect what is worth showing; a second call finds all stages cached."""
    folder = Path(out)
    if not (folder / "data" / MANIFEST).exists():
        progress.say("data: planting a shop")
        synthetic_catalogue(SHOP).save(folder / "data", config=to_dict(SHOP))
    runs = dict[str, Run]()
    for name, settings in RECIPES.items():
        progress.say(f"-- {name}")
        runs[name] = run(load_recipe(name, settings), folder / "data", folder / name, progress=progress)
    reports = {name: finished.report for name, finished in runs.items()}
    return Demo(reports, inspect(runs["tiger"].folder), _examples(runs["tiger"]))


def _examples(finished: Run) -> list[dict[str, Any]]:
    """The first test users with some history: their latest items, the top of the list, what they really took."""
    cases, names = finished.split.test, titles(finished.split.dataset)
    chosen = cases.take(np.flatnonzero(cases.histories.lengths >= SHOWN_HISTORY)[:N_EXAMPLES])
    rows = finished.titled(finished.recommender.recommend(chosen.histories, SHOWN_ITEMS))
    return [
        {
            "history": [names[item] for item in history[-SHOWN_HISTORY:]],
            "recommended": recommended,
            "took": names[target],
        }
        for history, recommended, target in zip(chosen.histories, rows, chosen.targets.tolist())
    ]
