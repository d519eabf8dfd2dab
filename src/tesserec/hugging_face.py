"""The optional libraries of Hugging Face, imported where they are needed and kept quiet."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Literal

from tesserec.errors import MissingDependencyError


def require_library(name: Literal["transformers", "peft"], purpose: str) -> Any:
    """The module of this name.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        raise MissingDependencyError(name, extra="llm", purpose=purpose) from None


@contextmanager
def no_bars() -> Iterator[None]:
    """No progress bars of transformers inside the block."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
