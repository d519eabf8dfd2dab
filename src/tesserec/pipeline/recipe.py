"""Recipes: which parts a run is made of, and every setting of each, from TOML text to checked dataclasses."""

import dataclasses
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from tesserec.config import build, choose, key_and_value, nearest, parse_toml, to_dict
from tesserec.data.dataset import Dataset
from tesserec.data.splits import Split, by_time, leave_one_out
from tesserec.errors import ConfigError
from tesserec.evaluation import CUTOFFS, check_ranking, require_generative
from tesserec.recommenders import recommender_class
from tesserec.text import TextConfig
from tesserec.tokenizers import TOKENIZERS, tokenizer_class
from tesserec.training.config import TrainingConfig

SECTIONS = ("split", "text", "collaborative", "tokenizer", "recommender", "training", "evaluation")
METHODS = (("tokenizer", "method"), ("recommender", "method"))  # the keys that choose a config class
CHOICE_KEY = {
    "split": "method",
    "text": "encoder",
    "collaborative": "method",
    "tokenizer": "method",
    "recommender": "method",
}  # `--set tokenizer=pq`


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """What trains, what validates and what tests."""

    method: Literal["leave-one-out", "by-time"] = "leave-one-out"
    validation_from: int | None = None  # by-time: first second (or rank, as in the data) of the validation period
    test_from: int | None = None  # by-time: first second of the test period

    def __post_init__(self) -> None:
        given = (self.validation_from is not None, self.test_from is not None)
        if self.method == "by-time" and not all(given):
            raise ConfigError("split.method is 'by-time', which needs split.validation_from and split.test_from.")
        if self.method == "leave-one-out" and any(given):
            raise ConfigError("split.validation_from and split.test_from need split.method=by-time.")

    def split(self, dataset: Dataset) -> Split:
        """Cut a data set."""
        if self.validation_from is None or self.test_from is None:
            return leave_one_out(dataset)
        return by_time(dataset, validation_from=self.validation_from, test_from=self.test_from)


@dataclass(frozen=True, kw_only=True)
class FileIds:
    """`tokenizer.method = "file"`: semantic IDs that another project made, instead of a tokenizer of ours."""

    path: str = ""  # a LETTER index (.json), codes (.npy), saved semantic IDs or a run that has some
    uncoded: Literal["refuse", "reserve"] = "refuse"  # items without a code: an error, or one code of their own

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError(
                "tokenizer.method is 'file' but tokenizer.path is not set. Set it to the file, or run, of the IDs."
            )


@dataclass(frozen=True, kw_only=True)
class FittedTokenizer:
    """`tokenizer.method = "fitted"`: the tokenizer of another run, which encodes these items without learning anew."""

    path: str = ""  # a run, or its tokenizer folder

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError(
                "tokenizer.method is 'fitted' but tokenizer.path is not set. Set it to the run of the tokenizer."
            )


@dataclass(frozen=True, kw_only=True)
class Collaborative:
    """Item vectors of who took what, for tokenizers that learn from them, too: a recommender's item table, or a file.

    The recommender is trained on the training part of the split, and chosen by its validation part.
    """

    method: Literal["sasrec", "file"] = "sasrec"
    path: str = ""  # of method "file": .npy or Parquet, see tesserec.text.imports
    model: Any = None  # of other methods: the recommender's configuration
    training: TrainingConfig | None = None

    def __post_init__(self) -> None:
        if (self.method == "file") != bool(self.path):
            raise ConfigError(
                f"collaborative.method is {self.method!r} and collaborative.path is {self.path!r}. Set the path of the "
                "vectors for method 'file', and for no other."
            )

    def to_dict(self) -> dict[str, Any]:
        if self.method == "file":
            return {"method": self.method, "path": self.path}
        return {"method": self.method, **to_dict(self.model), "training": to_dict(self.training)}


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What the report at the end of a run says."""

    part: Literal["test", "validation"] = "test"
    exclude_seen: bool = False  # items of the history are no candidates
    cutoffs: tuple[int, ...] = CUTOFFS
    exact: bool = False  # generative models: score every item instead of searching by beam
    beam_width: int | None = None  # generative models: of the search, None: the recommender's own

    def __post_init__(self) -> None:
        check_ranking(self.cutoffs, self.exact, self.beam_width)


@dataclass(frozen=True)
class Choice:
    """A method and its full configuration."""

    method: str
    config: Any  # of the method's config_class

    def to_dict(self) -> dict[str, Any]:
        return {"method": self.method, **to_dict(self.config)}


@dataclass(frozen=True, kw_only=True)
class Head:
    """What stands above the sections of a recipe."""

    summary: str = ""
    seed: int | None = None  # of every section that does not say otherwise


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The parts of a run. What the recommender has no use for is None: popularity needs neither texts nor training."""

    name: str
    summary: str
    split: SplitConfig
    text: TextConfig | None
    collaborative: Collaborative | None
    tokenizer: Choice | None
    recommender: Choice
    training: TrainingConfig | None
    evaluation: EvaluationConfig

    def to_dict(self) -> dict[str, Any]:
        """The complete recipe, defaults included, as plain JSON values."""
        sections = {name: getattr(self, name) for name in SECTIONS if getattr(self, name) is not None}
        return {
            "name": self.name,
            "summary": self.summary,
            **{
                name: part.to_dict() if isinstance(part, (Choice, Collaborative)) else to_dict(part)
                for name, part in sections.items()
            },
        }

    def text_form(self) -> str:
        """The complete recipe in the form of a recipe file; what is unset stands as "none"."""
        lines = [f"summary = {json.dumps(self.summary)}"]
        for section, values in self.to_dict().items():
            if isinstance(values, dict):
                lines += _table(section, values)
        return "\n".join(lines)


