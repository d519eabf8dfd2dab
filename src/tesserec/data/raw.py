"""What every reader produces, and what reading does about lines that it cannot understand."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

from tesserec.data.cleaning import clean
from tesserec.errors import DataError
from tesserec.progress import SILENT, Progress

TimestampUnit = Literal["auto", "s", "ms", "us", "ns"]
UNITS_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
ZONE = r":\d{2}(\.\d+)?(Z|[+-]\d{2}(:?\d{2})?)$"
COMPACT_DATES = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}  # digits -> what they say, as in 20240531
ISO_DATE = r"^\d{4}[-/]\d{1,2}[-/]\d{1,2}"  # 05/01/2024 is not read: it is a day in May or in January
EXACT = 2**53  # floats below it hold whole numbers exactly
N_EXAMPLES = 5  # skipped lines kept word for word in the report


@dataclass(frozen=True, eq=False)
class Raw:
    """A source as it was read, before anything is dropped."""

    events: pl.DataFrame  # user, item: String; where the source has them: time: Float64 (seconds), rating: Float64
    items: pl.DataFrame | None = None  # item_id: String, unique; text columns: String, cleaned, never null


@dataclass
class Reading:
    """How to read, and what was met on the way: readers write into it what the report will say."""

    columns: Mapping[str, str] = field(default_factory=dict)  # role -> column, as the user named them
    text_columns: Sequence[str] = ()  # of the item table; empty: all
    timestamp_unit: TimestampUnit = "auto"
    with_ratings: bool = False  # only then must every event have one
    on_error: Literal["raise", "skip"] = "raise"
    progress: Progress = SILENT
    files: dict[str, str] = field(default_factory=dict)  # file -> what it is
    found: dict[str, str] = field(default_factory=dict)  # role -> column and where it was found
    notes: list[str] = field(default_factory=list)
    n_skipped: int = 0
    skipped: list[str] = field(default_factory=list)  # the first few

    def use(self, path: Path, purpose: str) -> None:
        """Note a file and what it is for."""
        self.files[str(path)] = purpose
        self.progress.say(f"{path}: {purpose}")

    def note(self, message: str) -> None:
        self.notes.append(message)
        self.progress.say(message)

    def use_columns(self, path: Path, columns: Mapping[str, str]) -> None:
        """Note which column plays which role."""
        for role, column in columns.items():
            self.found[role] = f"{column!r} of {path.name}"
        self.progress.say(f"{path.name}: " + ", ".join(f"{role} = {column!r}" for role, column in columns.items()))

    def malformed(self, where: str, problem: str, remedy: str) -> None:
        """A line that cannot be used: the end, or one more that was skipped."""
        if self.on_error == "raise":
            raise DataError(
                f"{where}: {problem} {remedy} To leave such lines out and count them, pass --on-error skip."
            )
        self.n_skipped += 1
        if len(self.skipped) < N_EXAMPLES:
            self.skipped.append(f"{where}: {problem}")


def events_frame(
    table: pl.DataFrame, columns: Mapping[str, str], reading: Reading, *, place: Callable[[int], str]
) -> pl.DataFrame:
    """Check the columns of a log and give them their common names and types.

    Args:
        table: the log as read; text columns may hold numbers.
        columns: role -> column of `table`.
        place: row of `table` -> where that is, such as `ratings.csv, line 12`.

    Returns:
        user, item: String; time (seconds), rating: Float64, where `columns` has them and they are wanted. Rows that
        cannot be used are left out.

    Raises:
        DataError: such a row, unless they are to be skipped.
    """
    checked = {role: ids_column(table[columns[role]], role, place) for role in ("user", "item")}
    usable = [pl.col(role).is_not_null() & (pl.col(role) != "") for role in ("user", "item")]
    if "time" in columns:
        checked["time"] = _seconds(table[columns["time"]], reading, place)
    if "rating" in columns and reading.with_ratings:
        checked["rating"] = _numbers(table[columns["rating"]], "rating", place)
    usable += [pl.col(role).is_finite().fill_null(False) for role in ("time", "rating") if role in checked]
    frame = pl.DataFrame(checked)
    bad = frame.select((~pl.all_horizontal(usable)).arg_true()).to_series()
    for row in bad.head(N_EXAMPLES):
        reading.malformed(place(row), *_explain(frame, table, columns, row))
    reading.n_skipped += max(0, len(bad) - N_EXAMPLES)
    return frame.filter(pl.all_horizontal(usable)) if len(bad) else frame


def _explain(frame: pl.DataFrame, table: pl.DataFrame, columns: Mapping[str, str], row: int) -> tuple[str, str]:
    for role in ("user", "item"):
        if not frame[role][row]:
            return f"the {role} (column {columns[role]!r}) is missing.", "Complete or remove the line."
    if "time" not in frame.columns or _is_finite(frame["time"][row]):
        value = table[columns["rating"]][row]
        return f"rating {value!r} is not a number.", "Correct it, or name another column with --columns rating=COLUMN."
    value = table[columns["time"]][row]
    return (
        f"timestamp {value!r} is neither a number nor a date like 2024-05-31 12:30:00.",
        "Convert it to Unix seconds, or name another column with --columns time=COLUMN.",
    )


def _is_finite(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def id_text(value: Any) -> str | None:
    """An id as text, None where it is missing. 13 and 13.0 are one id.

    Raises:
        ValueError: the value can be no id.
    """
    if isinstance(value, float) and not math.isnan(value) and value.is_integer() and abs(value) < EXACT:
        value = int(value)
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    if value is None or value != value:  # NaN is the value that differs from itself
        return None
    raise ValueError(f"{str(value)[:80]!r} is no id: ids are text or whole numbers")


def ids_column(column: pl.Series, role: str, place: Callable[[int], str]) -> pl.Series:
    """Ids as text; whole numbers that became floats (pandas does that where some are missing) lose their ".0"."""
    if column.dtype == pl.Binary:
        text = _cast(column, pl.String)
        if text is not None:
            return text
    if column.dtype.is_decimal():
        column = column.cast(pl.Float64)
    if column.dtype.is_float():
        column = column.fill_nan(None)
        unusable = ((column != column.floor()) | (column.abs() >= EXACT)).fill_null(False).arg_true()
        if len(unusable):
            value = column[unusable[0]]
            raise DataError(f"{place(unusable[0])}: {column.name} is {value!r}. Ids must be text or whole numbers.")
        column = column.cast(pl.Int64)
    if column.dtype.is_integer() or column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        return column.cast(pl.String)
    raise _wrong_type(column, role, place, "ids must be text or whole numbers")


def _numbers(column: pl.Series, role: str, place: Callable[[int], str]) -> pl.Series:
    """Float64, null where a value is no number."""
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if column.dtype.is_numeric() or column.dtype in (pl.String, pl.Null):
        return column.cast(pl.Float64, strict=False)
    raise _wrong_type(column, role, place, "numbers are wanted" if role == "rating" else "times are numbers or dates")


def _cast(column: pl.Series, kind: type[pl.DataType]) -> pl.Series | None:
    try:
        return column.cast(kind)
    except pl.exceptions.PolarsError:
        return None


def _wrong_type(column: pl.Series, role: str, place: Callable[[int], str], wanted: str) -> DataError:
    return DataError(
        f"{place(0)}: column {column.name!r} is of type {column.dtype}, but {wanted}. Convert it, or name another "
        f"column with --columns {role}=COLUMN."
    )


def _seconds(column: pl.Series, reading: Reading, place: Callable[[int], str]) -> pl.Series:
    """Float64 Unix seconds, null where a value is no time. A column holds either numbers of one unit, or dates."""
    if column.dtype in (pl.Date, pl.Datetime):
        return column.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
    numbers = _numbers(column, "time", place)
    if column.dtype == pl.String and numbers.null_count() == len(numbers):
        return _seconds_of_dates(column)
    if reading.timestamp_unit == "auto" and (compact := _compact_dates(numbers)) is not None:
        reading.note(f"column {column.name!r} holds dates such as {numbers.drop_nulls()[0]:.0f}, not counts of seconds")
        return compact
    unit = reading.timestamp_unit if reading.timestamp_unit != "auto" else _likely_unit(numbers)
    if unit != "s":
        reading.note(f"column {column.name!r} counts {unit}; times are kept in seconds")
    return numbers / UNITS_PER_SECOND[unit]


def _seconds_of_dates(column: pl.Series) -> pl.Series:
    """ISO dates, perhaps with a time and a zone (without: UTC), in forms that may differ from row to row."""
    text, is_date, zoned = pl.col("text"), pl.col("text").str.contains(ISO_DATE), pl.col("text").str.contains(ZONE)
    parts = column.to_frame("text").select(  # Polars takes the form, zone or not, from the first value
        zoned=pl.when(is_date & zoned).then(text), plain=pl.when(is_date & ~zoned).then(text)
    )
    seconds = [
        part.str.to_datetime(strict=False, time_unit="us", time_zone="UTC").dt.epoch("us") / 1e6
        for part in parts.iter_columns()
    ]
    return seconds[0].fill_null(seconds[1])


def _compact_dates(numbers: pl.Series) -> pl.Series | None:
    """Seconds of numbers that all are dates such as 20240531 or 20240531123000; None if one is none.

    Read as seconds, they would lie within some weeks of 1970; as milliseconds, after the year 2600.
    """
    low, high = numbers.min(), numbers.max()
    if not isinstance(low, float) or not isinstance(high, float) or not math.isfinite(low + high):
        return None
    digits = len(f"{high:.0f}")
    if digits not in COMPACT_DATES or not 1900 * 10 ** (digits - 4) <= low <= high < 2101 * 10 ** (digits - 4):
        return None
    text = numbers.cast(pl.Int64).cast(pl.String)
    dates = text.str.to_datetime(COMPACT_DATES[digits], strict=False, time_unit="us")
    if dates.null_count() > numbers.null_count() or (numbers != numbers.floor()).any():
        return None
    return dates.dt.epoch("us") / 1e6


def _likely_unit(numbers: pl.Series) -> str:
    """Seconds of this century have 9 or 10 digits, milliseconds 12 or 13, and so on."""
    typical = numbers.abs().median()
    size = float(typical) if isinstance(typical, int | float) else 0.0
    return "s" if size < 1e11 else "ms" if size < 1e14 else "us" if size < 1e17 else "ns"


def items_frame(
    item_ids: Iterable[Any], texts: Mapping[str, Iterable[Any]], reading: Reading, *, where: str
) -> pl.DataFrame:
    """A cleaned item table: the first row of every id, every text column as clean text.

    Args:
        item_ids: one id per row, None where it is missing (such rows are left out and noted).
        texts: column -> one value per row, of any kind that `clean` takes.
        where: the file or frame, to be named in errors.

    Raises:
        DataError: a value is no id (unless malformed lines are skipped), or no text.
    """
    columns = {"item_id": _item_ids(item_ids, reading, where)}
    columns |= {name: _texts(name, values, where) for name, values in texts.items()}
    frame = pl.DataFrame(columns)
    named = frame.filter(pl.col("item_id").is_not_null() & (pl.col("item_id") != ""))
    if len(named) < len(frame):
        reading.note(f"{len(frame) - len(named)} rows of the item table have no id and are left out")
    unique = named.unique("item_id", keep="first", maintain_order=True)
    if len(unique) < len(named):
        reading.note(
            f"{len(named) - len(unique)} rows of the item table repeat an id; the first row of each id is kept"
        )
    return unique


def _item_ids(item_ids: Iterable[Any], reading: Reading, where: str) -> pl.Series:
    if isinstance(item_ids, pl.Series):
        return ids_column(item_ids, "item_id", lambda row: f"{where}, row {row + 1}")
    texts = list[str | None]()
    for row, value in enumerate(item_ids, 1):
        try:
            texts.append(id_text(value))
        except ValueError as error:
            reading.malformed(f"{where}, item {row}", f"{error}.", "Correct it.")
            texts.append(None)
    return pl.Series(texts, dtype=pl.String)


def _texts(name: str, values: Iterable[Any], where: str) -> pl.Series:
    if isinstance(values, pl.Series) and values.dtype == pl.Object:
        raise DataError(f"{where}: column {name!r} holds Python objects. Turn them into text, or leave the column out.")
    try:
        return pl.Series([clean(value) for value in values], dtype=pl.String)
    except RecursionError:
        raise DataError(
            f"{where}: a value of column {name!r} is nested too deeply to be a text. Correct it, or name other columns "
            "of text with --text-columns."
        ) from None


def chosen_texts(names: Sequence[str], id_column: str, reading: Reading, *, where: str) -> list[str]:
    """The text columns of an item table: those that the user named, or else all but the id.

    Raises:
        DataError: a named column does not exist.
    """
    for name in reading.text_columns:
        if name not in names:
            raise DataError(f"{where} has no column {name!r}. Its columns are {', '.join(map(repr, names))}.")
    return list(reading.text_columns) or [name for name in names if name != id_column]
