"""A run: the stages of a recipe on a data set, each saved, none repeated while its inputs and settings stay the same.

    RUN/run.json         the complete recipe, the data set, and for every finished stage its key and fingerprint
    RUN/embeddings       item texts as vectors                     (where a tokenizer or the recommender reads them)
    RUN/collaborative    items as vectors of who took what         (where the tokenizer learns from them, too)
    RUN/tokenizer        the fitted tokenizer                      (where there is one)
    RUN/semantic-ids     one row of codes per item                 (where the recommender needs or learns them)
    RUN/recommender      the trained recommender
    RUN/report           its evaluation
    RUN/checkpoints      of a training that is under way

The key of a stage is a fingerprint of its settings and of the artefacts that it reads. A stage is skipped when
`run.json` holds the same key and the artefact on disk is still the one that was made then, byte by byte; or when
a store that the run shares with others (`store`) has an artefact of that key.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesserec.artifacts import (
    MANIFEST,
    fingerprint_bytes,
    fingerprint_folder,
    fingerprint_json,
    read_json,
    read_json_if_whole,
    read_manifest,
    require_writable,
    write_json,
)
from tesserec.config import build, to_dict
from tesserec.data.dataset import Dataset
from tesserec.data.splits import Split
from tesserec.environment import cache_folder, library
from tesserec.errors import ArtifactError
from tesserec.evaluation import Report, evaluate
from tesserec.pipeline.recipe import Choice, Collaborative, FileIds, FittedTokenizer, Recipe, SplitConfig
from tesserec.pipeline.store import CHECKPOINTS, StageStore
from tesserec.progress import SILENT, Progress
from tesserec.recommenders import load_recommender, make_recommender, recommender_class
from tesserec.text import TextConfig, encode_items
from tesserec.text.embeddings import Embeddings
from tesserec.text.imports import read_embeddings
from tesserec.tokenizers import load_tokenizer, make_tokenizer
from tesserec.tokenizers.imports import read_semantic_ids
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.types import PathLike

if TYPE_CHECKING:
    from tesserec.recommenders.base import Recommendations, Recommender
    from tesserec.tokenizers.base import ItemTokenizer

RUN = "run.json"
PARTIAL = f".{RUN}.partial"  # of a kill while it was first written
TEXTS: dict[str, Callable[[Any], list[Any]]] = {  # entry of run.json -> what in it must be text
    "reached": list,
    "recipe": lambda recipe: [recipe["split"]["method"], recipe["recommender"]["method"]],
    "dataset": lambda dataset: [dataset["folder"], dataset["fingerprint"]],
    "library": lambda library: [],
    "stages": lambda stages: [stage[key] for stage in stages.values() for key in ("key", "fingerprint")],
}


@dataclass(frozen=True)
class Run:
    """A run folder, opened. Each part is loaded when it is first asked for.

    Raises:
        ArtifactError: by every part that the run did not make: its recipe has none, or it was interrupted before.
    """

    folder: Path
    dataset_folder: Path
    about: dict[str, Any]  # the content of run.json

    @classmethod
    def open(cls, folder: PathLike, *, data: PathLike | None = None) -> "Run":
        """Open what `run` wrote, finished or not.

        Args:
            data: the data set, if it is no longer where it was.

        Raises:
            ArtifactError: the folder holds no run.
        """
        path = Path(folder)
        about = _read_about(path)
        return cls(path, Path(data if data is not None else about["dataset"]["folder"]), about)

    @cached_property
    def split(self) -> Split:
        """The data, cut as it was for training.

        Raises:
            ArtifactError: the data set is not where it was, or damaged.
        """
        if not self.dataset_folder.is_dir():
            raise ArtifactError(f"There is no data set of this run at {self.dataset_folder}. Say where it is: --data.")
        config = build(SplitConfig, self.about["recipe"]["split"], where=f"{self.folder / RUN}, split")
        return config.split(Dataset.load(self.dataset_folder))

    @cached_property
    def embeddings(self) -> Embeddings:
        return Embeddings.load(self._made("embeddings"))

    @cached_property
    def collaborative(self) -> Embeddings:
        return Embeddings.load(self._made("collaborative"))

    @cached_property
    def tokenizer(self) -> "ItemTokenizer":
        return load_tokenizer(self._made("tokenizer"))

    @cached_property
    def semantic_ids(self) -> SemanticIds:
        return SemanticIds.load(self._made("semantic-ids"))

    @cached_property
    def recommender(self) -> "Recommender":
        return load_recommender(self._made("recommender"))

    @cached_property
    def report(self) -> Report:
        return Report.load(self._made("report"))

    def has(self, stage: str) -> bool:
        """Whether the run has got so far."""
        return stage in self.about["reached"]

    def _made(self, stage: str) -> Path:
        if not self.has(stage):
            raise ArtifactError(
                f"{self.folder} has no {stage}: its recipe makes none, or the run was interrupted before. Starting the "
                "same `tesserec run` again goes on where it stopped."
            )
        return self.folder / stage

    def titled(self, answer: "Recommendations") -> list[list[dict[str, Any]]]:
        """Recommendations as plain rows: `item_id`, `title` and `score`, best first."""
        dataset, item_ids = self.split.dataset, answer.catalogue.item_ids
        if dataset.catalogue.fingerprint != answer.catalogue.fingerprint:
            raise ArtifactError(
                f"{self.dataset_folder} has other items than the run in {self.folder} was trained on, so its titles do "
                "not belong to them. Give the data set of the run: --data."
            )
        names = titles(dataset)
        return [
            [
                {"item_id": item_ids[item], "title": names[item], "score": score}
                for item, score in zip(items, scores)
                if item >= 0
            ]
            for items, scores in zip(answer.items.tolist(), answer.scores.tolist())
        ]


def titles(dataset: Dataset) -> list[str]:
    """What people would call each item: its title or name, else its first text; "" without any."""
    texts = [column for column in dataset.items.columns if column != "item_id"]
    named = [column for column in ("title", "name") if column in texts] or texts
    return [str(value or "") for value in dataset.items[named[0]]] if named else [""] * len(dataset.catalogue)


def run(
    recipe: Recipe,
    dataset_folder: PathLike,
    out: PathLike,
    *,
    store: PathLike | None = None,
    progress: Progress = SILENT,
) -> Run:
    """Carry out a recipe, from item texts to the report.

    A second run into the same folder repeats only the stages whose inputs or settings changed. Killed while training,
    the same call goes on from the last checkpoint and ends with the same weights.

    Args:
        recipe: the stages and their settings.
        dataset_folder: a prepared data set.
        out: the folder of the run.
        store: a folder of stages that runs share; several processes may use it at a time.
        progress: who listens.

    Raises:
        ArtifactError: `dataset_folder` is no prepared data set, or `out` holds something else or cannot be written.
        TesserecError: whatever a stage finds wrong with its settings or data.
    """
    data = Path(dataset_folder).resolve()
    dataset = Dataset.load(data)
    split = recipe.split.split(dataset)
    method, config = recommender_class(recipe.recommender.method), recipe.recommender.config
    start = [_content_to_start_from(path) for path in method.reads(config)]
    shared = StageStore(Path(store)) if store is not None else None
    stages = _Stages.begin(Path(out), recipe, data, shared, progress)
    for note in _notes_on_texts(recipe):
        progress.say(f"note: {note}")
    embedded = _embed(recipe.text, dataset, stages) if recipe.text is not None else None
    semantic_ids = _semantic_ids(recipe, split, embedded, stages)
    embeddings = Embeddings.load(stages.folder / "embeddings") if method.needs_embeddings else None
    inputs = [stages.data_fingerprint, to_dict(recipe.split), semantic_ids.fingerprint if semantic_ids else None]
    inputs += [embeddings.fingerprint] if embeddings else []
    inputs += start

    def train(folder: Path, checkpoints: Path) -> None:
        settings = to_dict(config)
        recommender = make_recommender(method.method, settings, recipe.training, semantic_ids, embeddings)
        recommender.fit(split, checkpoints=checkpoints, progress=progress).save(folder)

    def name_items(folder: Path, _: Path) -> None:
        learner: Any = load_recommender(stages.folder / "recommender")  # has semantic_ids, as makes_semantic_ids says
        learner.semantic_ids.save(folder)

    def report(folder: Path, _: Path) -> None:
        recommender = load_recommender(stages.folder / "recommender")
        evaluate(recommender, split, **to_dict(recipe.evaluation), progress=progress).save(folder)

    training = to_dict(recipe.training) if recipe.training else None
    inputs += [recipe.recommender.to_dict(), training]
    trained = stages.make("recommender", inputs, train)
    if method.makes_semantic_ids(config):
        stages.make("semantic-ids", [trained], name_items)
    stages.make("report", [inputs, trained, to_dict(recipe.evaluation)], report)
    stages.finish()
    return Run.open(stages.folder)


def _notes_on_texts(recipe: Recipe) -> list[str]:
    """Where text vectors mean other things to a tokenizer or network that another run has trained and this one uses."""
    method = recommender_class(recipe.recommender.method)
    readers = [*method.reads(recipe.recommender.config)] if method.needs_embeddings else []
    if recipe.tokenizer is not None and isinstance(recipe.tokenizer.config, FittedTokenizer):
        readers.append(recipe.tokenizer.config.path)
    if recipe.text is None or not readers:
        return []
    if recipe.text.encoder == "lsa":
        anew = (
            "lsa is fitted to each data set anew, so that its vectors mean nothing to what another one has trained; a "
            "network (text=minilm, ...) has one space for all"
        )
        return [anew]
    return [note for reader in readers if (note := _other_space(recipe.text, reader))]


def _other_space(ours: TextConfig, reader: str) -> str:
    """How the texts that another run was trained on were read otherwise; "" if nothing says so."""
    folder = Path(reader)
    about = read_json_if_whole(folder / RUN) or read_json_if_whole(folder.parent / RUN)
    theirs = about["recipe"]["text"] if about else None
    if theirs is None:
        return ""
    here, there = _space(to_dict(ours)), _space(theirs)
    unlike = [name for name in here if here[name] != there[name]]
    if not unlike:
        return ""
    was, now = (", ".join(f"text.{name}={space[name]}" for name in unlike) for space in (there, here))
    return f"{reader} was trained on texts with {was}, here it reads them with {now}: vectors mean other things to it"


def _space(text: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a vector's meaning depends on; neither a model's folder nor the columns are among them."""
    model = Path(text["model"]).name if text["model"] and text["encoder"] != "file" else None
    return {"encoder": text["encoder"], "model": model, "pooling": text["pooling"], "normalize": text["normalize"]}


