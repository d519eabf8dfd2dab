"""One reader per kind of source, and the way to tell which one a file or folder needs.

Every reader has `event_files(files, named)`, which of some files are logs of its kind (`named`: role -> column, as the
user said), and `read(path, items, reading)`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tesserec.artifacts import MANIFEST
from tesserec.config import choose
from tesserec.data.raw import Raw, Reading
from tesserec.data.readers import amazon, letter, movielens, recbole, tables
from tesserec.errors import DataError

Pick = Callable[[Sequence[Path], Mapping[str, str]], list[Path]]
N_LISTED = 12  # files named in an error


def _none(files: Sequence[Path], named: Mapping[str, str]) -> list[Path]:
    return []


@dataclass(frozen=True)
class Reader:
    """One format."""

    event_files: Pick
    read: Callable[[Path, Path | None, Reading], Raw]
    item_files: Pick = _none  # item tables that are known by their content; else `read` looks beside the log by name


# The first format that knows a file wins, so the particular ones stand before the general one.
FORMATS = {
    "recbole": Reader(recbole.event_files, recbole.read),
    "letter": Reader(letter.event_files, letter.read),
    "amazon": Reader(amazon.event_files, amazon.read),
    "movielens": Reader(movielens.event_files, movielens.read),
    "table": Reader(tables.event_files, tables.read, tables.item_files),
}

WHOLE_FOLDER = ("movielens",)  # formats that say what every file of their folder is


@dataclass(frozen=True)
class Source:
    """What is to be read, and how."""

    format: str  # a name in FORMATS
    events: Path
    items: Path | None
    others: Mapping[Path, str]  # files of the folder that are not known to be read, and why


def recognise(path: Path, *, format: str, items: Path | None, named: Mapping[str, str]) -> Source:
    """Find out the format of a file or folder, and which files to read.

    Args:
        path: a log, or a folder that holds one log and perhaps one table of items.
        format: a name in FORMATS to read it as, or "auto".
        items: the table of items; None: found by content or by name.
        named: role -> column, as the user said.

    Raises:
        DataError: there is nothing there, nothing that is recognised, or more than one answer; what was seen is listed.
        ConfigError: there is no such format.
    """
    for file in (path, items):
        if file is not None and not file.exists():
            raise DataError(f"There is no file or folder {file}. Check the path.")
    if (path / MANIFEST).exists():
        raise DataError(
            f"{path} is an artefact of ours already: give it to `tesserec run --data`, or choose a raw source."
        )
    candidates = FORMATS if format == "auto" else {format: choose(format, FORMATS, what="format of data")}
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if _is_visible(file))
    for name, reader in candidates.items():
        logs = reader.event_files(files, named)
        if len(logs) > 1:
            raise DataError(
                f"{path} holds {len(logs)} logs of format {name!r}: {_listed(logs)}. Give the one to read as SOURCE."
            )
        if logs:
            tables_of_items = reader.item_files(files, named)
            if format == "auto" and name not in WHOLE_FOLDER:
                _check_no_other_log(
                    path, [file for file in files if file not in (*logs, *tables_of_items)], logs, named
                )
            items = items or _item_table(path, tables_of_items)
            others = [file for file in files if file != logs[0] and not (items and file.samefile(items))]
            why_not = _why_not_in_tables if name == "table" else _why_not_by_name
            return Source(name, logs[0], items, {file: why_not(file, logs[0], items, named) for file in others})
    if path.is_file() and (format != "auto" or tables.is_table(path)):
        return Source("table" if format == "auto" else format, path, items, {})  # reading it will say what is missing
    raise DataError(
        f"{path} is not recognised as {' or '.join(map(repr, candidates))}. It holds: {_described(files, named)}. "
        f"Name the columns with --columns user=COLUMN,item=COLUMN, or the format with --format ({', '.join(FORMATS)})."
    )


def _check_no_other_log(path: Path, others: Sequence[Path], logs: Sequence[Path], named: Mapping[str, str]) -> None:
    """Files that the recognised format has no use for must not be logs of another one."""
    for name, reader in FORMATS.items():
        rivals = reader.event_files(others, named)
        if rivals:
            raise DataError(
                f"{path} holds logs of two formats: {_listed(logs)}, and {_listed(rivals)} of format {name!r}. "
                "Give the one to read as SOURCE."
            )


def _item_table(path: Path, found: list[Path]) -> Path | None:
    if len(found) > 1:
        raise DataError(
            f"{path} holds {len(found)} tables that could describe the items: {_listed(found)}. "
            "Name one with --items FILE."
        )
    return found[0] if found else None


def _why_not_by_name(file: Path, log: Path, items: Path | None, named: Mapping[str, str]) -> str:
    """Why a file is not read where names say what files are: readers note those that they do read."""
    return "ignored; a table of items of another name is given with --items" if tables.is_table(file) else "ignored"


def _why_not_in_tables(file: Path, log: Path, items: Path | None, named: Mapping[str, str]) -> str:
    """Why a file is neither the log nor the table of items where columns say what files are.

    Raises:
        DataError: nobody can tell, and there is no other table of items.
    """
    if not tables.is_table(file):
        return "ignored: no table by its name"
    try:
        names = tables.names_of(file, named)
    except DataError as error:
        if items:
            return f"ignored: {error}"
        raise DataError(
            f"{error} It lies beside {log.name} and may be its table of items: correct or remove it, name the table "
            f"with --items, or give {log} itself as SOURCE."
        ) from None
    if items:
        return f"ignored: the items are those of {items.name}"
    return (
        f"ignored: none of its columns {', '.join(map(repr, names))} is known to hold the item's id; if it is the "
        "table of items, say which one does with --columns item_id=COLUMN"
    )


def _is_visible(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".")


def _listed(files: Sequence[Path]) -> str:
    names = ", ".join(file.name for file in files[:N_LISTED])
    return f"{names} and {len(files) - N_LISTED} more" if len(files) > N_LISTED else names


def _described(files: Sequence[Path], named: Mapping[str, str]) -> str:
    """The files, tables with their columns."""
    if not files:
        return "no files"
    described = []
    for file in files[:N_LISTED]:
        try:
            names = tables.names_of(file, named) if tables.is_table(file) else []
        except DataError as error:
            described.append(f"{file.name} ({error})")
            continue
        shown = ", ".join(names[:N_LISTED]) + (", ..." if len(names) > N_LISTED else "")
        described.append(f"{file.name} ({shown})" if names else file.name)
    return "; ".join(described) + (f"; and {len(files) - N_LISTED} more" if len(files) > N_LISTED else "")
