"""Suites: which methods are compared, on which data, over which seeds, under which protocol; and the runs of that.

A suite says nothing about how a method works: that is its recipe's business, so any recipe will do. How one is written
down: `tesserec.bench.suite_files`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tesserec.artifacts import fingerprint_json, read_manifest
from tesserec.config import to_dict, without_seeds
from tesserec.data.synthetic import SyntheticConfig
from tesserec.errors import ConfigError
from tesserec.evaluation import CUTOFFS, check_ranking
from tesserec.functional.metrics import parse_metric
from tesserec.pipeline.recipe import SECTIONS, Recipe, load_recipe, place_of
from tesserec.recommenders import recommender_class

PROTOCOL_KEYS = ("part", "exclude_seen", "cutoffs")  # of the recipe's [evaluation]; a suite sets them for all methods
OF_BEAMS = ("beam_width", "exact")  # of it, too: for generative methods alone
PLACEHOLDER = re.compile(r"\{(\w+)\}")  # in a method's settings: a file of the suite
SIZES = ("users", "items", "interactions")
LONGEST_NAME = 100  # bytes of a folder's name; file systems take 255


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How every method of a suite is evaluated."""

    part: Literal["test", "validation"] = "test"
    exclude_seen: bool = False  # items of the history are no candidates
    cutoffs: tuple[int, ...] = CUTOFFS

    def __post_init__(self) -> None:
        check_ranking(self.cutoffs, False, None)

    def settings(self) -> list[str]:
        """As settings of a recipe."""
        cutoffs = ",".join(map(str, self.cutoffs))
        return [
            f"evaluation.part={self.part}",
            f"evaluation.exclude_seen={str(self.exclude_seen).lower()}",
            f"evaluation.cutoffs={cutoffs}",
        ]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The budget of a search, the same for every method that has one. Nothing but the validation part is looked at."""

    trials: int = 10
    metric: str = "ndcg@10"
    seed: int = 0  # of the draws, and of the training of every trial

    def __post_init__(self) -> None:
        parse_metric(self.metric.removeprefix("id_"))
        if self.trials < 1:
            raise ConfigError(f"tuning.trials is {self.trials}. Allow 1 trial or more, or leave out the searches.")
        if self.seed < 0:
            raise ConfigError(f"tuning.seed is {self.seed}. Use 0 or more.")


@dataclass(frozen=True, kw_only=True)
class Range:
    """A number to search for, between two bounds."""

    low: float
    high: float
    log: bool = False  # equal chances to equal ratios, not to equal differences
    whole: bool = False  # as in a file where both bounds are written without a point

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ConfigError(
                f"a search from {self.low:g} to {self.high:g}{' by ratios' if self.log else ''} is empty. Give "
                f"low < high{', both above 0' if self.log else ''}."
            )


Space = Mapping[str, "Range | tuple[Any, ...]"]  # setting -> where its value lies


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a paper reports for a method on a data set."""

    metrics: Mapping[str, float]  # such as recall@10, in the names of our reports
    source: str = ""
    differs: str = ""  # where its protocol is another than the suite's


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set of a suite: a prepared one, or a made-up one."""

    path: str = ""
    synthetic: SyntheticConfig | None = None
    users: int | None = None  # counts that the data set must have, so that published figures belong to it
    items: int | None = None
    interactions: int | None = None

    def __post_init__(self) -> None:
        if self.path and self.synthetic is not None:
            raise ConfigError("it has a path and is made up, too. Remove path or synthetic.")
        if self.synthetic is not None and any(getattr(self, what) is not None for what in SIZES):
            raise ConfigError(
                f"{', '.join(SIZES)} are for prepared data, but this is made up. Set data.NAME.synthetic's own sizes."
            )


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the results: a recipe with settings, or only what others have published."""

    recipe: str = ""  # a packaged recipe or a .toml file; "": nothing is run
    like: str = ""  # an earlier method, whose recipe and seeds are taken over, and whose settings come before its own
    settings: tuple[str, ...] = ()  # section.key=value, where {name} stands for a file of the suite
    seeds: tuple[int, ...] | None = None  # None: those of the suite, or a single one for what is not trained
    data: tuple[str, ...] | None = None  # None: all data sets of the suite
    note: str = ""  # what a reader should know of it, such as its budget
    published: Mapping[str, Published] = field(default_factory=dict)  # by data set
    search: Space = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("seeds", "data"):
            if getattr(self, name) == ():
                raise ConfigError(f"{name} is empty. Name one or more, or leave it out for those of the suite.")