def _semantic_ids(recipe: Recipe, split: Split, embedded: str | None, stages: "_Stages") -> SemanticIds | None:
    """The stages that end in the semantic IDs which the recommender reads; None if it reads none."""
    tokenizer = recipe.tokenizer
    if tokenizer is None:
        return None
    if isinstance(tokenizer.config, FileIds):
        return _read_ids(tokenizer.config, split.dataset, stages)
    assert embedded is not None
    if isinstance(tokenizer.config, FittedTokenizer):
        return _name_items(Path(tokenizer.config.path), embedded, stages)
    collaborative = None
    if recipe.collaborative is not None:
        collaborative = _collaborative_vectors(recipe.collaborative, recipe.split, split, stages)
    return _fit_tokenizer(tokenizer, embedded, collaborative, stages)


def _read_ids(config: FileIds, dataset: Dataset, stages: "_Stages") -> SemanticIds:
    """The one stage of semantic IDs that come from a file, an artefact or another run."""
    source = _part_of(config.path, "semantic-ids")

    def read(folder: Path, _: Path) -> None:
        read_semantic_ids(source, dataset.catalogue, uncoded=config.uncoded).save(folder)

    stages.make("semantic-ids", [stages.data_fingerprint, to_dict(config), _content(source)], read)
    return SemanticIds.load(stages.folder / "semantic-ids")


