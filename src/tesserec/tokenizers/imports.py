"""Semantic IDs made elsewhere: LETTER-style index files and plain arrays, in and out."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tesserec.artifacts import read_json, require_same
from tesserec.data.catalogue import Catalogue
from tesserec.errors import ConfigError, DataError
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.types import BoolArray, IntArray, PathLike

LETTERS = "abcdefghijklmnopqrstuvwxyz"  # the level's name in an index token: <a_183> is code 183 of the first level
TOKEN = re.compile(r"<([a-z])_(\d{1,9})>")


def read_semantic_ids(
    path: PathLike,
    catalogue: Catalogue,
    *,
    codebook_sizes: Sequence[int] | None = None,
    uncoded: Literal["refuse", "reserve"] = "refuse",
) -> SemanticIds:
    """Codes of a catalogue's items from another project's file. Items that share all codes go on sharing them.

    Args:
        path: a folder of saved semantic IDs of the very same catalogue, which come back as they are; `.json`, a LETTER
            or LC-Rec index, item id -> ["<a_183>", "<b_70>", ...] (further items are ignored); or `.npy`, whole
            numbers (N, L) with rows in catalogue order, -1 for an item without a code.
        codebook_sizes: L sizes. None: the next power of two above the level's largest code, as neither
            format states them.
        uncoded: items without a code are refused, or get a code of their own, added to every level, which they share.

    Raises:
        DataError: the file is missing, damaged or of another shape, or it has no code for some items.
        ArtifactError: the folder holds no semantic IDs, damaged ones, or those of other items.
    """
    file = Path(path)
    if file.is_dir():
        ids = SemanticIds.load(file)
        require_same(f"{file}", ids.catalogue.fingerprint, "the catalogue", catalogue.fingerprint,
                     remedy="Make the semantic IDs from this data set.")  # fmt: skip
        return ids
    if not file.is_file():
        raise DataError(f"There is no file {file}. Check the path of the semantic IDs.")
    if file.suffix.lower() == ".json":
        codes = _read_index(file, catalogue)
    elif file.suffix.lower() == ".npy":
        codes = _read_array(file, catalogue)
    else:
        raise DataError(f"{file}: semantic IDs are read from .json (an index) or .npy, not {file.suffix or 'this'}.")
    missing: BoolArray = np.asarray((codes < 0).any(axis=1))
    if missing.all():
        raise DataError(f"{file} has no code for any of the {len(catalogue)} items. Check that its item ids are these.")
    if missing.any() and uncoded == "refuse":
        names = [catalogue.item_ids[row] for row in np.flatnonzero(missing)[:3]]
        raise DataError(
            f"{file} has no code for {missing.sum()} of {len(catalogue)} items, such as {names}. Remove them from the "
            "data, or pass uncoded='reserve' to give them one code of their own."
        )
    largest = codes.max(axis=0)
    sizes = tuple(codebook_sizes or (1 << int(code).bit_length() for code in largest))
    if missing.any():
        codes = np.where(missing[:, None], np.array(sizes), codes)
        sizes = tuple(size + 1 for size in sizes)
    config: dict[str, Any] = {"method": "file", "path": str(file), "items_without_code": int(missing.sum())}
    return SemanticIds(catalogue, codes, sizes, config=config)


def write_index(ids: SemanticIds, path: PathLike) -> None:
    """Write a LETTER-style index: item id -> ["<a_183>", "<b_70>", ...], in catalogue order.

    Raises:
        ConfigError: more levels than letters.
    """
    if ids.n_levels > len(LETTERS):
        raise ConfigError(f"An index file names up to {len(LETTERS)} levels, these IDs have {ids.n_levels}. Use .npy.")
    index = {
        item_id: [f"<{letter}_{code}>" for letter, code in zip(LETTERS, row)]
        for item_id, row in zip(ids.catalogue.item_ids, ids.codes.tolist(), strict=True)
    }
    Path(path).write_text(json.dumps(index))


def write_array(ids: SemanticIds, path: PathLike) -> None:
    """Write the codes as `.npy`, (N, L) int32, rows in catalogue order."""
    with Path(path).open("wb") as file:
        np.save(file, ids.codes.astype(np.int32))


def _read_index(file: Path, catalogue: Catalogue) -> IntArray:
    """(N, L) codes, -1 rows for items that the index does not name."""
    try:
        index = read_json(file)
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}.") from None
    if not isinstance(index, dict) or not index:
        raise DataError(f"{file} does not hold an index. Expected a JSON object: item id -> list of codes.")
    first = next(iter(index.values()))
    if not isinstance(first, list) or not first:
        raise DataError(f"{file}: the first item has {first!r}. Expected a list of codes, such as <a_12>, <b_7>.")
    n_levels = len(first)
    codes = np.full((len(catalogue), n_levels), -1, dtype=np.int64)
    for row, item_id in enumerate(catalogue.item_ids):
        if item_id in index:
            codes[row] = _parse(index[item_id], n_levels, f"{file}, item {item_id!r}")
    return codes


def _parse(tokens: object, n_levels: int, where: str) -> list[int]:
    if not isinstance(tokens, list) or len(tokens) != n_levels:
        raise DataError(f"{where}: found {tokens!r}. Expected a list of {n_levels} codes, as for the first item.")
    matches = [TOKEN.fullmatch(str(token)) for token in tokens]
    if any(match is None or match[1] != letter for match, letter in zip(matches, LETTERS)):
        raise DataError(f"{where}: found {tokens!r}. Expected tokens such as <a_12>, <b_7>, one letter per level.")
    return [int(match[2]) for match in matches if match is not None]


def _read_array(file: Path, catalogue: Catalogue) -> IntArray:
    """(N, L) codes, -1 rows for items without a code."""
    try:
        array: IntArray = np.load(file)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{file} cannot be read as an array: {error}. Write it with numpy.save.") from None
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise DataError(f"{file} holds {array.dtype} of shape {array.shape}. Give whole numbers (items, levels).")
    if len(array) != len(catalogue):
        raise DataError(f"{file} has {len(array)} rows for {len(catalogue)} items. Give one row per item.")
    return array.astype(np.int64)