def _table(name: str, values: dict[str, Any]) -> list[str]:
    """The lines of a TOML table, those within it last."""
    lines = ["", f"[{name}]"]
    lines += [f"{key} = {_toml(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for key, value in values.items():
        if isinstance(value, dict):
            lines += _table(f"{name}.{key}", value)
    return lines


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps("none" if value is None else value)


@cache
def packaged_recipes() -> Mapping[str, str]:
    """Name -> summary of the recipes that come with the library."""
    folder = files("tesserec") / "recipes"
    names = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return {name: tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))["summary"] for name in names}


def load_recipe(source: str, settings: Sequence[str] = ()) -> Recipe:
    """A packaged recipe, or one from a file, with settings changed.

    Args:
        source: the name of a packaged recipe, or the path of a `.toml` file.
        settings: `section.key=value`, in order; `section=method` chooses another method, whose settings then start from
            its defaults; `seed=3` seeds every section that does not say otherwise.

    Raises:
        ConfigError: no such recipe, section or setting (the nearest one is named), or a value out of range.
    """
    values = _read(source)
    name = Path(source).stem if _is_file_name(source) else source
    for setting in settings:
        _apply(values, setting)
    recipe = _resolve(values, name)
    for setting in settings:
        section, _ = place_of(setting)
        if section in SECTIONS and getattr(recipe, section) is None:
            raise ConfigError(f"--set {setting}: {recipe.recommender.method} has no use for {section}. Leave it out.")
    return recipe


def place_of(setting: str) -> tuple[str, str]:
    """Section and key of `section.key=value`; the key is "" where there is none."""
    section, _, key = setting.partition("=")[0].strip().partition(".")
    return section, key


def _read(source: str) -> dict[str, Any]:
    if _is_file_name(source):
        if not Path(source).is_file():
            raise ConfigError(
                f"There is no recipe file {source}. Check the path, or use a packaged recipe by its name."
            )
        content = Path(source).read_bytes()
    else:
        known = packaged_recipes()
        if source not in known:
            raise ConfigError(f"There is no recipe called {source!r}. {nearest(source, known)} Or give a .toml file.")
        content = (files("tesserec") / "recipes" / f"{source}.toml").read_bytes()
    return parse_toml(content, source)


def _is_file_name(source: str) -> bool:
    return source.lower().endswith(".toml")


def _apply(values: dict[str, Any], setting: str) -> None:
    path, value = key_and_value(setting, example="training.epochs=5")
    section, *keys = path.split(".")
    if section == "seed" and not keys:
        values["seed"] = value
        return
    if section not in SECTIONS:
        raise ConfigError(f"--set {setting}: there is no section {section!r}. {nearest(section, ('seed', *SECTIONS))}")
    if not keys:
        if section not in CHOICE_KEY:
            raise ConfigError(f"--set {setting}: say which setting of {section}, as in {section}.key=value.")
        keys = [CHOICE_KEY[section]]
    target = values.setdefault(section, {})
    if (
        section in ("collaborative", "tokenizer", "recommender")
        and keys == ["method"]
        and target.get("method") != value
    ):
        target.clear()  # the settings of one method mean nothing to another
    for key in keys[:-1]:
        target = target.setdefault(key, {})
    target[keys[-1]] = value


