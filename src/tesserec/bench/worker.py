"""A process that carries out runs for a suite (`tesserec.bench.crew` starts it).

It reads a job per line from standard input and writes what happens to standard output, a JSON value per line:

    in   {"source": ..., "settings": ..., "data": ..., "out": ..., "store": ...}     see `Work`
    out  {"say": text}                                                              a line of progress
         {"task": [label, total]}, {"advance": [amount, note]}, {"end": null}       a task from its beginning to its end
         {"done": null}, or {"failed": sentence, "trace": the traceback of a bug}   the last one of a job

A run that kills its process (out of memory, a crash in a library) thus costs that run alone. When the suite's own
process ends, its workers do, too, wherever they are; what they did goes on from the last checkpoint, as after any kill.
"""

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from tesserec.config import build
from tesserec.errors import TesserecError

SECONDS_BETWEEN = 0.5  # messages about the progress of a task


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a worker is told to do."""

    source: str  # of the recipe
    settings: tuple[str, ...]
    data: str  # folder of the data set
    out: str  # folder of the run
    store: str  # of the stages that runs share
    missed_users: int = 0  # of a generative model: for so many users, find out why it missed


class _Reporter:
    """Progress as messages."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def send(self, **message: Any) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def say(self, message: str) -> None:
        self.send(say=message)

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator["_ReportedTask"]:
        self.send(task=[label, total])
        task = _ReportedTask(self)
        try:
            yield task
        finally:
            task.flush()
            self.send(end=None)


class _ReportedTask:
    def __init__(self, reporter: _Reporter) -> None:
        self._reporter = reporter
        self._amount, self._note, self._sent = 0, "", 0.0

    def advance(self, amount: int = 1, *, note: str = "") -> None:
        self._amount, self._note = self._amount + amount, note or self._note
        if time.monotonic() - self._sent >= SECONDS_BETWEEN:
            self.flush()

    def flush(self) -> None:
        self._reporter.send(advance=[self._amount, self._note])
        self._amount, self._sent = 0, time.monotonic()


def main() -> None:
    """Serve until standard input ends, or the suite whose process id is the first argument."""
    suite = int(sys.argv[1])  # as the parent is another one by now if the suite was killed while this process began
    if os.getppid() != suite:
        sys.exit(1)
    reporter = _Reporter(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)  # what libraries print is no message
    threading.Thread(target=_end_with_parent, args=(suite,), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin:
            _carry_out(build(Work, json.loads(line), where="job"), reporter)


def _carry_out(work: Work, reporter: _Reporter) -> None:
    from tesserec.bench.foresight import keep_figures
    from tesserec.bench.missed import keep_misses
    from tesserec.pipeline import load_recipe, run

    try:
        recipe = load_recipe(work.source, work.settings)
        finished = run(recipe, work.data, work.out, store=work.store, progress=reporter)
        keep_figures(finished)
        if work.missed_users:
            keep_misses(finished, work.missed_users, reporter)
    except TesserecError as error:
        reporter.send(failed=str(error), trace=None)
    except Exception as error:  # a bug, or a disk that is full: the other runs of the suite need not suffer from it
        reporter.send(failed=f"{type(error).__name__}: {error}", trace=traceback.format_exc())
    else:
        reporter.send(done=None)


def _end_with_parent(parent: int) -> None:
    """A worker whose suite was killed must not go on training beside the one that takes its place."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
