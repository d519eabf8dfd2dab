"""What all verbs share: results to stdout, progress to stderr, user errors as one message and exit code 2."""

import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from tesserec.errors import TesserecError
from tesserec.tables import format_table

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

Arguments = ParamSpec("Arguments")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")]

INTERRUPTED = 130  # what shells report for a process that Ctrl-C ended
LOG_SECONDS = 30.0  # between lines about a task where stderr is no terminal but a file


def items_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of `Run.titled`: id, score and title."""
    table = [["item_id", "score", "title"], *([row["item_id"], f"{row['score']:.4g}", row["title"]] for row in rows)]
    return format_table(table, align="lrl")


def reporting(verb: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """A verb that ends user errors, unusable paths too, with a message and exit code 2; bugs keep their traceback."""

    @functools.wraps(verb)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            verb(*args, **kwargs)
        except TesserecError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(2) from None
        except OSError as error:
            if error.filename is None:
                raise
            print(f"error: {error.filename}: {error.strerror}. Check the path and its permissions.", file=sys.stderr)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            print("\ninterrupted: the same command, started again, goes on from what is finished", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None

    return run


def show(value: Any, text: str, *, as_json: bool) -> None:
    """Print a result: as text for people, or as JSON."""
    print(json.dumps(value, indent=2) if as_json else text)


def report_lines(report: dict[str, Any]) -> list[str]:
    """The account of a data set: nested plain values, a line each; rows of equal keys as a table."""
    lines = list[str]()
    for key, value in report.items():
        if isinstance(value, dict):
            lines += [f"{key}:", *_indented(report_lines(value))]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            rows = [list(value[0]), *([str(cell) for cell in row.values()] for row in value)]
            lines += [f"{key}:", *_indented(format_table(rows, align="lr").splitlines())]
        elif isinstance(value, list):
            lines += [f"{key}:", *_indented(list(map(str, value)))] if value else []
        elif value is not None:
            lines.append(f"{key}: {value}")
    return lines


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


class TerminalProgress:
    """Progress on stderr: bars that vanish when their work is done (in a log file: a line now and then), and lines."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._bars: Bars | None = None

    def say(self, message: str) -> None:
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator["_Bar | _LogLines"]:
        if not self._console.is_terminal:
            yield _LogLines(self, label, total)
            return
        if self._bars is not None:  # inside another task: one more line of the same display
            yield from self._line(self._bars, label, total)
            return
        with _bars(self._console) as self._bars:
            try:
                yield from self._line(self._bars, label, total)
            finally:
                self._bars = None

    @staticmethod
    def _line(bars: "Bars", label: str, total: int | None) -> Iterator["_Bar"]:
        line = bars.add_task(label, total=total, note="")
        try:
            yield _Bar(bars, line)
        finally:
            bars.remove_task(line)


def _bars(console: Any) -> "Bars":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=console, transient=True)


class _Bar:
    def __init__(self, bars: "Bars", line: "TaskID") -> None:
        self._bars, self._line = bars, line

    def advance(self, amount: int = 1, *, note: str = "") -> None:
        self._bars.update(self._line, advance=amount, **({"note": note} if note else {}))  # type: ignore[arg-type]


class _LogLines:
    """A task in a log file: how far it is, every LOG_SECONDS."""

    def __init__(self, progress: TerminalProgress, label: str, total: int | None) -> None:
        self._progress, self._label, self._total = progress, label, total
        self._done, self._said = 0, time.monotonic()

    def advance(self, amount: int = 1, *, note: str = "") -> None:
        self._done += amount
        if time.monotonic() - self._said >= LOG_SECONDS:
            self._said = time.monotonic()
            of_total = f" of {self._total:,}" if self._total else ""
            self._progress.say(f"{self._label}: {self._done:,}{of_total}{f', {note}' if note else ''}")
