"""Progress of long work, said to whoever listens.

The command line draws bars; a library user hears nothing by default.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of long work."""

    def advance(self, amount: int = 1, *, note: str = "") -> None:
        """`amount` more units are done; `note` is a short status such as `loss 3.21`."""


class Progress(Protocol):
    """Something that shows tasks."""

    def task(self, label: str, total: int | None = None) -> AbstractContextManager[Task]:
        """Begin a task of `total` units (None: not known); it ends when the block does."""

    def say(self, message: str) -> None:
        """A line that stays: what was decided, found or finished."""


class _SilentTask:
    def advance(self, amount: int = 1, *, note: str = "") -> None:
        pass


class Silent:
    """Shows nothing."""

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        yield _SilentTask()

    def say(self, message: str) -> None:
        pass


SILENT: Progress = Silent()
