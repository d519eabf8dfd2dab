"""Why the generative models of a suite missed: kept beside a run, for the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tesserec.artifacts import read_manifest
from tesserec.errors import ArtifactError, DataError
from tesserec.evaluation import Misses, why_missed
from tesserec.evaluation.misses import KIND
from tesserec.pipeline.run import Run
from tesserec.progress import Progress

MISSES = "misses"  # in the folder of a run
MISSED = (
    "Users of the validation part, one seed of each method. A target is kept while its prefix is in the beam. Lost by "
    "the search: the final list should have held the ID, but the beam had dropped its prefix; the others were ranked "
    "too low by the model itself."
)


def keep_misses(finished: Run, n_users: int, progress: Progress) -> None:
    """Follow the targets of so many users of the validation part through the beam, unless that was done already.

    The beam is that of the run's report: as wide, and with the user's own history masked where it is masked there.
    Runs whose recommender does not generate have no beam, and get nothing.
    """
    if not finished.recommender.is_generative:
        return
    folder, ranked = finished.folder / MISSES, finished.about["recipe"]["evaluation"]
    width, masked = ranked["beam_width"] or finished.recommender.config.beam_width, ranked["exclude_seen"]
    recommender = finished.about["stages"]["recommender"]["fingerprint"]
    kept = misses_of(recommender, folder)
    asked = {"n_users": n_users, "beam_width": width, "exclude_seen": masked}
    if kept is not None and asked.items() <= kept.card.items():
        return
    try:
        found = why_missed(
            finished.recommender,
            finished.split,
            exclude_seen=masked,
            beam_width=width,
            n_users=n_users,
            progress=progress,
        )
    except DataError as error:  # of so few users that none can be followed
        progress.say(f"misses: none, {error}")
        return
    found.save(folder, sources={"recommender": recommender})


def misses_of(recommender: str | None, folder: Path) -> Misses | None:
    """The misses in a folder, if they are of the recommender with this fingerprint (None: of any) and whole."""
    try:
        made_from = read_manifest(folder, kind=KIND).sources.get("recommender")
        return Misses.load(folder) if recommender in (None, made_from) else None
    except ArtifactError:
        return None


def kept_shares(missed: Mapping[str, Any]) -> list[float]:
    """For each level, the share of users whose target's prefix is still in the beam after it."""
    return [(level["reached"] - level["lost"]) / missed["users"] for level in missed["levels"]]


def missed_rows(results: Mapping[str, Any], data: str) -> list[list[str]]:
    """A heading, and a row for each generative method: what its beam kept, what it lost, and the loss of each level."""
    rows = [["method", "users", "beam", "kept to the end", "lost by the search, at most", "loss by level, of chance"]]
    for name, missed in results["missed"][data].items():
        users = missed["users"]
        shares = [f"{missed[key] / users:.1%}" for key in ("kept", "lost_to_search")]
        losses = ", ".join(f"{level['loss']:.2f} of {level['chance']:.2f}" for level in missed["levels"])
        rows.append([name, f"{users:,}", str(missed["beam_width"]), *shares, losses])
    return rows