def _part_of(path: PathLike, stage: str) -> Path:
    """The path itself, or if it is that of a run, what the stage made there."""
    return Run.open(path)._made(stage) if (Path(path) / RUN).exists() else Path(path)


def _embed(text: TextConfig, dataset: Dataset, stages: "_Stages") -> str:
    """The stage of item texts as vectors; returns its fingerprint."""

    def embed(folder: Path, _: Path) -> None:
        cache = cache_folder() / "embeddings"
        encode_items(dataset.items, dataset.catalogue, text, cache=cache, progress=stages.progress).save(folder)

    settings = to_dict(text)
    if text.encoder != "lsa":
        settings.pop("seed")  # the others draw nothing: the runs of several seeds share what they make
    return stages.make("embeddings", [stages.data_fingerprint, settings, _content(text.model or "")], embed)


def _collaborative_vectors(config: Collaborative, cut: SplitConfig, split: Split, stages: "_Stages") -> str:
    """The stage of item vectors of who took what; its fingerprint."""

    def read(folder: Path, _: Path) -> None:
        read_embeddings(config.path, split.dataset.catalogue).save(folder)

    def train(folder: Path, checkpoints: Path) -> None:
        from tesserec.recommenders.sasrec import SASRec

        model = SASRec(config.model, config.training)
        model.fit(split, checkpoints=checkpoints, progress=stages.progress)
        Embeddings(split.dataset.catalogue, model.item_vectors, config=config.to_dict()).save(folder)

    if config.method == "file":
        inputs = [stages.data_fingerprint, config.to_dict(), _content(config.path)]
        return stages.make("collaborative", inputs, read)
    return stages.make("collaborative", [stages.data_fingerprint, to_dict(cut), config.to_dict()], train)


