"""What a suite comes to before anything is run: checked from end to end, and which of it is done already."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tesserec.artifacts import fingerprint_json, read_json_if_whole, require_writable
from tesserec.bench.finished import Finished, open_finished
from tesserec.bench.merged import (
    Protocols,
    is_merged,
    kept_before,
    place_of,
    read_elsewhere,
    report_elsewhere,
)
from tesserec.bench.results import PAGE, RESULTS, TABLE
from tesserec.bench.studies import Studies
from tesserec.bench.suite import Job, Suite, check_data
from tesserec.bench.tuning import check_space, require_optuna
from tesserec.config import nearest
from tesserec.data.dataset import Dataset
from tesserec.errors import ArtifactError, ConfigError
from tesserec.evaluation import Report, StatisticsConfig
from tesserec.evaluation.evaluate import protocol
from tesserec.evaluation.report_checks import differing, require_one_protocol
from tesserec.evaluation.report_comparison import require_testable
from tesserec.pipeline.recipe import SplitConfig
from tesserec.tables import format_table
from tesserec.types import PathLike


@dataclass(frozen=True)
class Plan:
    """What a suite comes to, before anything is run. All of it has been checked: recipes, settings and data."""

    suite: Suite
    out: Path
    jobs: tuple[Job, ...]  # all runs of the suite
    chosen: tuple[Job, ...]  # those that are to be run, unless something merged stands for them
    merge: tuple[tuple[str, Path], ...] = ()  # (method's name, run or report) of what was made elsewhere

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        merged = [*chain(*self.merged())]
        return {
            "suite": self.suite.name,
            "runs": [
                {"method": job.method, "data": job.data, "seed": job.seed, "recipe": job.source,
                 "settings": list(job.settings), "state": self._state(job, merged)}
                for job in self.chosen
            ],
            "merged": [one.label for one in merged],
            "trials": dict.fromkeys(self._searched(), self.suite.tuning.trials),
            "left_out": self.suite.left_out,
        }  # fmt: skip

    def text(self) -> str:
        """For a terminal: a row for each method on each data set."""
        rows, merged = [["method", "data", "recipe", "seeds", "trials", "to do"]], [*chain(*self.merged())]
        for method, data in dict.fromkeys((job.method, job.data) for job in self.chosen):
            jobs = [job for job in self.chosen if (job.method, job.data) == (method, data)]
            states = [self._state(job, merged) for job in jobs]
            waiting = [state for state in states if state not in ("finished", "merged")]
            words = f"{len(waiting)} of {len(jobs)}" + (" (one goes on)" if "interrupted" in waiting else "")
            trials = str(self.suite.tuning.trials) if self.suite.methods[method].search else "-"
            seeds = ", ".join(str(job.seed) for job in jobs)
            done = "finished" if "finished" in states else "merged"
            rows.append([method, data, jobs[0].source, seeds, trials, words if waiting else done])
        lines = [f"{self.suite.name}: {self.suite.summary}", "", format_table(rows, align="llllrl"), ""]
        lines += [f"left out: {name} {why}" for name, why in self.suite.left_out.items()]
        protocol = self.suite.protocol
        masking = "the user's own history is masked" if protocol.exclude_seen else "nothing is masked"
        lines.append(f"{protocol.part} part, {masking}, cut-offs {', '.join(map(str, protocol.cutoffs))}")
        lines.append(f"{len(self.chosen)} runs into {self.out}")
        lines += [f"merged: {one.label}" for one in merged]
        return "\n".join(lines)

    @property
    def studies(self) -> Studies:
        return Studies(self.suite, self.out)

    @property
    def datasets(self) -> dict[str, Path]:
        """Where each data set of the suite is, or will be made."""
        return {name: self.suite.dataset_folder(name, self.out) for name in self.suite.data}

    def finished(self, job: Job) -> Finished | None:
        """The run of a job with its final settings, if there is one."""
        tuned = self.studies.tuned(job)
        return open_finished(tuned, self.datasets[job.data]) if tuned is not None else None

    def merged(self) -> tuple[list[Finished], list[Finished]]:
        """What was merged into the suite before, and what is to be merged now and was not.

        Where made-up data is not made yet, the latter is not known to belong to it and is left out.

        Raises:
            ArtifactError: what is to be merged is no report.
            ConfigError: it is on another data set, or follows another protocol.
        """
        if not self.merge and not is_merged(self.out):
            return [], []
        protocols = self._protocols()
        before = kept_before(self.out, protocols)
        if len(protocols) < len(self.suite.data):
            for _, source in self.merge:
                report_elsewhere(source)  # refuses what is none
            return before, []
        places = [one.folder for one in before]
        found = [read_elsewhere(name, source, protocols) for name, source in self.merge]
        return before, [one for one in found if place_of(one, self.out) not in places]

    def require_fitting(self, merged: Sequence[Finished]) -> None:
        """Refuse what was made elsewhere and does not go into the suite's tables, beside what is made here.

        Args:
            merged: all of it, on data sets of the suite and of its protocol.

        Raises:
            ConfigError: it is of another method or has other settings than the suite's runs of its name, or is one of
                the suite's runs once more.
        """
        for one in merged:
            if found := self._unlike_namesakes(one, merged):
                kept = f" It was merged before: remove {one.folder}." if one.folder.is_relative_to(self.out) else ""
                raise ConfigError(
                    f"{one.folder} does not go with the suite's runs of {one.method} ({found}). Merge it under a name "
                    f"of its own.{kept}"
                )
        for data in self.suite.data:
            reports = dict[str, list[Report]]()
            made_here = [self.finished(job) for job in self.jobs if not stands_for(merged, job)]
            for run in (*made_here, *merged):
                if run is not None and run.data == data:
                    reports.setdefault(run.method, []).append(run.report)
            if reports:
                require_one_protocol(reports, self.suite.searched)

    def _unlike_namesakes(self, one: Finished, merged: Sequence[Finished]) -> str:
        """Where something made elsewhere differs from the suite's runs of its name; "" where it does not."""
        namesakes = [job for job in self.jobs if (job.method, job.data) == (one.method, one.data)]
        remaining = [job for job in namesakes if not stands_for(merged, job)]
        tuned = self.studies.tuned(remaining[0]) if remaining else None
        if tuned is not None:
            return differing(one.settings, tuned.settings_of_model)
        if namesakes:  # all made elsewhere, or not searched for yet: of this method, whatever its settings
            return differing(one.settings["method"], namesakes[0].recipe.recommender.method, "method")
        return ""

    def _protocols(self) -> Protocols:
        """What reports on each data set must follow; without those that are not made yet."""
        asked = self.suite.protocol
        cut, told = (self.jobs[0].recipe.split, self.jobs[0].told) if self.jobs else (SplitConfig(), "")
        return {
            name: protocol(cut.split(Dataset.load(folder)), asked.part, asked.exclude_seen, asked.cutoffs, told=told)
            for name, folder in self.datasets.items()
            if folder.exists()
        }

    def _searched(self) -> list[str]:
        return [name for name in dict.fromkeys(job.method for job in self.chosen) if self.suite.methods[name].search]

    def _state(self, job: Job, merged: Sequence[Finished]) -> str:
        if stands_for(merged, job):
            return "merged"
        if self.finished(job) is not None:
            return "finished"
        return "interrupted" if (job.folder / "run.json").exists() else "to do"


