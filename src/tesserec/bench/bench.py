"""A suite, carried out: every recipe on every data set with every seed, each in a process, stages made once for all.

    OUT/results.json, results.md, report.html    what came out
    OUT/runs/<data>/<method>/<seed>              a run as `tesserec run` makes it, with every user's rank in its report
    OUT/trials/<data>/<method>/<number>          runs of a search for settings, on the validation part
    OUT/stages                                   stages that runs share, unless they lie elsewhere
    OUT/merged/<method>/<fingerprint>            reports that were made elsewhere
    OUT/data/<data>                              data sets that are made up

Started again, a suite repeats no finished run, and goes on with an interrupted one from its last checkpoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tesserec.artifacts import read_json_if_whole, read_manifest, require_writable, write_json
from tesserec.bench.crew import FAILURE, Crew, Failure
from tesserec.bench.finished import Finished, open_finished
from tesserec.bench.merged import keep
from tesserec.bench.plan import Plan, stands_for
from tesserec.bench.results import Results
from tesserec.bench.suite import Job
from tesserec.bench.tuning import search
from tesserec.bench.worker import Work
from tesserec.config import to_dict
from tesserec.data.synthetic import SyntheticConfig, synthetic_catalogue
from tesserec.errors import ArtifactError
from tesserec.evaluation import Report
from tesserec.progress import SILENT, Progress, Task
from tesserec.types import PathLike


def bench(
    planned: Plan,
    *,
    workers: int = 1,
    stages: PathLike | None = None,
    command: str = "",
    progress: Progress = SILENT,
) -> Results:
    """Carry out a plan and write its results, with those of the suite's other runs that are finished already.

    Args:
        planned: what `plan` returned.
        workers: runs at a time, each in a process of its own, with a share of the cores and one of the GPUs.
        stages: a folder of stages that several suites share; None: OUT/stages.
        command: what repeats this, for the report.
        progress: who listens.

    Returns:
        The results; a run that failed is named in them and does not keep the others from ending.

    Raises:
        ArtifactError: what is to be merged is no report.
        ConfigError: what is to be merged is of another protocol, or a report of the suite once more; nothing has been
            run or copied then.
    """
    suite, out = planned.suite, planned.out
    store = Path(stages) if stages is not None else out / "stages"
    require_writable(store)
    with Crew(workers, progress) as crew:
        for name, data in suite.data.items():
            place = planned.datasets[name]
            if data.synthetic is not None and not _is_made(data.synthetic, place):
                synthetic_catalogue(data.synthetic).save(place, config=to_dict(data.synthetic))
        before, new = planned.merged()
        if new:
            planned.require_fitting([*before, *new])
            keep(new, out)
        chosen = tuple(job for job in planned.chosen if not stands_for([*before, *new], job))
        planned = replace(planned, chosen=chosen, merge=())  # kept by now
        bound = _Bound(planned, crew, store, progress)
        jobs = _search_settings(bound)
        first = {(job.method, job.data): job.seed for job in reversed(planned.chosen)}
        with progress.task(f"suite {suite.name}", len(jobs)) as task:

            def carry_out(job: Job) -> None:
                looked_at = suite.missed_users if job.seed == first[job.method, job.data] else 0
                failure = bound.carry_out(job.label, job, missed_users=looked_at)
                finished = None if failure else open_finished(job, planned.datasets[job.data])
                progress.say(f"{job.label}: {failure.error if failure else _words(finished)}")
                task.advance(1)

            crew.each(carry_out, jobs)
    results = collect(planned, command=command)
    results.save(out)
    return results


def collect(planned: Plan, *, command: str = "") -> Results:
    """The results of all runs of a suite that are finished, chosen or not, and of those merged into its folder.

    Args:
        planned: what `plan` returned.
        command: what repeats this, for the report.
    """
    return _collected(planned, planned.merged()[0], command)


def _collected(planned: Plan, merged: Sequence[Finished], command: str = "") -> Results:
    runs, failures, missing = list[Finished](), list[Failure](), list[str]()
    for job in planned.jobs:
        if stands_for(merged, job):
            continue
        found, note = planned.finished(job), job.folder / FAILURE
        if found is not None:
            runs.append(found)
        if note.exists():  # also where only what comes after the report went wrong
            said = read_json_if_whole(note) or {"error": f"{note} is damaged; run it again"}
            failures.append(Failure(job.label, str(said["error"])))
        elif found is None:
            missing.append(job.label)
    searched = {(job.method, job.data): job for job in planned.jobs if planned.studies.searches(job)}
    studies = {key: study for key, job in searched.items() if (study := planned.studies.saved(job)) is not None}
    finished = (*runs, *merged)
    return Results(planned.suite, planned.out, finished, tuple(failures), tuple(missing), studies, command)


def _is_made(wanted: SyntheticConfig, place: Path) -> bool:
    """Whether a made-up data set lies there already, made by these very settings."""
    try:
        return read_manifest(place, kind="dataset").config == to_dict(wanted)
    except ArtifactError:
        return False


@dataclass(frozen=True)
class _Bound:
    """What it takes to carry out a job."""

    planned: Plan
    crew: Crew
    store: Path
    progress: Progress

    def carry_out(self, label: str, job: Job, *, missed_users: int = 0) -> Failure | None:
        data = str(self.planned.datasets[job.data])
        work = Work(
            source=job.source,
            settings=job.settings,
            data=data,
            out=str(job.folder),
            store=str(self.store),
            missed_users=missed_users,
        )
        return self.crew.carry_out(label, work)


def _search_settings(bound: _Bound) -> list[Job]:
    """Search where a method has a space, and return the jobs with the settings that were found."""
    suite, studies, chosen = bound.planned.suite, bound.planned.studies, bound.planned.chosen
    first = {(job.method, job.data): job for job in chosen if studies.searches(job)}
    if first:
        n_trials = len(first) * suite.tuning.trials
        with bound.progress.task(f"suite {suite.name}: searching for settings", n_trials) as task:
            bound.crew.each(lambda job: _search(job, bound, task), list(first.values()))
    return [job for job in map(studies.tuned, chosen) if job is not None]


def _search(job: Job, bound: _Bound, task: Task) -> None:
    """All trials of one method on one data set."""
    suite, studies = bound.planned.suite, bound.planned.studies
    tuning = suite.tuning

    def measure(number: int, settings: tuple[str, ...]) -> float | None:
        label = f"{job.method} on {job.data}, trial {number}"
        trial = studies.trial(job, number, settings)
        failure = bound.carry_out(label, trial)
        value = None if failure else float(Report.load(trial.folder / "report").values(tuning.metric).mean())
        words = failure.error if failure else f"validation {tuning.metric} {value:.4f}"
        bound.progress.say(f"{label} ({', '.join(settings)}): {words}")
        task.advance(1)
        return value

    study = search(suite.methods[job.method].search, tuning, measure)
    studies.save(job, study)
    if study.best is None:
        job.folder.mkdir(parents=True, exist_ok=True)
        error = f"none of the {len(study.trials)} trials of its search succeeded; see {studies.folder(job)}"
        write_json(job.folder / FAILURE, {"run": job.label, "error": error, "trace": None})


def _words(finished: Finished | None) -> str:
    """A run's result in half a line; None where the suite was given up before it."""
    if finished is None:
        return "interrupted"
    metrics = finished.report.metrics
    name = "ndcg@10" if "ndcg@10" in metrics else next(iter(metrics))
    return f"{name} {metrics[name]:.4f}"
