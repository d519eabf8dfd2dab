"""Tear-sheets of whatever holds semantic IDs: runs, artefacts, and files of other projects."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

from tesserec.artifacts import require_same
from tesserec.data.catalogue import Catalogue
from tesserec.data.dataset import Dataset
from tesserec.data.splits import Split
from tesserec.errors import ConfigError
from tesserec.evaluation import Subject, TearSheet, TearSheetComparison, compare_ids
from tesserec.pipeline.recipe import SplitConfig
from tesserec.pipeline.run import RUN, Run
from tesserec.pipeline.sources import name_sources
from tesserec.text.embeddings import Embeddings
from tesserec.text.imports import read_embeddings
from tesserec.text.templates import render
from tesserec.tokenizers.imports import read_semantic_ids
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.types import PathLike

Uncoded = Literal["refuse", "reserve"]


def inspect(
    source: PathLike, *, data: PathLike | None = None, embeddings: PathLike | None = None, uncoded: Uncoded = "refuse"
) -> TearSheet:
    """Judge semantic IDs by everything that is known of them; as `inspect_many` with one source."""
    (sheet,) = inspect_many([source], data=data, embeddings=embeddings, uncoded=uncoded).sheets.values()
    return sheet


def inspect_many(
    sources: Sequence[PathLike],
    *,
    data: PathLike | None = None,
    embeddings: PathLike | None = None,
    uncoded: Uncoded = "refuse",
    every_pair: bool = False,
) -> TearSheetComparison:
    """Compare tokenizers of one data set.

    Args:
        sources: runs that have got as far as their semantic IDs, trained or not; artefacts of semantic IDs; LETTER
            indices (.json) or codes (.npy). `NAME=PATH` names a source; otherwise its path does.
        data: the data set; needed for files, and to see shared texts and histories of artefacts, unless a run is among
            the sources: a run knows its own.
        embeddings: in which nearest items are looked for, the same for all sources: an artefact of embeddings, or a
            file that `read_embeddings` takes. Without, only runs have nearest items, each in its own embeddings.
        uncoded: of files: items without a code are refused, or share a code of their own.
        every_pair: measure the stability of every pair of sources, not only of those that differ in their seed alone.

    Raises:
        ConfigError: two sources have one name; or a file, and no data set; or runs that split their data differently.
        ArtifactError, DataError: there are no semantic IDs here, or they are damaged; or sources of different data sets
            or catalogues, of which two are named.
    """
    paths = name_sources(sources)
    runs = {name: Run.open(path, data=data) for name, path in paths.items() if (path / RUN).exists()}
    if data is None:
        _require_one_data_set(runs)
    _require_one_split(runs)
    split = _split(data, runs)
    dataset = split.dataset if split is not None else None
    texts = _Texts(dataset)
    subjects = {
        name: _subject_of_run(runs[name], texts) if name in runs else _subject(path, dataset, uncoded, texts)
        for name, path in paths.items()
    }
    catalogue = next(iter(subjects.values())).semantic_ids.catalogue
    common = _embeddings(Path(embeddings), catalogue) if embeddings is not None else None
    return compare_ids(subjects, embeddings=common, split=split, every_pair=every_pair)


def _embeddings(path: Path, catalogue: Catalogue) -> Embeddings:
    return Embeddings.load(path) if path.is_dir() else read_embeddings(path, catalogue)


def _require_one_data_set(runs: Mapping[str, Run]) -> None:
    """Refuse runs on different data sets, naming the first two that differ."""
    for (first, one), (second, other) in pairwise(runs.items()):
        require_same(
            f"The data set of {first}, {one.dataset_folder},",
            one.about["dataset"]["fingerprint"],
            f"that of {second}, {other.dataset_folder},",
            other.about["dataset"]["fingerprint"],
            remedy="Compare tokenizers of one data set, or name the one to judge them on: --data.",
        )


def _require_one_split(runs: Mapping[str, Run]) -> None:
    """Refuse runs that train on different parts of the data, naming the first two that differ."""
    for (first, one), (second, other) in pairwise(runs.items()):
        cuts = one.about["recipe"]["split"], other.about["recipe"]["split"]
        if cuts[0] != cuts[1]:
            raise ConfigError(
                f"{first} and {second} split their data differently ({cuts[0]} and {cuts[1]}), so companions and "
                "popularity would be counted on different events. Compare runs of one split."
            )


def _split(data: PathLike | None, runs: Mapping[str, Run]) -> Split | None:
    """The split of the runs; without runs, leave-one-out of the data set; None if there is neither."""
    for run in runs.values():
        return run.split
    return SplitConfig().split(Dataset.load(data)) if data is not None else None


class _Texts:
    """What tokenizers read of every item, rendered once for each template."""

    def __init__(self, dataset: Dataset | None) -> None:
        self._dataset = dataset
        self._rendered: dict[str | None, list[str]] = {}

    def by(self, template: str | None) -> list[str] | None:
        """None where the items have nothing but ids."""
        if self._dataset is None or self._dataset.items.columns == ["item_id"]:
            return None
        if template not in self._rendered:
            self._rendered[template] = render(self._dataset.items, template)
        return self._rendered[template]


def _subject_of_run(run: Run, texts: _Texts) -> Subject:
    if not run.has("tokenizer"):
        return Subject(run.semantic_ids, texts=texts.by(None))
    text = run.about["recipe"]["text"]
    # Items are told apart by all their attributes together.
    template = ". ".join(f"{{{name}}}" for name in text["attributes"]) or text["template"]
    return Subject(run.semantic_ids, texts.by(template), run.embeddings, run.tokenizer, recipe={"text": text})


def _subject(path: Path, dataset: Dataset | None, uncoded: Uncoded, texts: _Texts) -> Subject:
    """Of an artefact or a file."""
    if path.is_dir():
        return Subject(SemanticIds.load(path), texts.by(None))
    if dataset is None:
        raise ConfigError(f"{path} holds codes but no items. Say which data set they belong to: --data.")
    return Subject(read_semantic_ids(path, dataset.catalogue, uncoded=uncoded), texts.by(None))
