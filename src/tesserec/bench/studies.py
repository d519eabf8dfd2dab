"""The searches of a suite: where their trials lie, what they found, and the runs that follow from it."""

from dataclasses import dataclass
from pathlib import Path

from tesserec.artifacts import fingerprint_json, read_json, read_manifest, write_json
from tesserec.bench.suite import Job, Suite, slug
from tesserec.bench.tuning import Study, Trial
from tesserec.config import to_dict

STUDY = "study.json"


@dataclass(frozen=True)
class Studies:
    """The searches of a suite in a folder. One that is finished is kept beside its trials."""

    suite: Suite
    out: Path

    def searches(self, job: Job) -> bool:
        """Whether the settings of a job's method are searched for."""
        return bool(self.suite.methods[job.method].search)

    def tuned(self, job: Job) -> Job | None:
        """A job with the settings that its search found; None if it needs a search that has found none."""
        if not self.searches(job):
            return job
        study = self.saved(job)
        best = study.best if study is not None else None
        return job.with_settings(best.settings, job.folder) if best is not None else None

    def trial(self, job: Job, number: int, settings: tuple[str, ...]) -> Job:
        """A job with other settings, evaluated on the validation part and trained with the seed of the tuning."""
        return self._base(job).with_settings([*settings, "evaluation.part=validation"], self.folder(job) / str(number))

    def folder(self, job: Job) -> Path:
        """Where the trials of a job's method are."""
        return self.out / "trials" / slug(job.data) / slug(job.method)

    def save(self, job: Job, study: Study) -> None:
        """Keep what a search came to."""
        trials = [to_dict(trial) for trial in study.trials]
        write_json(self.folder(job) / STUDY, {"key": self._key(job), "metric": study.metric, "trials": trials})

    def saved(self, job: Job) -> Study | None:
        """The finished search of a job's method on its data set, if it was one of this very space and budget."""
        path = self.folder(job) / STUDY
        if not self.searches(job) or not path.is_file():
            return None
        try:
            saved = read_json(path)
            if saved["key"] != self._key(job):
                return None
            trials = tuple(Trial(settings=tuple(one["settings"]), value=one["value"]) for one in saved["trials"])
            return Study(metric=saved["metric"], trials=trials)
        except (ValueError, KeyError, TypeError):
            return None  # damaged: searched again, which finds the trials finished

    def _base(self, job: Job) -> Job:
        return job.with_settings([f"seed={self.suite.tuning.seed}"], job.folder)

    def _key(self, job: Job) -> str:
        """All that a search depends on."""
        space = to_dict(self.suite.methods[job.method])["search"]
        data = read_manifest(self.suite.dataset_folder(job.data, self.out), kind="dataset").fingerprint
        return fingerprint_json([self._base(job).recipe.to_dict(), space, to_dict(self.suite.tuning), data])