@dataclass(frozen=True)
class Job:
    """One run of a plan."""

    method: str
    data: str
    seed: int
    source: str  # of the recipe
    settings: tuple[str, ...]
    folder: Path

    @cached_property
    def recipe(self) -> Recipe:
        return load_recipe(self.source, self.settings)

    @property
    def told(self) -> str:
        """What its recommender knows of a target beyond the history; nothing, as a rule."""
        recommender = self.recipe.recommender
        return recommender_class(recommender.method).told(recommender.config)

    @property
    def settings_of_model(self) -> dict[str, Any]:
        """As `model_settings`, of what will be trained."""
        recipe = self.recipe
        training = to_dict(recipe.training) if recipe.training is not None else None
        config = to_dict(recipe.recommender.config)
        return model_settings({"method": recipe.recommender.method, "recommender": config, "training": training})

    @property
    def label(self) -> str:
        return f"{self.method} on {self.data}, seed {self.seed}"

    def with_settings(self, settings: Sequence[str], folder: Path) -> "Job":
        """The same run with further settings, somewhere else."""
        return replace(self, settings=(*self.settings, *settings), folder=folder)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Methods x data sets x seeds, and the protocol that they share."""

    name: str
    summary: str
    budget: str  # in words: what a reader should know of the means behind the numbers
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]  # those compared with intervals and tests
    reference: str  # the method that the others are compared with; "": the best one
    protocol: Protocol
    tuning: Tuning
    data: Mapping[str, Data]
    files: Mapping[str, str]  # name -> path, "" as long as nobody has given one
    missed_users: int  # of the first seed of a generative method that is run here, followed through the beam; 0: none
    methods: Mapping[str, Method]
    settings: tuple[str, ...] = ()  # of every method that has their section

    def to_dict(self) -> dict[str, Any]:
        """The complete suite, defaults included, as plain JSON values."""
        return to_dict(self)

    def missing_files(self, method: Method) -> list[str]:
        """The files that the settings of a method name and nobody has given."""
        named = [name for setting in method.settings for name in PLACEHOLDER.findall(setting)]
        return [name for name in dict.fromkeys(named) if not self.files[name]]

    @property
    def left_out(self) -> dict[str, str]:
        """Methods that cannot be run -> why, and what would help."""
        return {
            name: "needs " + " and ".join(f"--file {file}=PATH" for file in missing)
            for name, method in self.methods.items()
            if (missing := self.missing_files(method))
        }

    @property
    def searched(self) -> list[str]:
        """Methods whose settings are searched for: those of two may come out the same."""
        return [name for name, method in self.methods.items() if method.search]

    def dataset_folder(self, name: str, out: Path) -> Path:
        """Where a data set of the suite is, or will be made."""
        return Path(self.data[name].path) if self.data[name].path else out / "data" / slug(name)

    def jobs(self, out: Path) -> list[Job]:
        """Every run of the suite, data set by data set, each method's seeds together; all recipes are known to load.

        Raises:
            ConfigError: a recipe or one of its settings is wrong, or sets what belongs to the protocol.
        """
        found, taken = [], set[str]()
        for data in self.data:
            for name, method in self.methods.items():
                if not method.recipe or name in self.left_out or data not in (method.data or self.data):
                    continue
                settings, trained = self._settings(name, method)
                taken |= set(settings)
                seeds = method.seeds or self.seeds
                for seed in seeds if trained else seeds[:1]:
                    folder = out / "runs" / slug(data) / slug(name) / str(seed)
                    found.append(Job(name, data, seed, method.recipe, (*settings, f"seed={seed}"), folder))
        for setting in self.settings:
            if setting not in taken:
                raise ConfigError(f"--set {setting}: no method of suite {self.name} has this setting. Check its name.")
        _require_one_question(found)
        return found

    def _settings(self, name: str, method: Method) -> tuple[list[str], bool]:
        """All settings of a method but the seed: its own, everyone's, the protocol; and whether it is trained."""
        own = [PLACEHOLDER.sub(lambda match: self.files[match[1]], setting) for setting in method.settings]
        for setting in (*own, *self.settings, *method.search):
            section, key = place_of(setting)
            if (section == "evaluation" and key in PROTOCOL_KEYS) or section == "seed":
                place = "[protocol]" if key else "seeds"
                raise ConfigError(
                    f"{name}: {setting} is not for a method to set, as all of a suite share it. Set it in {place}."
                )
        try:
            recipe = load_recipe(method.recipe, own)
            common = [setting for setting in self.settings if _concerns(setting, recipe)]
            settings = [*own, *common, *self.protocol.settings()]
            return settings, load_recipe(method.recipe, settings).training is not None
        except ConfigError as error:
            raise ConfigError(f"suite {self.name}, {name}: {error}") from None


