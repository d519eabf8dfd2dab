"""What a suite came to: the numbers of every finished run, compared, beside what others have published.

`results.json` holds everything, and the other two files are drawn from it. What two runs of one suite on one machine
agree on stands outside `costs` and `made`; what depends on the moment (seconds, memory, dates) stands inside.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tesserec import environment
from tesserec.artifacts import write_json
from tesserec.bench.crew import Failure
from tesserec.bench.finished import Finished
from tesserec.bench.foresight import foresight
from tesserec.bench.merged import MERGED
from tesserec.bench.suite import Suite
from tesserec.bench.tuning import Study
from tesserec.config import to_dict
from tesserec.errors import ArtifactError
from tesserec.evaluation import ReportComparison, compare_reports
from tesserec.text.embeddings import Embeddings

RESULTS, TABLE, PAGE = "results.json", "results.md", "report.html"
EMBEDDINGS = "embeddings"


@dataclass(frozen=True, eq=False)
class Results:
    """All that a suite has come to so far.

    Attributes:
        finished: runs with a report, those merged included.
        failures: runs that ended in an error.
        missing: names of runs that were not done.
        studies: (method, data set) -> the search for its settings.
        command: what repeats this.
    """

    suite: Suite
    folder: Path
    finished: tuple[Finished, ...]
    failures: tuple[Failure, ...]
    missing: tuple[str, ...]
    studies: Mapping[tuple[str, str], Study]
    command: str

    def of(self, data: str) -> dict[str, list[Finished]]:
        """The finished runs on a data set by their method, in the order of the suite; what was merged comes last.

        Seeds of a method ascend, wherever they were made.
        """
        runs = sorted((one for one in self.finished if one.data == data), key=lambda one: one.seed or 0)
        names = [*self.suite.methods, *(one.method for one in runs)]
        by_name = {name: [one for one in runs if one.method == name] for name in dict.fromkeys(names)}
        return {name: found for name, found in by_name.items() if found}

    @cached_property
    def tables(self) -> dict[str, ReportComparison]:
        """For each data set with a finished run, the methods compared.

        Raises:
            ConfigError: reports of one data set follow different protocols.
        """
        found = {}
        for data in self.suite.data:
            runs = self.of(data)
            if runs:
                reference = self.suite.reference if self.suite.reference in runs else None
                found[data] = compare_reports(
                    {name: [one.report for one in of_method] for name, of_method in runs.items()},
                    metrics=self.suite.metrics,
                    reference=reference,
                    embeddings=self._text_space(data),
                    may_repeat=self.suite.searched,
                )
        return found

    def _text_space(self, data: str) -> Embeddings | None:
        """In which the items of a list are alike or not: the embeddings of the suite's first run that has some."""
        folders = [one.folder / EMBEDDINGS for runs in self.of(data).values() for one in runs]
        for folder in folders:
            with suppress(ArtifactError):
                return Embeddings.load(folder)
        return None

    @cached_property
    def _plain(self) -> dict[str, Any]:
        tables = {data: table.to_dict() for data, table in self.tables.items()}
        costs = {
            data: {
                name: _with_logs(method.pop("cost"), self.of(data)[name]) for name, method in table["methods"].items()
            }
            for data, table in tables.items()
        }
        return {
            "suite": self.suite.to_dict(),
            "command": self.command,
            "tables": tables,
            "published": self._published(),
            "runs": [self._run(one) for data in tables for runs in self.of(data).values() for one in runs],
            "curves": {data: {name: _curves(runs) for name, runs in self.of(data).items()} for data in tables},
            "codes": {data: {name: runs[0].code_use for name, runs in self.of(data).items()} for data in tables},
            "foresight": {data: foresight(self.of(data), self.suite.metrics[0]) for data in tables},
            "missed": {
                data: {
                    name: missed
                    for name, runs in self.of(data).items()
                    if (missed := next((one.missed for one in runs if one.missed), None))
                }
                if self.suite.missed_users
                else {}
                for data in tables
            },
            "searches": [
                {"method": method, "data": data, **to_dict(study), "best": to_dict(study.best) if study.best else None}
                for (method, data), study in self.studies.items()
            ],
            "failures": [vars(failure) for failure in self.failures],
            "missing": list(self.missing),
            "left_out": self.suite.left_out,
            "costs": costs,
            "made": {
                "library": environment.library(),
                "versions": environment.installed("numpy", "torch", "faiss-cpu", "transformers", "optuna"),
                "hardware": environment.hardware(),
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything but the per-user values, which lie where `runs` says, as plain JSON values."""
        return self._plain

    def text(self) -> str:
        """For a terminal: the tables, and what is not in them."""
        lines = [f"{data}\n{table.text()}" for data, table in self.tables.items()]
        lines += [f"failed: {failure.label}: {failure.error}" for failure in self.failures]
        lines += [f"not run: {len(self.missing)} of the suite's runs"] if self.missing else []
        lines += [f"left out: {name} {why}" for name, why in self.suite.left_out.items()]
        return "\n\n".join([*lines, f"results: {self.folder / RESULTS}, {TABLE}, {PAGE}"])

    def save(self, out: Path) -> None:
        """Write the three files; each appears whole or not at all."""
        from tesserec.bench.markdown import markdown
        from tesserec.bench.page import page

        plain = self.to_dict()
        write_json(out / RESULTS, plain)
        for name, text in ((TABLE, markdown(plain, self.tables)), (PAGE, page(plain))):
            staging = out / f".{name}.partial"
            staging.write_text(text, encoding="utf-8")
            staging.rename(out / name)

    def _published(self) -> dict[str, dict[str, dict[str, Any]]]:
        return {
            data: {
                name: to_dict(method.published[data])
                for name, method in self.suite.methods.items()
                if data in method.published
            }
            for data in self.suite.data
        }

    def _run(self, one: Finished) -> dict[str, Any]:
        folder = one.folder.relative_to(self.folder).as_posix()
        return {
            "method": one.method,
            "data": one.data,
            "seed": one.seed,
            "folder": folder,
            "merged": folder.startswith(f"{MERGED}/"),
            "per_user": f"{folder}/report/per_user.parquet",
            "metrics": one.report.metrics,
            "standard_errors": one.report.standard_errors,
            "model": one.report.card["model"],
            "epochs": one.log[-1]["epoch"] if one.log else None,
        }


def _with_logs(cost: dict[str, Any], runs: list[Finished]) -> dict[str, Any]:
    """The cost with the training seconds of the logs, where reports do not say them."""
    if cost["training_seconds"] is None and all(one.log for one in runs):
        return {**cost, "training_seconds": float(np.mean([one.log[-1]["seconds"] for one in runs]))}
    return cost


def _curves(runs: list[Finished]) -> list[dict[str, Any]]:
    """What the validation part said while each seed trained."""
    return [
        {"seed": one.seed, **{key: [row[key] for row in one.log] for key in ("epoch", "validation", "loss")}}
        for one in runs
        if one.log
    ]
