"""The whole flow on a synthetic catalogue in about a minute: the suite `quick`, a tear-sheet, recommendations."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tesserec.bench.bench import bench
from tesserec.bench.plan import plan
from tesserec.bench.results import Results
from tesserec.bench.suite_files import load_suite
from tesserec.evaluation import TearSheet
from tesserec.pipeline.inspection import inspect
from tesserec.pipeline.run import Run, titles
from tesserec.progress import SILENT, Progress
from tesserec.types import PathLike

SUITE, SHOWN = "quick", "TIGER"
N_EXAMPLES, SHOWN_HISTORY, SHOWN_ITEMS = 3, 4, 5


@dataclass(frozen=True)
class Demo:
    """What the demonstration shows."""

    results: Results
    sheet: TearSheet
    examples: list[dict[str, Any]]  # `history` and `took`: titles; `recommended`: rows with item_id, title and score

    def to_dict(self) -> dict[str, Any]:
        return {"results": self.results.to_dict(), "tear_sheet": self.sheet.to_dict(), "examples": self.examples}

    def text(self) -> str:
        lines = [f"The semantic IDs that {SHOWN} generates:", "", self.sheet.text()]
        for example in self.examples:
            lines += ["", "After", *(f"    {title}" for title in example["history"]), f"{SHOWN} recommends"]
            for row in example["recommended"]:
                lines.append(f"  {'>' if row['title'] == example['took'] else ' '} {row['title']}")
            lines.append(f"and the user took {example['took']}")
        return "\n".join([*lines, "", self.results.text()])


def run_demo(out: PathLike, *, progress: Progress = SILENT) -> Demo:
    """Carry out the suite `quick`, and collect what is worth showing; a second call finds all runs finished."""
    results = bench(plan(load_suite(SUITE), out), command=f"tesserec demo --out={out}", progress=progress)
    run = Run.open(next(one.folder for one in results.finished if one.method == SHOWN))
    return Demo(results, inspect(run.folder), _examples(run))


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
