"""Why the generative models of a suite missed: kept beside a run, for the report."""

from typing import Any

from tesserec.artifacts import read_json, write_json
from tesserec.evaluation import why_missed
from tesserec.pipeline.run import Run
from tesserec.progress import Progress

MISSES = "misses.json"  # in the folder of a run


def keep_misses(finished: Run, n_users: int, progress: Progress) -> None:
    """Follow the targets of so many users of the validation part through the beam, unless that was done already.

    Runs whose recommender does not generate have no beam, and get nothing.
    """
    path = finished.folder / MISSES
    key = {"recommender": finished.about["stages"]["recommender"]["fingerprint"], "n_users": n_users}
    if not finished.recommender.is_generative or (path.is_file() and read_json(path)["of"] == key):
        return
    part = "validation"
    found = why_missed(finished.recommender, finished.split, part=part, n_users=n_users, progress=progress)
    write_json(path, {"of": key, "part": part, **found.to_dict()})


def kept_shares(missed: dict[str, Any]) -> list[float]:
    """For each level, the share of users whose target's prefix is still in the beam after it."""
    return [(level["reached"] - level["lost"]) / missed["users"] for level in missed["levels"]]