def _concerns(setting: str, recipe: Recipe) -> bool:
    """Whether a recipe has a setting; one of no section at all is left to the recipe to refuse."""
    section, key = place_of(setting)
    if section not in SECTIONS:
        return True
    if section == "evaluation" and key in OF_BEAMS:
        return recommender_class(recipe.recommender.method).is_generative
    values = recipe.to_dict().get(section)
    if values is None or section == "collaborative" or not key:  # such as tokenizer=pq
        return values is not None
    return key in values


def _require_one_question(jobs: Sequence[Job]) -> None:
    """One split for all methods, and none told more of its targets, or their figures would not go into one table."""
    told = {job.method: job.told for job in jobs}
    if len(set(told.values())) > 1:
        some = "; ".join(f"{method}: {words}" for method, words in told.items() if words)
        raise ConfigError(f"Some methods are told more of their targets than others ({some}). Leave them out.")
    for job in jobs[1:]:
        if job.recipe.split != jobs[0].recipe.split:
            raise ConfigError(
                f"{jobs[0].method} and {job.method} split the data differently ({jobs[0].recipe.split.method} and "
                f"{job.recipe.split.method}). Use one split for all: --set split=..."
            )


def model_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of the configuration in a protocol card, what the seeds of a method have in common apart from their inputs."""
    settings: dict[str, Any] = without_seeds({part: config.get(part) for part in ("method", "recommender", "training")})
    return settings


def slug(name: str) -> str:
    """A name as that of a folder; a long one ends in its fingerprint."""
    words = "".join(letter if letter.isalnum() else " " for letter in name.lower().replace("'", "")).split()
    folder = "-".join(words) or fingerprint_json(name)
    short = len(folder.encode()) <= LONGEST_NAME
    return folder if short else f"{folder.encode()[:LONGEST_NAME].decode(errors='ignore')}-{fingerprint_json(name)}"


def check_data(suite: Suite) -> None:
    """Refuse data that is no prepared data set, or not the one whose sizes the suite states.

    Raises:
        ArtifactError, ConfigError: the message names the data set.
    """
    for name, data in suite.data.items():
        if not data.path:
            continue
        sizes = read_manifest(data.path, kind="dataset").sizes
        for what in SIZES:
            wanted = getattr(data, what)
            if wanted is not None and sizes.get(what) != wanted:
                raise ConfigError(
                    f"{data.path} has {sizes.get(what)} {what}, but the suite's figures for {name} belong to a cut "
                    f"with {wanted}. Give that cut, or run a suite of your own."
                )
