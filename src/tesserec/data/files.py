"""Reading the plain file kinds that every source is made of: delimited text and JSON, gzipped or not."""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyarrow as pa
import pyarrow.csv

from tesserec.artifacts import parse_json
from tesserec.data.raw import Reading, id_text
from tesserec.errors import DataError

BLOCK_BYTES = 1 << 24  # of delimited text parsed at a time
CHUNK = 1 << 16  # JSON objects turned into a frame at a time
Parse = Callable[[str], Any]


def is_gzipped(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def plain_name(path: Path) -> str:
    """The file's name without `.gz`."""
    return path.stem if is_gzipped(path) else path.name


def stem_of(path: Path, suffix: str) -> str:
    """The file's name without `.gz` and this suffix, if it has them."""
    name = plain_name(path)
    return name[: -len(suffix)] if name.lower().endswith(suffix) else name


def has_suffix(path: Path, *suffixes: str) -> bool:
    """Whether the file's name ends in one of these, gzipped or not, in capitals or not."""
    return plain_name(path).lower().endswith(suffixes)


def file_beside(path: Path, *names: str) -> Path | None:
    """The first of these names, gzipped or not, that a file in the folder of `path` has, in capitals or not."""
    there = {file.name.lower(): file for file in sorted(path.parent.iterdir(), reverse=True) if file.is_file()}
    wanted = (name.lower() + end for name in names for end in ("", ".gz"))
    return next((there[name] for name in wanted if name in there), None)


def open_bytes(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if is_gzipped(path) else path.open("rb")  # type: ignore[return-value]


def first_line(path: Path) -> str:
    """The first line, "" if there is none.

    Raises:
        DataError: the file cannot be decompressed or decoded.
    """
    try:
        with open_bytes(path) as file:
            return file.readline().decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _bad_gzip(path, error) from None


@dataclass(frozen=True)
class Delimited:
    """How one kind of delimited text is written."""

    separator: str
    quoted: bool = True  # RecBole's and MovieLens's files know no quotes
    header: bool = True  # the first line holds the columns' names


def sniff(path: Path, named: Mapping[str, str]) -> Delimited:
    """The separator of a file, by what its first line holds most of.

    Columns that the user named by place (`#1` is the first) say that the file has no header.
    """
    line = first_line(path)
    return Delimited(max(",\t;|", key=line.count), header=not any(name.startswith("#") for name in named.values()))


def header_of(path: Path, kind: Delimited) -> list[str]:
    """The column names; `#1`, `#2` and so on in a file without a header.

    Raises:
        DataError: the file is empty, or two columns have one name.
    """
    line = first_line(path)
    if not line:
        raise DataError(f"{path} is empty, or its first line is. It should begin with a line of column names.")
    try:
        names = next(csv.reader([line], delimiter=kind.separator)) if kind.quoted else line.split(kind.separator)
    except csv.Error as error:
        raise DataError(f"{path}: the first line holds no column names ({error}). Check the file.") from None
    if not kind.header:
        return [f"#{place}" for place in range(1, len(names) + 1)]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DataError(f"{path}: the column name {min(twice)!r} occurs more than once. Rename one of them.")
    return names


@dataclass(frozen=True, eq=False)
class Table:
    """Columns as they were read, and where each row stands in its file."""

    frame: pl.DataFrame
    place: Callable[[int], str]


def read_delimited(
    path: Path, kind: Delimited, names: Sequence[str], columns: Sequence[str], reading: Reading
) -> Table:
    """Some of the columns of a delimited file as text; empty fields are "".

    Args:
        names: of all its columns, in order.
        columns: those of `names` to read.

    Raises:
        DataError: a line with too many or too few fields (unless such lines are skipped), or text that is not in the
            expected encoding.
    """
    invalid: list[pa.csv.InvalidRow] = []

    def on_invalid(row: pa.csv.InvalidRow) -> str:
        invalid.append(row)
        return "skip"  # for now: Arrow does not let an error of ours through

    try:
        with pa.input_stream(str(path), compression="gzip" if is_gzipped(path) else None) as stream:
            table = pa.csv.read_csv(
                stream,
                # One thread: only then does Arrow tell the number of a line that it cannot parse.
                pa.csv.ReadOptions(
                    use_threads=False, block_size=BLOCK_BYTES, column_names=list(names), skip_rows=int(kind.header)
                ),
                pa.csv.ParseOptions(
                    delimiter=kind.separator, quote_char='"' if kind.quoted else False, newlines_in_values=kind.quoted,
                    ignore_empty_lines=False, invalid_row_handler=on_invalid,
                ),
                pa.csv.ConvertOptions(
                    include_columns=list(dict.fromkeys(columns)), column_types={name: pa.string() for name in columns}
                ),
            )  # fmt: skip
    except pa.ArrowInvalid as error:
        raise _unreadable(path, error) from None
    except OSError as error:
        raise _bad_gzip(path, error) from None
    for row in invalid:
        reading.malformed(
            f"{path}, line {row.number}",
            f"{row.actual_columns} fields where {row.expected_columns} are expected: {row.text[:80]!r}.",
            f"Fields are separated by {kind.separator!r}; correct the line.",
        )
    frame = pl.DataFrame(pl.from_arrow(table))
    rows = frame.select((~pl.all_horizontal(pl.all() == "")).arg_true()).to_series()  # blank lines are no rows

    def place(row: int) -> str:
        line = int(rows[row]) + 1 + kind.header
        for skipped in invalid:
            line += skipped.number <= line
        return f"{path}, line {line}"

    return Table(frame[rows] if len(rows) < len(frame) else frame, place)


def read_json(path: Path, reading: Reading, parse: Parse = parse_json) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) for every object of a JSON-lines file, or of one JSON list.

    Raises:
        DataError: a line that is no JSON object, unless such lines are skipped.
    """
    try:
        with open_bytes(path) as file, reading.progress.task(f"reading {path.name}", path.stat().st_size) as task:
            position = 0
            for number, line in enumerate(file, 1):
                if number == 1 and line.lstrip()[:1] == b"[":
                    yield from enumerate(_json_list(path, line + file.read()), 1)
                    return
                if number % 65536 == 0:
                    position, before = _compressed_position(file), position
                    task.advance(position - before)
                if not line.strip():
                    continue
                try:
                    record = parse(line.decode("utf-8-sig"))
                except (ValueError, SyntaxError) as error:
                    reading.malformed(f"{path}, line {number}", _why_no_json(line, error), "Correct the line.")
                    continue
                if isinstance(record, dict):
                    yield number, record
                else:
                    kind = type(record).__name__
                    reading.malformed(f"{path}, line {number}", f"a {kind}, not a JSON object.", "Correct the line.")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _bad_gzip(path, error) from None


def read_json_table(path: Path, columns: Mapping[str, str], reading: Reading) -> Table:
    """Some keys of the objects of a JSON-lines file as columns of text; null where an object has no such key.

    Args:
        columns: role -> key; the keys of `user` and `item` are ids.

    Raises:
        DataError: a line that is no JSON object, or whose ids are none, unless such lines are skipped.
    """
    names = list(dict.fromkeys(columns.values()))
    ids = {columns[role] for role in ("user", "item") if role in columns}
    parts: list[pl.DataFrame] = []
    lines: list[int] = []
    rows: list[list[str | None]] = []

    def flush() -> None:
        parts.append(pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row"))
        rows.clear()

    for line, record in read_json(path, reading):
        values = [record.get(name) for name in names]
        try:
            rows.append([_json_text(value, is_id=name in ids) for name, value in zip(names, values)])
        except ValueError as error:
            reading.malformed(f"{path}, line {line}", f"{error}.", "Correct the line.")
            continue
        lines.append(line)
        if len(rows) == CHUNK:
            flush()
    flush()
    return Table(pl.concat(parts), lambda row: f"{path}, line {lines[row]}")


def _json_text(value: Any, *, is_id: bool) -> str | None:
    return id_text(value) if is_id else None if value is None else str(value)


def json_document(path: Path) -> Any:
    """The one JSON value of a file.

    Raises:
        DataError: it is not valid JSON.
    """
    try:
        with open_bytes(path) as file:
            return _parse_whole(path, file.read())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _bad_gzip(path, error) from None


def _json_list(path: Path, content: bytes) -> list[dict[str, Any]]:
    records = _parse_whole(path, content)
    if not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path} holds a JSON list of other things than objects. Give one object per event or item.")
    return list(records)


def _parse_whole(path: Path, content: bytes) -> Any:
    try:
        return parse_json(content)
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except ValueError as error:
        where, why = f"{path}", str(error)
        if isinstance(error, json.JSONDecodeError):
            where, why = f"{path}, line {error.lineno}", error.msg
        raise DataError(f"{where}: not valid JSON ({why}). Correct the file.") from None


def _compressed_position(file: IO[bytes]) -> int:
    raw = getattr(file, "fileobj", None) or file  # of a gzip file, where we are in the compressed bytes
    return int(raw.tell())


def _why_no_json(line: bytes, error: Exception) -> str:
    reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"not valid JSON ({error})"
    return f"{reason}: {line[:80].decode(errors='replace').strip()!r}."


def _unreadable(path: Path, error: Exception) -> DataError:
    if "UTF8" in str(error) or "UTF-8" in str(error):
        return _not_utf8(path)
    return DataError(f"{path} cannot be read: {error}. Check that the file is complete and of the kind its name says.")


def _not_utf8(path: Path) -> DataError:
    return DataError(f"{path} is not UTF-8 text. Convert it, for instance with: iconv -f latin1 -t utf-8.")


def _bad_gzip(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be decompressed ({error}). Download or copy it again.")