def stands_for(merged: Sequence[Finished], job: Job) -> bool:
    """Whether something that was made elsewhere stands for the run of a job, which is not made then."""
    seed = job.seed if job.recipe.training is not None else None
    return any((one.method, one.data, one.seed) == (job.method, job.data, seed) for one in merged)


def plan(
    suite: Suite,
    out: PathLike,
    *,
    only: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    merge: Sequence[tuple[str, PathLike]] = (),
) -> Plan:
    """Check the whole suite and say what would be run.

    Args:
        only: methods whose name contains one of these, whatever its capitals; none: all.
        seeds: only these of the suite's.
        merge: (method's name, run or report) of runs that were made elsewhere, to stand beside the suite's, or for
            those of their method and seed.

    Raises:
        TesserecError: a recipe does not load, data is missing or another cut, a place cannot be written, Optuna is
            needed and not installed, what is to be merged is no report of this protocol; nothing has been run or
            written then.
    """
    folder = Path(out)
    require_writable(folder)
    _require_own(folder)
    check_data(suite)
    jobs = suite.jobs(folder)
    _require_different(suite, jobs)
    require_testable(len({job.method for job in jobs}), len(suite.metrics), StatisticsConfig())
    searched = {job.method: job for job in jobs if suite.methods[job.method].search}
    if searched:
        require_optuna()
    for name, job in searched.items():
        space = suite.methods[name].search
        check_space(name, space, lambda more, job=job: _require_as_told(job, more))  # type: ignore[misc]
    run = dict.fromkeys(job.method for job in jobs)
    for word in only:
        if not any(word.lower() in name.lower() for name in run):
            raise ConfigError(f"suite {suite.name} runs no method with {word!r} in it. {nearest(word, run)}")
    known = sorted({job.seed for job in jobs})
    for seed in seeds or ():
        if seed not in known:
            raise ConfigError(f"suite {suite.name} has the seeds {', '.join(map(str, known))}, not {seed}.")
    chosen = [
        job
        for job in jobs
        if (not only or any(word.lower() in job.method.lower() for word in only))
        and (seeds is None or job.seed in seeds)
    ]
    planned = Plan(suite, folder, tuple(jobs), tuple(chosen), tuple((name, Path(source)) for name, source in merge))
    if any(merged := planned.merged()):  # refuses what does not belong
        planned.require_fitting([*chain(*merged)])
    return planned


def _require_own(out: Path) -> None:
    """Refuse a folder with results that no suite wrote: they would be overwritten."""
    there = [name for name in (RESULTS, TABLE, PAGE) if (out / name).exists()]
    saved = read_json_if_whole(out / RESULTS)
    if there and not (isinstance(saved, dict) and "suite" in saved):
        raise ArtifactError(
            f"{out} has {' and '.join(there)}, which no suite wrote. Choose another folder for --out, or move them."
        )


def _require_as_told(job: Job, more: Sequence[str]) -> None:
    """Refuse settings that the recipe does not take, or with which a method is told more of its targets."""
    tried = job.with_settings(more, job.folder)
    if tried.told != job.told:
        raise ConfigError(
            f"{', '.join(more)} changes what the method is told of its targets ({tried.told or job.told}), so its "
            "figures would not go into one table with the others. Leave it out."
        )


def _require_different(suite: Suite, jobs: Sequence[Job]) -> None:
    """Refuse two runs that are one, whose reports would be refused as given twice when all is done.

    What a search will find is not known yet: methods that have one may come to the settings of another.
    """
    known = dict[str, Job]()
    for job in jobs:
        if suite.methods[job.method].search:
            continue
        recipe = {key: value for key, value in job.recipe.to_dict().items() if key not in ("name", "summary")}
        other = known.setdefault(fingerprint_json([job.data, recipe]), job)
        if other is not job:
            raise ConfigError(
                f"suite {suite.name}: {other.label} and {job.label} are the same run. Give one of them other settings "
                "or another seed, or leave it out."
            )
