"""The optional libraries of Hugging Face, imported where they are needed and kept quiet."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tesserec.errors import MissingDependencyError


def require_transformers(purpose: str) -> Any:
    """The module.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise MissingDependencyError("transformers", extra="llm", purpose=purpose) from None
    return transformers


def require_peft(purpose: str) -> Any:
    """The module.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import peft
    except ImportError:
        raise MissingDependencyError("peft", extra="llm", purpose=purpose) from None
    return peft


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
