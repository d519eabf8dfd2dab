"""Every exception that Tesserec raises on purpose.

All of them are the user's business: the message says what was wrong, where, and what to do. The command
line prints the message and exits with 2; anything else that escapes is a bug of ours and keeps its traceback.
"""


class TesserecError(Exception):
    """Base of all errors about what the user gave us."""


class DataError(TesserecError):
    """A file, a table or a log does not hold what it should."""


class ConfigError(TesserecError):
    """A setting is unknown, out of range, or does not fit another setting."""


class ArtifactError(TesserecError):
    """A saved artefact is missing, damaged, of another version, or does not belong with another one."""


class TrainingError(TesserecError):
    """Training cannot go on: a loss that is not finite, or a checkpoint of another run."""


class MissingDependencyError(TesserecError):
    """An optional library is not installed; the message names the command that installs it."""

    def __init__(self, library: str, *, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {library}, which is not installed. Run: pip install 'tesserec[{extra}]'")
