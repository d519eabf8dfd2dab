"""Saved results that know what they are and what they were made from.

An artefact is a folder: its payload (Parquet, .npy, safetensors, JSON; never pickle) and `manifest.json`. It is written
beside its final place and renamed into it, so that a killed process leaves either the old artefact or the new one.
Whoever loads one goes through `open_artifact`, which finds out whether its files are still those that were saved.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tesserec.errors import ArtifactError, DataError
from tesserec.types import PathLike
from tesserec.version import __version__

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MAKERS = {  # kind -> the command that makes one; of a run, the same command makes again what is damaged
    "dataset": "`tesserec prepare`",
    "report": "`tesserec run` or `tesserec evaluate --out`",
    "misses": "`tesserec misses --out`",
    **dict.fromkeys(("embeddings", "tokenizer", "semantic-ids", "recommender"), "`tesserec run`"),
}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an artefact is, how it was made, and from what."""

    kind: str  # "dataset", "embeddings", "semantic-ids", "tokenizer", "recommender", "report", "misses"
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


_fingerprints: dict[tuple[Any, ...], str] = {}  # of the folders that this process has read, by the state of their files


def fingerprint_folder(folder: Path) -> str:
    """Fingerprint of all payload files of a folder, by relative name and content; hidden files are nobody's payload.

    A process reads a folder once, and again when a file of it is another one, or has another size or time.
    """
    payload = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.name != MANIFEST}
    files = {
        name.as_posix(): path
        for name, path in payload.items()
        if path.is_file() and not any(part.startswith(".") for part in name.parts)
    }
    state = tuple((name, *_state(path)) for name, path in files.items())
    if state not in _fingerprints:
        _fingerprints[state] = _fingerprint_files(files)
    return _fingerprints[state]


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _fingerprint_files(files: Mapping[str, Path]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, path in files.items():
        digest.update(name.encode() + b"\0")
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
        ArtifactError: as `require_place`.
    """
    final = Path(folder)
    require_place(final, kind=kind)
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


def link_artifact(source: Path, target: Path) -> None:
    """Put a finished artefact at a second place, as hard links to its files; as copies where the disk has none.

    Raises:
        ArtifactError: as `require_place`.
    """
    require_place(target, kind=read_manifest(source).kind)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        shutil.copytree(source, staging, copy_function=_link_or_copy)
        _swap(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def require_place(folder: PathLike, *, kind: str) -> None:
    """Refuse a place where an artefact of this kind cannot be written, before any work is done for it.

    Raises:
        ArtifactError: something else is there (a file, or an artefact of another kind), or nothing can be written.
    """
    final = Path(folder)
    _check_replaceable(final, kind)
    require_writable(final.absolute().parent)  # an artefact is renamed into its place


def require_writable(folder: PathLike) -> None:
    """Refuse a folder, made already or not, into which nothing can be written.

    Raises:
        ArtifactError: a file is in the way, or the permission is missing.
    """
    path = Path(folder).absolute()
    there = next(place for place in (path, *path.parents) if place.exists() or place.is_symlink())
    if not there.is_dir():
        raise ArtifactError(f"Nothing can be written into {folder}: {there} is no folder. Choose another place.")
    try:
        tempfile.TemporaryDirectory(prefix=".tesserec-", dir=there).cleanup()
    except OSError as error:
        raise ArtifactError(
            f"Nothing can be written into {folder} ({there}: {error.strerror}). Choose another place, or change the "
            "permissions."
        ) from None


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
            f"{folder} holds no {MANIFEST}, so it is no finished artefact{f' of kind {kind!r}' if kind else ''}. "
            f"Check the path, or make one{_made_with(kind)}."
            if Path(folder).is_dir()
            else f"There is no folder {folder}. Check the path, or make it{_made_with(kind)}."
        )
    try:
        manifest = Manifest(**read_json(path))
        _check_types(manifest)
    except (ValueError, TypeError) as error:
        raise ArtifactError(
            f"{path} cannot be read ({_reason(error)}). Make the artefact again{_made_with(kind)}."
        ) from None
    if manifest.format_version > FORMAT_VERSION:
        raise ArtifactError(
            f"{folder} was written in format {manifest.format_version}; this version of tesserec reads up to "
            f"{FORMAT_VERSION}. Update tesserec (it was written by {manifest.library_version})."
        )
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"{folder} is an artefact of kind {manifest.kind!r}, but {kind!r} is needed here.")
    return manifest


def _check_types(manifest: Manifest) -> None:
    """ValueError: an entry of the manifest is not of its type, which JSON does not see to."""
    kinds = {"kind": str, "config": dict, "sizes": dict, "sources": dict, "fingerprint": str, "format_version": int}
    for name, kind in kinds.items():
        if not isinstance(getattr(manifest, name), kind):
            raise ValueError(f"its {name} is {getattr(manifest, name)!r}")


@contextmanager
def open_artifact(folder: PathLike, *, kind: str) -> Iterator[tuple[Path, Manifest]]:
    """Open an artefact for loading: yields its folder and its manifest, once its files are found to be those saved.

        with open_artifact(folder, kind="embeddings") as (path, manifest):
            vectors = np.load(path / "vectors.npy", mmap_mode="r")

    What the files turn out not to hold inside the block ends in the same message as a file that was changed since.

    Raises:
        ArtifactError: there is no such artefact here, or it is damaged; the message says how to make it again.
    """
    path = Path(folder)
    manifest = read_manifest(path, kind=kind)
    if fingerprint_folder(path) != manifest.fingerprint:
        raise _damaged(path, kind, "its files are not those that were saved (one is changed, missing or added)")
    try:
        yield path, manifest
    except (OSError, ValueError, KeyError, EOFError, DataError) as error:
        raise _damaged(path, kind, _reason(error)) from None


def method_of(folder: PathLike, *, kind: str) -> str:
    """Which method an artefact belongs to, so that the right class can load it.

    Raises:
        ArtifactError: as `read_manifest`.
    """
    method = read_manifest(folder, kind=kind).config.get("method")
    if not isinstance(method, str):
        raise _damaged(Path(folder), kind, "its manifest names no method")
    return method


def _damaged(folder: Path, kind: str, problem: str) -> ArtifactError:
    return ArtifactError(f"{folder} ({kind}) is damaged: {problem}. Make it again{_made_with(kind)}.")


def _made_with(kind: str | None) -> str:
    return f" with {MAKERS[kind]}" if kind in MAKERS else ""


def _reason(error: Exception) -> str:
    """What an exception of a library says, as the middle of a sentence."""
    return f"{error} is missing" if isinstance(error, KeyError) else str(error).rstrip(".") or type(error).__name__


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


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        ValueError: it is not JSON, not UTF-8, or nested too deeply.
    """
    return parse_json(path.read_text(encoding="utf-8"))


def read_json_if_whole(path: Path) -> Any:
    """As `read_json`; None where there is no such file, or a damaged one that counts as none."""
    try:
        return read_json(path)
    except (ValueError, OSError):
        return None


def parse_json(text: str | bytes) -> Any:
    """A JSON value; ValueError for whatever cannot be read, nesting that is too deep included."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _json_default(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
