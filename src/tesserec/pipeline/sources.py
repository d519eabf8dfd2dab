"""What several sources on the command line are called: `NAME=PATH`, or the end of the path."""

from collections.abc import Collection, Sequence
from pathlib import Path

from tesserec.errors import ConfigError, DataError
from tesserec.types import PathLike


def name_sources(sources: Sequence[PathLike]) -> dict[str, Path]:
    """A name for each source: the one before `=`, or the end of its path, with as many folders as make it distinct.

    Raises:
        DataError: there is nothing at a path.
        ConfigError: two sources have one name.

    >>> list(name_sources(["here=.", "there=.."]))
    ['here', 'there']
    """
    given = [name_and_path(str(source)) for source in sources]
    unnamed = [path.resolve() for name, path in given if not name]
    named: dict[str, Path] = {}
    for name, path in given:
        if not path.exists():
            raise DataError(f"There is no file or folder {path}. Check the path of the semantic IDs.")
        name = name or distinct_end(path.resolve(), unnamed)
        if name in named:
            raise ConfigError(
                f"Two sources are called {name!r}: {named[name]} and {path}. Name them, as in first={path}, or leave "
                "one out."
            )
        named[name] = path
    return named


def name_and_path(source: str) -> tuple[str, Path]:
    """`NAME=PATH` taken apart; the name is "" where there is none, as in a path that holds a `=` itself."""
    name, equals, path = source.partition("=")
    return (name, Path(path)) if equals and not Path(source).exists() else ("", Path(source))


def distinct_end(path: Path, paths: Sequence[Path], taken: Collection[str] = ()) -> str:
    """The shortest end of a path that none of the others has and no name that is taken; equal paths are no others."""
    for n_parts in range(1, len(path.parts)):
        end = path.parts[-n_parts:]
        if "/".join(end) not in taken and all(other == path or other.parts[-n_parts:] != end for other in paths):
            return "/".join(end)
    return str(path)