def _fit_tokenizer(tokenizer: Choice, embedded: str, collaborative: str | None, stages: "_Stages") -> SemanticIds:
    """The stages from embeddings, and collaborative vectors where there are any, to semantic IDs."""

    def fit(folder: Path, _: Path) -> None:
        unfitted = make_tokenizer(tokenizer.method, to_dict(tokenizer.config))
        vectors = Embeddings.load(stages.folder / "collaborative") if collaborative else None
        embeddings = Embeddings.load(stages.folder / "embeddings")
        unfitted.fit(embeddings, collaborative=vectors, progress=stages.progress).save(folder)

    read = [embedded, collaborative] if collaborative else [embedded]
    stages.make("tokenizer", [*read, tokenizer.to_dict()], fit)
    return _name_items(stages.folder / "tokenizer", embedded, stages)


def _name_items(tokenizer: Path, embedded: str, stages: "_Stages") -> SemanticIds:
    """The stage of semantic IDs by a fitted tokenizer, of this run or of another one."""
    tokenizer = _part_of(tokenizer, "tokenizer")

    def encode(folder: Path, _: Path) -> None:
        fitted = load_tokenizer(tokenizer)
        fitted.encode(Embeddings.load(stages.folder / "embeddings"), progress=stages.progress).save(folder)

    stages.make("semantic-ids", [embedded, _content(tokenizer)], encode)
    return SemanticIds.load(stages.folder / "semantic-ids")


def _content(path: PathLike) -> str | None:
    """Fingerprint of a file, a run, an artefact or another folder that a setting names; None if it names none.

    That of an artefact is of its settings, too: tokenizers of equal codebooks may treat colliding items differently.
    """
    if not str(path):
        return None
    if (Path(path) / RUN).is_file():
        return fingerprint_json(_read_about(Path(path))["stages"])
    if (Path(path) / MANIFEST).is_file():
        manifest = read_manifest(path)
        return fingerprint_json([manifest.fingerprint, manifest.config])
    if Path(path).is_dir():
        return fingerprint_folder(Path(path))
    return fingerprint_bytes(Path(path).read_bytes()) if Path(path).is_file() else None


