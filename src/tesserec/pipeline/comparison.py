"""Finished runs and saved reports as methods of several seeds, and their comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tesserec.artifacts import fingerprint_json
from tesserec.config import without_seeds
from tesserec.errors import ConfigError, DataError
from tesserec.evaluation import Report, ReportComparison, StatisticsConfig, compare_reports
from tesserec.evaluation.report_checks import differing
from tesserec.evaluation.report_comparison import METRICS
from tesserec.pipeline.run import RUN, Run
from tesserec.pipeline.sources import distinct_end, name_and_path
from tesserec.text.embeddings import Embeddings
from tesserec.types import PathLike

NOT_OF_THE_MODEL = ("name", "summary", "evaluation")  # of a recipe; reports say how they were evaluated


def compare_runs(
    sources: Sequence[PathLike],
    *,
    metrics: Sequence[str] = METRICS,
    reference: str | None = None,
    embeddings: PathLike | None = None,
    statistics: StatisticsConfig | None = None,
) -> ReportComparison:
    """Compare the reports of finished runs, and saved reports.

    Args:
        sources: as for `named_reports`.
        metrics, reference, statistics: as for `compare_reports`.
        embeddings: in which the items of a list are alike or not, the same for all: an artefact, or a run that has
            some; None: those of the first source that is a run with embeddings.

    Raises:
        ConfigError, DataError, ArtifactError: what `named_reports` and `compare_reports` refuse.
    """
    found = [_Source.open(str(source)) for source in sources]
    return compare_reports(
        _grouped(found),
        metrics=metrics,
        reference=reference,
        statistics=statistics,
        embeddings=_text_space(found, embeddings),
    )


def named_reports(sources: Sequence[PathLike]) -> dict[str, list[Report]]:
    """Reports by method: those that differ in nothing but seeds are of one.

    Args:
        sources: runs with a report, and folders of saved reports. `NAME=PATH` puts a source under a name, several
            under the same; others are called by their recipe or method, and where that would name two, by the end of
            their path. Reports alone are of one method only if they were made from the same inputs, as they do not say
            how those were made.

    Raises:
        ConfigError: runs under one name differ in more than seeds.
        DataError: there is nothing at a path.
        ArtifactError: a folder holds neither a report nor a run that got as far.
    """
    return _grouped([_Source.open(str(source)) for source in sources])


@dataclass(frozen=True)
class _Source:
    """A report, and how it came to be."""

    name: str  # that was given; "" for none
    path: Path
    label: str  # of its recipe or method
    recipe: str  # fingerprint of all that seeds of one method have in common
    report: Report
    run: Run | None

    @classmethod
    def open(cls, source: str) -> "_Source":
        name, path = name_and_path(source)
        if not path.exists():
            raise DataError(f"There is no folder {path}. Give runs that are finished, or saved reports.")
        if (path / RUN).exists():
            run = Run.open(path)
            recipe: dict[str, Any] = run.about["recipe"]
            return cls(name, path, str(recipe["name"]), fingerprint_json(without_seeds(recipe)), run.report, run)
        report = Report.load(path)
        model = report.card["model"]
        made_of = {"config": without_seeds(model["config"]), "sources": model["sources"], "ranking": model["ranking"]}
        return cls(name, path, str(model["config"]["method"]), fingerprint_json(made_of), report, None)


def _grouped(sources: Sequence[_Source]) -> dict[str, list[Report]]:
    groups: dict[tuple[str, str], list[_Source]] = {}
    for source in sources:
        groups.setdefault((source.name, "" if source.name else source.recipe), []).append(source)
    firsts = [group[0] for group in groups.values()]
    wanted = [first.name or first.label for first in firsts]
    paths = [first.path.resolve() for first in firsts]
    taken = [name for first, name in zip(firsts, wanted) if first.name or wanted.count(name) == 1]
    named: dict[str, list[Report]] = {}
    for first, name, group in zip(firsts, wanted, groups.values()):
        if not first.name and wanted.count(name) > 1:
            name = distinct_end(first.path.resolve(), paths, taken)
        _require_one_recipe(name, group)
        named[name] = [source.report for source in group]
    return named


def _require_one_recipe(name: str, group: Sequence[_Source]) -> None:
    """Refuse runs under one name whose inputs were made differently, which their models' settings do not show."""
    runs = [source.run.about["recipe"] for source in group if source.run is not None]
    made = [without_seeds({key: recipe[key] for key in recipe if key not in NOT_OF_THE_MODEL}) for recipe in runs]
    for other in made[1:]:
        if found := differing(made[0], other):
            raise ConfigError(f"Runs of {name} differ in more than their seed ({found}). Give them names of their own.")


def _text_space(sources: Sequence[_Source], given: PathLike | None) -> Embeddings | None:
    if given is not None:
        path = Path(given)
        return Run.open(path).embeddings if (path / RUN).exists() else Embeddings.load(path)
    for source in sources:
        if source.run is not None and source.run.has("embeddings"):
            return source.run.embeddings
    return None
