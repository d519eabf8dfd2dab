"""The tear-sheet of whatever holds semantic IDs: a run, an artefact, or a file of another project."""

from pathlib import Path
from typing import Literal

from tesserec.data.dataset import Dataset
from tesserec.data.splits import leave_one_out
from tesserec.errors import ConfigError
from tesserec.evaluation import TearSheet, inspect_ids
from tesserec.pipeline.run import RUN, Run
from tesserec.text.templates import render
from tesserec.tokenizers.imports import read_semantic_ids
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.types import PathLike


def inspect(
    source: PathLike, *, data: PathLike | None = None, uncoded: Literal["refuse", "reserve"] = "refuse"
) -> TearSheet:
    """Judge semantic IDs by everything that is known of them.

    Args:
        source: a run that has got as far as its semantic IDs, trained or not; an artefact of semantic IDs; a LETTER
            index (.json) or codes (.npy).
        data: the data set; needed for files, and to see shared texts and histories of an artefact. A run knows its own.
        uncoded: of files: items without a code are refused, or share a code of their own.

    Raises:
        ConfigError: a file, and no data set.
        ArtifactError, DataError: there are no semantic IDs here, or they are damaged or of another data set.
    """
    path = Path(source)
    if (path / RUN).exists():
        return inspect_run(Run.open(path, data=data))
    dataset = Dataset.load(data) if data is not None else None
    if path.is_dir():
        ids = SemanticIds.load(path)
    elif dataset is None:
        raise ConfigError(f"{path} holds codes but no items. Say which data set they belong to: --data.")
    else:
        ids = read_semantic_ids(path, dataset.catalogue, uncoded=uncoded)
    if dataset is None:
        return inspect_ids(ids)
    return inspect_ids(ids, texts=_texts(dataset, None), split=leave_one_out(dataset))


def inspect_run(run: Run) -> TearSheet:
    """The tear-sheet of a run's semantic IDs."""
    ids, split = run.semantic_ids, run.split
    if not run.has("tokenizer"):
        return inspect_ids(ids, texts=_texts(split.dataset, None), split=split)
    texts = _texts(split.dataset, run.about["recipe"]["text"]["template"])
    return inspect_ids(ids, texts=texts, embeddings=run.embeddings, tokenizer=run.tokenizer, split=split)


def _texts(dataset: Dataset, template: str | None) -> list[str] | None:
    """What tokenizers read of every item; None where the items have nothing but ids."""
    return render(dataset.items, template) if dataset.items.columns != ["item_id"] else None
