"""Saved results that know what they are and what they were made from.

An artefact is a folder: its payload (Parquet, .npy, safetensors, JSON; never pickle) and `manifest.json`. It is written
beside its final place and renamed into it, so that a killed process leaves either the old artefact or the new one.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tesserec.errors import ArtifactError
from tesserec.types import PathLike
from tesserec.version import __version__

FORMAT_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an artefact is, how it was made, and from what."""

    kind: str  # "dataset", "embeddings", "semantic-ids", "tokenizer", "recommender", "report"
    config: dict[str, Any]  # the full configuration, defaults included
    seed: int | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)  # name of an input artefact -> its fingerprint
    fingerprint: str = ""  # of the payload: equal content, equal fingerprint
    format_version: int = FORMAT_VERSION
    library_version: str = __version__


def fingerprint_bytes(*parts: bytes) -> str:
    """16 hexadecimal digits that change when any part does."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def fingerprint_json(value: Any) -> str:
    """Fingerprint of a plain value, independent of the order of its keys."""
    return fingerprint_bytes(json.dumps(value, sort_keys=True, default=str).encode())


def fingerprint_folder(folder: Path) -> str:
    """Fingerprint of all payload files of a folder, by relative name and content."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def write_artifact(
    folder: PathLike,
    *,
    kind: str,
    config: Mapping[str, Any],
    seed: int | None = None,
    sizes: Mapping[str, int] | None = None,
    sources: Mapping[str, str] | None = None,
) -> Iterator[Path]:
    """Write an artefact all at once: fill the folder that this yields, and on leaving it becomes `folder`.

        with write_artifact(out, kind="embeddings", config=to_dict(config), sizes={"items": n}) as staging:
            np.save(staging / "vectors.npy", vectors)

    An earlier artefact of the same kind at `folder` is replaced; if the block raises, it stays and the staging folder
    is removed.

    Raises:
        ArtifactError: there is something else at `folder`: a file, or an artefact of another kind.
    """
    final = Path(folder)
    _check_replaceable(final, kind)
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = final.with_name(f".{final.name}.{os.getpid()}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
        manifest = Manifest(
            kind=kind,
            config=dict(config),
            seed=seed,
            sizes=dict(sizes or {}),
            sources=dict(sources or {}),
            fingerprint=fingerprint_folder(staging),
        )
        write_json(staging / MANIFEST, asdict(manifest))
        _swap(staging, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_replaceable(final: Path, kind: str) -> None:
    """Nothing is there, or an artefact of this kind."""
    if final.exists() and not final.is_dir():
        raise ArtifactError(f"{final} is a file, and an artefact is a folder. Choose another place.")
    if final.exists() and not (final / MANIFEST).exists() and any(final.iterdir()):
        raise ArtifactError(f"{final} exists and is not an artefact of ours. Choose another folder, or empty this one.")
    try:
        found = read_manifest(final).kind
    except ArtifactError:  # nothing there, or damaged: building it again is the remedy
        return
    if found != kind:
        raise ArtifactError(
            f"{final} holds an artefact of kind '{found}', which one of kind '{kind}' would replace. "
            "Choose another folder."
        )


def _swap(staging: Path, final: Path) -> None:
    if not final.exists():
        staging.rename(final)
        return
    retired = final.with_name(f".{final.name}.{os.getpid()}.retired")
    final.rename(retired)
    staging.rename(final)
    shutil.rmtree(retired)


def read_manifest(folder: PathLike, *, kind: str | None = None) -> Manifest:
    """The manifest of an artefact.

    Raises:
        ArtifactError: there is no artefact here, it is damaged, of another kind, or written by a newer format.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"{folder} holds no {MANIFEST}, so it is not a finished artefact. Build it again, or check the path."
        )
    try:
        manifest = Manifest(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}). Build the artefact again.") from None
    if manifest.format_version > FORMAT_VERSION:
        raise ArtifactError(
            f"{folder} was written in format {manifest.format_version}; this version of tesserec reads up to "
            f"{FORMAT_VERSION}. Update tesserec (it was written by {manifest.library_version})."
        )
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"{folder} is an artefact of kind {manifest.kind!r}, but {kind!r} is needed here.")
    return manifest


def require_same(first: str, first_fingerprint: str, second: str, second_fingerprint: str, *, remedy: str) -> None:
    """Refuse two artefacts that do not belong together, naming both and the way out."""
    if first_fingerprint != second_fingerprint:
        raise ArtifactError(
            f"{first} and {second} do not belong together: {first_fingerprint} is not {second_fingerprint}. {remedy}"
        )


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and machines; the file appears whole or not at all."""
    staging = path.with_name(f".{path.name}.partial")
    staging.write_text(json.dumps(value, indent=2, default=_json_default) + "\n")
    staging.rename(path)


def _json_default(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
