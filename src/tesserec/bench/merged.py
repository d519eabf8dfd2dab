"""Runs that were made elsewhere and stand in the tables of a suite: checked, and copied into its folder.

OUT/merged/<method>/<fingerprint>    the report, what else is needed of the run, and where it is from
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tesserec.artifacts import MANIFEST, link_artifact, read_json_if_whole, read_manifest, write_json
from tesserec.bench.finished import REPORT, SEMANTIC_IDS, TEAR_SHEET, TRAINING_LOG, Finished
from tesserec.bench.missed import MISSES
from tesserec.bench.suite import slug
from tesserec.errors import ArtifactError, ConfigError
from tesserec.evaluation import Report
from tesserec.evaluation.report import require_same_protocol

MERGED, NOTE = "merged", "merged.json"
Protocols = Mapping[str, Mapping[str, Any]]  # data set of a suite -> what its reports must follow


def read_elsewhere(name: str, source: Path, protocols: Protocols, *, remedy: str = "") -> Finished:
    """A run, or a report, that was made elsewhere.

    Args:
        name: what its method is called here.
        protocols: of the suite's data sets; by the data set in its card a report is known to be on one of them.
        remedy: what to do about another protocol.

    Raises:
        ArtifactError: there is no report, or a damaged one.
        ConfigError: it is on another data set, or follows another protocol.
    """
    report = report_elsewhere(source)
    found = report.card["protocol"]
    for data, protocol in protocols.items():
        if protocol["dataset"] == found["dataset"]:
            require_same_protocol("The suite", protocol, str(source), found, remedy=remedy)
            return Finished(name, data, source, report)
    known = ", ".join(f"{data} is {protocol['dataset']}" for data, protocol in protocols.items())
    raise ConfigError(
        f"{source} is a report on the data set {found['dataset']}, which the suite does not have ({known}). "
        f"{remedy or 'Leave it out, or add the data.'}"
    )


def report_elsewhere(source: Path) -> Report:
    """The report of a run, or the report that a path itself is.

    Raises:
        ArtifactError: there is none, or a damaged one.
    """
    return Report.load(_report_of(source))


def keep(elsewhere: Sequence[Finished], out: Path) -> None:
    """Copy what is needed of runs made elsewhere into the suite's folder, so that it no longer depends on theirs.

    A note is written last: only what has one counts as kept.
    """
    for one in elsewhere:
        place = place_of(one, out)
        link_artifact(_report_of(one.folder), place / REPORT)
        for name, there in ((SEMANTIC_IDS, bool(one.code_use)), (MISSES, one.missed is not None)):
            if there:
                link_artifact(one.folder / name, place / name)
        for name in (TRAINING_LOG, TEAR_SHEET):
            if (one.folder / name).exists():
                (place / name).parent.mkdir(exist_ok=True)
                shutil.copy2(one.folder / name, place / name)
        write_json(place / NOTE, {"method": one.method, "from": str(one.folder)})


def kept_before(out: Path, protocols: Protocols) -> list[Finished]:
    """What `keep` has copied, in this call of the suite or an earlier one.

    Raises:
        ConfigError: it is on a data set that the suite no longer has, or of another protocol.
    """
    found = []
    for note in _notes(out):
        remedy = f"It was merged into the suite before: remove {note.parent} to go on without it."
        found.append(read_elsewhere(_read(note)["method"], note.parent, protocols, remedy=remedy))
    return found


def merged_before(out: Path) -> list[str]:
    """METHOD=PATH of what `keep` has copied, as the command line takes it."""
    notes = map(_read, _notes(out))
    return [f"{note['method']}={note['from']}" for note in notes]


def is_merged(out: Path) -> bool:
    """Whether `keep` has copied anything."""
    return bool(_notes(out))


def _notes(out: Path) -> list[Path]:
    return sorted(out.glob(f"{MERGED}/*/*/{NOTE}"))


def _read(note: Path) -> dict[str, str]:
    """What `keep` has noted.

    Raises:
        ArtifactError: it is damaged.
    """
    found = read_json_if_whole(note)
    if not isinstance(found, dict) or not {"method", "from"} <= set(found):
        raise ArtifactError(f"{note} is damaged. Remove {note.parent} and merge the run again.")
    return {key: str(value) for key, value in found.items()}


def place_of(one: Finished, out: Path) -> Path:
    """Where `keep` puts a run made elsewhere."""
    return out / MERGED / slug(one.method) / read_manifest(_report_of(one.folder), kind="report").fingerprint


def _report_of(folder: Path) -> Path:
    """The report of a run; a folder that is no run is one itself."""
    return folder / REPORT if (folder / REPORT / MANIFEST).exists() else folder