def _content_to_start_from(path: PathLike) -> str:
    """As `_content`, of what a recommender is to start from."""
    content = _content(path)
    if content is None:
        raise ArtifactError(f"{path} is no run, recommender or file, so training cannot start from it. Check the path.")
    return content


@dataclass
class _Stages:
    """The stages of a run folder, and which of them are done."""

    folder: Path
    about: dict[str, Any]  # the content of run.json
    store: StageStore | None
    progress: Progress

    @classmethod
    def begin(cls, folder: Path, recipe: Recipe, data: Path, store: StageStore | None, progress: Progress) -> "_Stages":
        """Take up the run in a folder, or begin one in an empty or new folder."""
        require_writable(folder)
        begun = folder.exists() and any(entry.name != PARTIAL for entry in folder.iterdir())
        if begun and not (folder / RUN).exists():
            raise ArtifactError(
                f"{folder} exists and is not a run. Choose another folder for --out, or empty this one."
            )
        done = {}
        if (folder / RUN).exists():
            remedy = "Empty the folder and run the recipe again."
            done = _read_about(folder, ("stages",), remedy=remedy)["stages"]
        folder.mkdir(parents=True, exist_ok=True)
        source = {"folder": str(data), "fingerprint": read_manifest(data, kind="dataset").fingerprint}
        about: dict[str, Any] = {
            "reached": [],
            "recipe": recipe.to_dict(),
            "dataset": source,
            "library": library(),
            "stages": done,
        }
        stages = cls(folder, about, store, progress)
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
        key, place = fingerprint_json(key_of), self.folder / name

        def made(folder: Path, checkpoints: Path) -> dict[str, Any]:
            started = time.perf_counter()
            work(folder, checkpoints)
            seconds = round(time.perf_counter() - started, 1)
            self.progress.say(f"{name}: done in {seconds} s")
            return {"key": key, "fingerprint": read_manifest(folder).fingerprint, "seconds": seconds}

        if self._is_done(name, key):
            self.progress.say(f"{name}: cached")
        elif self.store is not None:
            self.about["stages"][name] = self.store.obtain(name, key, place, made, self.progress)
        else:
            self.about["stages"][name] = made(place, self.folder / CHECKPOINTS / key)
        self.about["reached"].append(name)
        self._write()
        return str(self.about["stages"][name]["fingerprint"])

    def finish(self) -> None:
        """Training is over: checkpoints of trainings in this folder that were given up are of no more use."""
        shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)

    def _is_done(self, name: str, key: str) -> bool:
        """Whether the artefact of this key is there, whole and unchanged."""
        earlier, folder = self.about["stages"].get(name), self.folder / name
        if earlier is None or earlier["key"] != key or not folder.is_dir():
            return False
        return bool(fingerprint_folder(folder) == earlier["fingerprint"])

    def _write(self) -> None:
        write_json(self.folder / RUN, self.about)


def _read_about(
    folder: Path,
    entries: Iterable[str] = TEXTS,
    *,
    remedy: str = "Make it again: the same `tesserec run` keeps what is done.",
) -> dict[str, Any]:
    """Some entries of run.json.

    Raises:
        ArtifactError: there is none, or it is damaged.
    """
    path = folder / RUN
    if not path.is_file():
        raise ArtifactError(
            f"{folder} holds no {RUN}, so it is not a run. Check the path, or make it with `tesserec run`."
        )
    try:
        about = read_json(path)
        found = {entry: about[entry] for entry in entries}
        whole = all(isinstance(text, str) for entry in found for text in TEXTS[entry](found[entry]))
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged ({error}). {remedy}") from None
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ArtifactError(f"{path} is damaged: entries are missing, or not what a run writes. {remedy}")
    return found