def _resolve(values: Mapping[str, Any], name: str) -> Recipe:
    for key, value in values.items():
        if key not in ("summary", "seed", *SECTIONS):
            known = ("summary", "seed", *SECTIONS)
            raise ConfigError(f"recipe {name}: there is no section {key!r}. {nearest(key, known)}")
        if key in SECTIONS and not isinstance(value, Mapping):
            raise ConfigError(
                f"recipe {name}: {key} is {value!r}. Write it as a table, [{key}] with one setting per line."
            )
    head = build(Head, {key: values[key] for key in ("summary", "seed") if key in values}, where=f"recipe {name}")
    if "recommender" not in values:
        raise ConfigError(f"recipe {name} has no [recommender]. Add one with its method, such as method = 'sasrec'.")

    def section(config_class: type[Any], key: str) -> Any:
        entries = {name: value for name, value in values.get(key, {}).items() if (key, name) not in METHODS}
        if head.seed is not None and any(field.name == "seed" for field in dataclasses.fields(config_class)):
            entries = {"seed": head.seed, **entries}
        return build(config_class, entries, where=f"recipe {name}, {key}")

    def choice(key: str, config_class_of: Callable[[str], type[Any]]) -> Choice:
        if "method" not in values[key]:
            raise ConfigError(f"recipe {name}: [{key}] names no method. Add method = '...'.")
        method = values[key]["method"]
        return Choice(method, section(config_class_of(method), key))

    recommender = choice("recommender", lambda method: recommender_class(method).config_class)
    method = recommender_class(recommender.method)
    if method.needs_semantic_ids and "tokenizer" not in values:
        raise ConfigError(
            f"recipe {name}: {recommender.method} recommends by semantic IDs. "
            "Add [tokenizer] with a method such as 'rkmeans'."
        )
    evaluation = section(EvaluationConfig, "evaluation")
    if evaluation.exact or evaluation.beam_width is not None:
        require_generative(method)
    tokenizer = choice("tokenizer", _tokenizer_config) if method.needs_semantic_ids else None
    encodes = tokenizer is not None and not isinstance(tokenizer.config, FileIds)
    takes_collaborative = (
        tokenizer is not None
        and tokenizer.method not in READ_TOKENIZERS
        and tokenizer_class(tokenizer.method).needs_collaborative(tokenizer.config)
    )
    return Recipe(
        name=name,
        summary=head.summary,
        split=section(SplitConfig, "split"),
        text=section(TextConfig, "text") if encodes or method.needs_embeddings else None,
        collaborative=_collaborative(values.get("collaborative", {}), head, name, tokenizer.config.latent_width)
        if takes_collaborative and tokenizer is not None
        else None,
        tokenizer=tokenizer,
        recommender=recommender,
        training=section(TrainingConfig, "training") if method.is_trained else None,
        evaluation=evaluation,
    )


def _collaborative(section: Mapping[str, Any], head: Head, name: str, width: int) -> Collaborative:
    """The section [collaborative], or its defaults, for a tokenizer that takes vectors of this width."""
    given = dict(section)
    method = given.pop("method", "file" if given.get("path") else "sasrec")
    where = f"recipe {name}, collaborative"
    if method == "file":
        for key in given:
            if key != "path":
                raise ConfigError(f"{where}: there is no setting {key!r} for vectors from a file. Known: method, path.")
        return build(Collaborative, {"method": method, **given}, where=where)
    if "path" in given:
        raise ConfigError(
            f"{where}.path is {given['path']!r}, but the method is {method!r}, which reads no file. Set the method to "
            "'file' first (--set collaborative=file), or leave the path out."
        )
    if method != "sasrec":
        raise ConfigError(f"{where}.method is {method!r}. Use 'sasrec', or 'file' with collaborative.path.")
    trained = given.pop("training", {})
    if not isinstance(trained, Mapping):
        raise ConfigError(f"{where}.training is {trained!r}. Write it as a table, [collaborative.training].")
    seeds = {"seed": head.seed} if head.seed is not None else {}
    training = build(TrainingConfig, {**seeds, **trained}, where=f"{where}.training")
    model = build(recommender_class(method).config_class, {"width": width, **given}, where=where)
    if model.width != width:
        raise ConfigError(
            f"{where}.width is {model.width}, but tokenizer.latent_width is {width}, and their product is the "
            "tokenizer's loss. Set both to the same, or leave collaborative.width out."
        )
    return Collaborative(method="sasrec", model=model, training=training)


READ_TOKENIZERS: dict[str, type[Any]] = {"file": FileIds, "fitted": FittedTokenizer}  # beside those that are fitted


def _tokenizer_config(method: str) -> type[Any]:
    choose(method, {**TOKENIZERS, **READ_TOKENIZERS}, what="tokenizer")
    return READ_TOKENIZERS[method] if method in READ_TOKENIZERS else tokenizer_class(method).config_class
