"""A run: the stages of a recipe on a data set, each saved, none repeated while its inputs and settings stay the same.

    RUN/run.json         the complete recipe, the data set, and for every finished stage its key and fingerprint
    RUN/embeddings       item texts as vectors                     (recipes with a tokenizer)
    RUN/tokenizer        the fitted tokenizer                      (the same)
    RUN/semantic-ids     one row of codes per item                 (the same)
    RUN/recommender      the trained recommender
    RUN/report           its evaluation
    RUN/checkpoints      of a training that is under way

The key of a stage is a fingerprint of its settings and of the artefacts that it reads. A stage is skipped when
`run.json` holds the same key and the artefact on disk is still the one that was made then, byte by byte.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesserec.artifacts import fingerprint_bytes, fingerprint_folder, fingerprint_json, read_manifest, write_json
from tesserec.config import build, to_dict
from tesserec.data.dataset import Dataset
from tesserec.data.splits import Split
from tesserec.environment import library
from tesserec.errors import ArtifactError
from tesserec.evaluation import Report, evaluate
from tesserec.pipeline.recipe import Choice, Recipe, SplitConfig
from tesserec.progress import SILENT, Progress
from tesserec.recommenders import load_recommender, make_recommender
from tesserec.text import TextConfig, encode_items
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers import load_tokenizer, make_tokenizer
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.types import PathLike

if TYPE_CHECKING:
    from tesserec.recommenders.base import Recommendations, Recommender

RUN = "run.json"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Run:
    """A run folder, opened."""

    folder: Path
    dataset_folder: Path
    split_config: SplitConfig

    @classmethod
    def open(cls, folder: PathLike, *, data: PathLike | None = None) -> "Run":
        """Open a finished run.

        Args:
            folder: what `run` wrote.
            data: the data set, if it is no longer where it was.

        Raises:
            ArtifactError: the folder holds no finished run.
        """
        path = Path(folder)
        about = _read_about(path)
        if not about["finished"]:
            raise ArtifactError(f"The run in {path} is not finished. Start the same `tesserec run` again to go on.")
        split = build(SplitConfig, about["recipe"]["split"], where=f"{path / RUN}, split")
        return cls(path, Path(data if data is not None else about["dataset"]["folder"]), split)

    @cached_property
    def recommender(self) -> "Recommender":
        return load_recommender(self.folder / "recommender")

    @cached_property
    def split(self) -> Split:
        """The data, cut as it was for training.

        Raises:
            ArtifactError: the data set is not where it was, or damaged.
        """
        if not self.dataset_folder.is_dir():
            raise ArtifactError(
                f"The data set of this run is no longer at {self.dataset_folder}. Say where it is: --data."
            )
        return self.split_config.split(Dataset.load(self.dataset_folder))

    @cached_property
    def semantic_ids(self) -> SemanticIds:
        """Raises ArtifactError if the recipe makes none."""
        return SemanticIds.load(self.folder / "semantic-ids")

    @cached_property
    def embeddings(self) -> Embeddings:
        """Raises ArtifactError if the recipe makes none."""
        return Embeddings.load(self.folder / "embeddings")

    def titled(self, answer: "Recommendations") -> list[list[dict[str, Any]]]:
        """Recommendations as plain rows: `item_id`, `title` and `score`, best first."""
        names = titles(self.split.dataset)
        item_ids = answer.catalogue.item_ids
        return [
            [
                {"item_id": item_ids[item], "title": names[item], "score": score}
                for item, score in zip(items, scores)
                if item >= 0
            ]
            for items, scores in zip(answer.items.tolist(), answer.scores.tolist())
        ]

    @cached_property
    def report(self) -> Report:
        return Report.load(self.folder / "report")


def titles(dataset: Dataset) -> list[str]:
    """What people would call each item: its title or name, else its first text; "" without any."""
    texts = [column for column in dataset.items.columns if column != "item_id"]
    named = [column for column in ("title", "name") if column in texts] or texts
    return [str(value or "") for value in dataset.items[named[0]]] if named else [""] * len(dataset.catalogue)


def run(recipe: Recipe, dataset_folder: PathLike, out: PathLike, *, progress: Progress = SILENT) -> Run:
    """Carry out a recipe, from item texts to the report.

    A second run into the same folder repeats only the stages whose inputs or settings changed. Killed while training,
    the same call goes on from the last checkpoint and ends with the same weights.

    Raises:
        ArtifactError: `dataset_folder` is no prepared data set, or `out` holds something else.
        TesserecError: whatever a stage finds wrong with its settings or data.
    """
    data = Path(dataset_folder).resolve()
    dataset = Dataset.load(data)
    split = recipe.split.split(dataset)
    stages = _Stages.begin(Path(out), recipe, data, progress)
    semantic_ids = None
    if recipe.text is not None and recipe.tokenizer is not None:
        semantic_ids = _make_semantic_ids(recipe.text, recipe.tokenizer, dataset, stages)
    inputs = [stages.data_fingerprint, to_dict(recipe.split), semantic_ids.fingerprint if semantic_ids else None]

    def train(folder: Path, checkpoints: Path) -> None:
        method, settings = recipe.recommender.method, to_dict(recipe.recommender.config)
        recommender = make_recommender(method, settings, recipe.training, semantic_ids=semantic_ids)
        recommender.fit(split, checkpoints=checkpoints, progress=progress).save(folder)

    def report(folder: Path, _: Path) -> None:
        recommender = load_recommender(stages.folder / "recommender")
        evaluate(recommender, split, **to_dict(recipe.evaluation), progress=progress).save(folder)

    training = to_dict(recipe.training) if recipe.training else None
    trained = stages.make("recommender", [inputs, recipe.recommender.to_dict(), training], train)
    stages.make("report", [inputs, trained, to_dict(recipe.evaluation)], report)
    stages.finish()
    return Run.open(stages.folder)


def _make_semantic_ids(text: TextConfig, tokenizer: Choice, dataset: Dataset, stages: "_Stages") -> SemanticIds:
    """The three stages from item texts to semantic IDs."""
    progress = stages.progress

    def embed(folder: Path, partial: Path) -> None:
        encode_items(dataset.items, dataset.catalogue, text, cache=partial, progress=progress).save(folder)

    def fit(folder: Path, _: Path) -> None:
        unfitted = make_tokenizer(tokenizer.method, to_dict(tokenizer.config))
        unfitted.fit(Embeddings.load(stages.folder / "embeddings"), progress=progress).save(folder)

    def encode(folder: Path, _: Path) -> None:
        fitted = load_tokenizer(stages.folder / "tokenizer")
        fitted.encode(Embeddings.load(stages.folder / "embeddings")).save(folder)

    model = Path(text.model or "")
    file = fingerprint_bytes(model.read_bytes()) if model.is_file() else None  # of ready embeddings
    embedded = stages.make("embeddings", [stages.data_fingerprint, to_dict(text), file], embed)
    fitted = stages.make("tokenizer", [embedded, tokenizer.to_dict()], fit)
    stages.make("semantic-ids", [embedded, fitted], encode)
    return SemanticIds.load(stages.folder / "semantic-ids")


@dataclass
class _Stages:
    """The stages of a run folder, and which of them are done."""

    folder: Path
    about: dict[str, Any]  # the content of run.json
    progress: Progress

    @classmethod
    def begin(cls, folder: Path, recipe: Recipe, data: Path, progress: Progress) -> "_Stages":
        """Take up the run in a folder, or begin one in an empty or new folder."""
        if folder.exists() and not (folder / RUN).exists() and any(folder.iterdir()):
            raise ArtifactError(
                f"{folder} exists and is not a run. Choose another folder for --out, or empty this one."
            )
        done = _read_about(folder)["stages"] if (folder / RUN).exists() else {}
        folder.mkdir(parents=True, exist_ok=True)
        source = {"folder": str(data), "fingerprint": read_manifest(data, kind="dataset").fingerprint}
        about = {"finished": False, "recipe": recipe.to_dict(), "dataset": source, "library": library(), "stages": done}
        stages = cls(folder, about, progress)
        stages._write()
        return stages

    @property
    def data_fingerprint(self) -> str:
        """Of the data set's files: unlike `Dataset.fingerprint` it changes with the items' texts, too."""
        return str(self.about["dataset"]["fingerprint"])

    def make(self, name: str, key_of: Any, work: Callable[[Path, Path], None]) -> str:
        """Do a stage unless it is done, and return the fingerprint of its artefact.

        Args:
            key_of: everything that the result depends on, as plain values.
            work: writes the artefact into the first folder; may keep checkpoints in the second.
        """
        key = fingerprint_json(key_of)
        if self._is_done(name, key):
            self.progress.say(f"{name}: cached")
        else:
            started = time.perf_counter()
            work(self.folder / name, self.folder / CHECKPOINTS / key)
            seconds = round(time.perf_counter() - started, 1)
            fingerprint = read_manifest(self.folder / name).fingerprint
            self.about["stages"][name] = {"key": key, "fingerprint": fingerprint, "seconds": seconds}
            self._write()
            self.progress.say(f"{name}: done in {seconds} s")
        return str(self.about["stages"][name]["fingerprint"])

    def finish(self) -> None:
        self.about["finished"] = True
        self._write()
        shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)

    def _is_done(self, name: str, key: str) -> bool:
        """Whether the artefact of this key is there, whole and unchanged."""
        earlier, folder = self.about["stages"].get(name), self.folder / name
        if earlier is None or earlier["key"] != key or not folder.is_dir():
            return False
        return bool(fingerprint_folder(folder) == earlier["fingerprint"])

    def _write(self) -> None:
        write_json(self.folder / RUN, self.about)


def _read_about(folder: Path) -> dict[str, Any]:
    """The content of run.json.

    Raises:
        ArtifactError: there is none, or it is damaged.
    """
    try:
        about = json.loads((folder / RUN).read_text())
        return {key: about[key] for key in ("finished", "recipe", "dataset", "library", "stages")}
    except FileNotFoundError:
        raise ArtifactError(
            f"{folder} holds no {RUN}, so it is not a run. Check the path, or make it with `tesserec run`."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{folder / RUN} is damaged ({error}). Empty the folder and run the recipe again."
        ) from None
