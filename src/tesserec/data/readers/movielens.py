"""MovieLens: 100k (u.data, u.item), 1M and 10M (ratings.dat, movies.dat), 20M and later (ratings.csv, movies.csv)."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tesserec.data.files import Delimited, file_beside, first_line, open_bytes, read_delimited
from tesserec.data.raw import Raw, Reading, chosen_texts, events_frame, items_frame
from tesserec.errors import DataError

COLUMNS = {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"}
CSV_HEADER = "userId,movieId,rating,timestamp"
GENRES = (  # the flags of u.item, in order; the first is "unknown"
    "", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
NO_GENRES = "(no genres listed)"
Movie = tuple[str, str, list[str]]  # id, title, genres


@dataclass(frozen=True)
class Edition:
    """How one generation of the data set is written."""

    ratings: Delimited
    names: tuple[str, ...]  # of all columns of the ratings
    movies: str  # the file beside the ratings
    movie: Callable[[str], Movie]  # from a line of that file


def _movie_100k(line: str) -> Movie:
    item, title, _, _, _, *flags = line.split("|")
    return item, title, [genre for genre, flag in zip(GENRES, flags, strict=True) if flag == "1"]


def _movie_1m(line: str) -> Movie:
    item, title, genres = line.split("::")
    return item, title, genres.split("|")


def _movie_csv(line: str) -> Movie:
    item, title, genres = next(csv.reader([line]))
    return item, title, genres.split("|")


PLAIN = ("userId", "movieId", "rating", "timestamp")
EDITIONS = {
    "u.data": Edition(Delimited("\t", quoted=False, header=False), PLAIN, "u.item", _movie_100k),
    # Between the two colons of "::" there is an empty column.
    "ratings.dat": Edition(
        Delimited(":", quoted=False, header=False),
        ("userId", "", "movieId", " ", "rating", "  ", "timestamp"),
        "movies.dat",
        _movie_1m,
    ),
    "ratings.csv": Edition(Delimited(","), PLAIN, "movies.csv", _movie_csv),
}


def event_files(files: Sequence[Path], named: Mapping[str, str]) -> list[Path]:
    """Those of some files that are the ratings of a MovieLens data set."""
    return [path for path in files if path.name.lower() in EDITIONS and _is_ratings(path)]


def _is_ratings(path: Path) -> bool:
    return path.name.lower() != "ratings.csv" or first_line(path) == CSV_HEADER


def read(path: Path, items: Path | None, reading: Reading) -> Raw:
    """Read ratings, and the movies: the file given, or the one beside the ratings."""
    if path.name.lower() not in EDITIONS:
        raise DataError(f"{path} is no log of MovieLens: its name would be {' or '.join(EDITIONS)}. Give that file.")
    edition = EDITIONS[path.name.lower()]
    reading.use(path, "interactions")
    reading.use_columns(path, COLUMNS)
    table = read_delimited(path, edition.ratings, edition.names, list(COLUMNS.values()), reading)
    events = events_frame(table.frame, COLUMNS, reading, place=table.place)
    items = items or file_beside(path, edition.movies)
    return Raw(events, _read_movies(items, edition, reading) if items else None)


def _read_movies(path: Path, edition: Edition, reading: Reading) -> pl.DataFrame:
    movies = list(_movies(path, edition, reading))
    rows: dict[str, list[Any]] = {
        "title": [title for _, title, _ in movies],
        "genres": [[genre for genre in genres if genre != NO_GENRES] for _, _, genres in movies],
    }
    names = chosen_texts(list(rows), "", reading, where=str(path))
    reading.use(path, f"items with {', '.join(names)}")
    return items_frame([item for item, _, _ in movies], {name: rows[name] for name in names}, reading, where=str(path))


def _movies(path: Path, edition: Edition, reading: Reading) -> Iterator[Movie]:
    with open_bytes(path) as file:
        content = file.read()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # the early editions
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not (number == 1 and edition.ratings.header):
            try:
                yield edition.movie(line.rstrip("\r"))
            except ValueError:
                reading.malformed(
                    f"{path}, line {number}", f"not the line of a movie: {line[:80]!r}.", "Correct the line."
                )
