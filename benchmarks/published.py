"""The published data that benchmarks read in place: never copied, see `--data`."""

from pathlib import Path

from tesserec.data import Dataset, prepare
from tesserec.tokenizers.imports import read_semantic_ids
from tesserec.tokenizers.semantic_ids import SemanticIds


def beauty_with_letter_ids(folder: Path) -> tuple[Dataset, SemanticIds]:
    """Amazon Beauty (2014, 5-core) and the semantic IDs of the LETTER authors for it."""
    dataset = prepare(folder / "Beauty.inter.json")
    return dataset, read_semantic_ids(folder / "Beauty.index.json", dataset.catalogue)
