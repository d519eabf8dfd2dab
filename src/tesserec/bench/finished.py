"""Runs of a suite that have a report, and what a results file says of each."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tesserec.artifacts import read_json_if_whole, read_manifest
from tesserec.bench.missed import MISSES, misses_of
from tesserec.bench.suite import Job, model_settings
from tesserec.errors import ArtifactError
from tesserec.evaluation import Report
from tesserec.functional.id_statistics import entropy_bits
from tesserec.pipeline.run import RUN, Run
from tesserec.tokenizers.semantic_ids import SemanticIds

REPORT, SEMANTIC_IDS, TRAINING_LOG = "report", "semantic-ids", "recommender/training_log.json"
TEAR_SHEET = "tear-sheet.json"  # figures of the IDs (`tesserec.bench.foresight`)


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

    @property
    def label(self) -> str:
        return f"{self.method} on {self.data}" + ("" if self.seed is None else f", seed {self.seed}")

    @property
    def settings(self) -> dict[str, Any]:
        """Method, recommender and training by its report, but for seeds."""
        return model_settings(self.report.card["model"]["config"])

    @cached_property
    def log(self) -> list[dict[str, float]]:
        """A row for each validation while it trained (`tesserec.training.loop.TrainingLog`)."""
        saved = read_json_if_whole(self.folder / TRAINING_LOG)
        return list(saved["rows"]) if saved is not None else []

    @cached_property
    def tear_sheet(self) -> dict[str, Any] | None:
        """Figures of its semantic IDs, where they were judged (`tesserec.bench.foresight.keep_figures`)."""
        kept: dict[str, Any] | None = read_json_if_whole(self.folder / TEAR_SHEET)
        return kept

    @cached_property
    def missed(self) -> dict[str, Any] | None:
        """Why it missed, where that was found out of this very model (`tesserec.evaluation.Misses`)."""
        about = read_json_if_whole(self.folder / RUN)  # None: merged, and looked at then
        recommender = about["stages"]["recommender"]["fingerprint"] if about is not None else None
        found = misses_of(recommender, self.folder / MISSES)
        return found.to_dict() if found is not None else None

    @cached_property
    def code_use(self) -> list[dict[str, Any]]:
        """For each level of its semantic IDs: codewords there are, those used, and the perplexity of their use."""
        try:
            ids = SemanticIds.load(self.folder / SEMANTIC_IDS)
        except ArtifactError:
            return []
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
