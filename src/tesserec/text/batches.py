"""Encoding many texts with a network: similar lengths together, and every finished block kept on disk."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tesserec.progress import Progress
from tesserec.types import FloatArray

BLOCK = 2048  # texts between two writes to disk: what a killed process loses at most

EncodeBatch = Callable[[list[str]], FloatArray]  # n texts -> (n, D)


def encode_batches(
    texts: Sequence[str], load: Callable[[], EncodeBatch], *, batch_size: int, partial: Path | None, progress: Progress
) -> FloatArray:
    """(n, D) float32, one row per text.

    Args:
        load: loads the model; not called when all blocks are on disk already.
        partial: folder for finished blocks; a later call with the same texts goes on after them. None: memory only.
    """
    order = np.argsort([-len(text) for text in texts], kind="stable")  # longest first: out of memory shows at once
    encode: EncodeBatch | None = None
    blocks = list[FloatArray]()
    with progress.task("encoding texts", len(texts)) as task:
        for number, start in enumerate(range(0, len(texts), BLOCK)):
            rows = order[start : start + BLOCK]
            file = partial / f"block_{number:06d}.npy" if partial is not None else None
            if file is not None and file.exists():
                blocks.append(np.load(file))
                task.advance(len(rows), note="from cache")
                continue
            encode = encode or load()
            batches = list[FloatArray]()
            for first in range(0, len(rows), batch_size):
                batch = rows[first : first + batch_size]
                batches.append(encode([texts[row] for row in batch]))
                task.advance(len(batch))
            blocks.append(np.concatenate(batches).astype(np.float32))
            if file is not None:
                save_array(file, blocks[-1])
    found = np.concatenate(blocks)
    vectors = np.empty_like(found)
    vectors[order] = found
    return vectors


def save_array(path: Path, array: FloatArray) -> None:
    """Write an array so that the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.partial")
    with staging.open("wb") as file:
        np.save(file, array)
    staging.rename(path)
