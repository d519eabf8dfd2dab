"""Runs that have a report: those of the suite, and those that were made elsewhere and stand beside them."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tesserec.artifacts import MANIFEST, link_artifact, read_json, read_manifest, write_json
from tesserec.bench.missed import MISSES
from tesserec.bench.suite import Job, slug
from tesserec.data.dataset import Dataset
from tesserec.errors import ArtifactError, ConfigError
from tesserec.evaluation import Misses, Report
from tesserec.functional.id_statistics import entropy_bits
from tesserec.pipeline.run import Run
from tesserec.tokenizers.semantic_ids import SemanticIds

REPORT, SEMANTIC_IDS, TRAINING_LOG = "report", "semantic-ids", "recommender/training_log.json"
TEAR_SHEET = "tear-sheet.json"  # figures of the IDs (`tesserec.bench.foresight`)
MERGED, MERGED_NOTE = "merged", "merged.json"


@dataclass(frozen=True, eq=False)
class Finished:
    """A run that has a report."""

    method: str
    data: str
    folder: Path
    report: Report

    @property
    def seed(self) -> int | None:
        """Of the training; None where nothing was trained."""
        seed: int | None = self.report.card["model"]["seed"]
        return seed

    @cached_property
    def log(self) -> list[dict[str, float]]:
        """A row for each validation while it trained (`tesserec.training.loop.TrainingLog`)."""
        path = self.folder / TRAINING_LOG
        return list(read_json(path)["rows"]) if path.exists() else []

    @cached_property
    def missed(self) -> dict[str, Any] | None:
        """Why it missed, where that was found out (`tesserec.evaluation.Misses`)."""
        folder = self.folder / MISSES
        return Misses.load(folder).to_dict() if (folder / MANIFEST).exists() else None

    @cached_property
    def code_use(self) -> list[dict[str, Any]]:
        """For each level of its semantic IDs: codewords there are, those used, and the perplexity of their use."""
        if not (self.folder / SEMANTIC_IDS / MANIFEST).exists():
            return []
        ids = SemanticIds.load(self.folder / SEMANTIC_IDS)
        counts = [np.bincount(column, minlength=size) for column, size in zip(ids.codes.T, ids.codebook_sizes)]
        extra = ids.collision_policy == "extra-level"
        return [
            {
                "size": len(of_level),
                "used": int((of_level > 0).sum()),
                "perplexity": round(float(2 ** entropy_bits(of_level)), 2),
                "extra": extra and level == len(counts) - 1,  # only numbers items that share the other codes
            }
            for level, of_level in enumerate(counts)
        ]


def open_finished(job: Job, data: Path) -> Finished | None:
    """The run of a job, if it is finished: made by this very recipe on the data set in this folder."""
    try:
        opened = Run.open(job.folder, data=data)
        if not opened.has(REPORT) or opened.about["recipe"] != job.recipe.to_dict():
            return None
        if opened.about["dataset"]["fingerprint"] != read_manifest(data, kind="dataset").fingerprint:
            return None
        return Finished(job.method, job.data, job.folder, opened.report)
    except ArtifactError:
        return None


def read_elsewhere(name: str, source: Path, datasets: Mapping[str, Path]) -> Finished:
    """A run, or a report, that was made elsewhere.

    Args:
        name: what its method is called here.
        datasets: folders of the suite's data sets, by name; the report says which of them it is on.

    Raises:
        ArtifactError: there is no report, or a damaged one.
        ConfigError: it is on another data set.
    """
    report = Report.load(_report_of(source))
    known = {Dataset.load(folder).fingerprint: data for data, folder in datasets.items() if folder.exists()}
    fingerprint = report.card["protocol"]["dataset"]
    if fingerprint not in known:
        raise ConfigError(
            f"{source} is a report on the data set {fingerprint}, which the suite does not have "
            f"({', '.join(f'{data} is {one}' for one, data in known.items())}). Leave it out, or add the data."
        )
    return Finished(name, known[fingerprint], source, report)


def keep(elsewhere: Sequence[Finished], out: Path) -> list[Finished]:
    """Copy what is needed of runs made elsewhere into the suite's folder, so that it no longer depends on theirs."""
    kept = []
    for one in elsewhere:
        place = kept_at(one, out)
        if not place.exists():
            link_artifact(_report_of(one.folder), place / REPORT)
        for name in (SEMANTIC_IDS, MISSES):
            if (one.folder / name / MANIFEST).exists():
                link_artifact(one.folder / name, place / name)
        for name in (TRAINING_LOG, TEAR_SHEET):
            if (one.folder / name).exists():
                (place / name).parent.mkdir(exist_ok=True)
                shutil.copy2(one.folder / name, place / name)
        write_json(place / MERGED_NOTE, {"method": one.method, "from": str(one.folder)})
        kept.append(Finished(one.method, one.data, place, one.report))
    return kept


def kept_at(one: Finished, out: Path) -> Path:
    """Where `keep` puts a run made elsewhere."""
    return out / MERGED / slug(one.method) / read_manifest(_report_of(one.folder), kind="report").fingerprint


def _report_of(folder: Path) -> Path:
    """The report of a run; a folder that is no run is one itself."""
    return folder / REPORT if (folder / REPORT / MANIFEST).exists() else folder


def merged_before(out: Path) -> list[str]:
    """METHOD=PATH of what `keep` has copied, as the command line takes it."""
    notes = [read_json(note) for note in sorted(out.glob(f"{MERGED}/*/*/{MERGED_NOTE}"))]
    return [f"{note['method']}={note['from']}" for note in notes]


def kept_before(out: Path, datasets: Mapping[str, Path]) -> list[Finished]:
    """What `keep` has copied, in this call of the suite or an earlier one.

    Raises:
        ConfigError: it is on a data set that the suite no longer has.
    """
    notes = sorted(out.glob(f"{MERGED}/*/*/{MERGED_NOTE}"))
    return [read_elsewhere(str(read_json(note)["method"]), note.parent, datasets) for note in notes]
