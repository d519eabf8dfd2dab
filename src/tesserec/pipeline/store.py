"""A store of finished stages, by their keys, that many runs share: what one of them has made, no other makes again.

    STORE/<stage>/<key>            the artefact
    STORE/<stage>/<key>.json       its fingerprint, and the seconds that making it took
    STORE/<stage>/<key>.lock       held by the process that is making it
    STORE/checkpoints/<key>        of a training that is under way

A run gets hard links to the files (copies where the store lies on another disk), so that its folder stays a run like
any other, and nothing is on the disk twice. Artefacts are never changed in place: a link is as good as a copy.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tesserec.artifacts import fingerprint_folder, link_artifact, read_json, write_json
from tesserec.progress import Progress

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class StageStore:
    """The stages that the runs of a suite have in common. Safe for several processes at a time."""

    folder: Path

    def obtain(self, name: str, key: str, target: Path, make: Callable[[Path, Path], dict[str, Any]],
               progress: Progress) -> dict[str, Any]:  # fmt: skip
        """Put the artefact of a stage at `target`, making it only if no run has made it yet.

        Args:
            make: writes the artefact into the first folder, may keep checkpoints in the second, and says what run.json
                is to hold of it.

        Returns:
            What `make` said, now or earlier.
        """
        from filelock import FileLock

        place = self.folder / name / key
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(f"{key}.lock")):  # another run may be making it: wait, then take it
            about = self._made(place)
            if about is None:
                checkpoints = self.folder / CHECKPOINTS / key
                about = make(place, checkpoints)
                write_json(place.with_name(f"{key}.json"), about)
                shutil.rmtree(checkpoints, ignore_errors=True)
            else:
                progress.say(f"{name}: shared with another run")
            link_artifact(place, target)
        return about

    @staticmethod
    def _made(place: Path) -> dict[str, Any] | None:
        """What is known of a finished artefact, or None if there is none, or if its files have changed since."""
        note = place.with_name(f"{place.name}.json")
        if not place.is_dir() or not note.is_file():
            return None
        try:
            about = read_json(note)
            return about if fingerprint_folder(place) == about["fingerprint"] else None
        except (ValueError, KeyError, TypeError):
            return None
