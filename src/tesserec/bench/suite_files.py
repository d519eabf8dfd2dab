"""Suites as TOML text, packaged or the user's: read, completed by what the command line says, and checked.

summary = "Two baselines on our shop"
seeds = [0, 1, 2]                                # of every trained method that names no others
metrics = ["recall@10", "ndcg@10"]               # with intervals and tests
reference = "SASRec, dropout .5"                 # which method the others are tested against; else the best one
missed_users = 1000                              # followed through the beams of generative methods, on validation

[protocol]                                       # one for all: runs that differ here do not go into one table
part = "test"
exclude_seen = false
cutoffs = [1, 5, 10, 20, 50]

[tuning]                                         # the budget of every method that has a [search]
trials = 12

[data.shop]
path = "data/shop"                               # or given on the command line: --data shop=data/shop

[methods."SASRec, dropout .5"]
recipe = "sasrec"
settings = ["recommender.dropout=0.5"]
published.shop = { "ndcg@10" = 0.0553, source = "a paper" }
search = { "training.learning_rate" = { low = 1e-4, high = 1e-2, log = true } }
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from tesserec.bench.suite import PLACEHOLDER, Data, Method, Protocol, Published, Range, Space, Suite, Tuning, slug
from tesserec.config import build, nearest, parse_toml
from tesserec.errors import ConfigError
from tesserec.functional.metrics import parse_metric

HEAD = ("summary", "budget", "seeds", "metrics", "reference", "missed_users")
TABLES = ("protocol", "tuning", "data", "files", "methods")
METHOD_KEYS = ("like", "recipe", "settings", "seeds", "data", "note", "published", "search")


def packaged_suites() -> dict[str, str]:
    """Name -> summary of the suites that come with the library."""
    folder = files("tesserec") / "suites"
    names = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return {name: tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))["summary"] for name in names}


def load_suite(
    source: str,
    *,
    data: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    settings: Sequence[str] = (),
) -> Suite:
    """A packaged suite, or one from a file, completed by what the user says.

    Args:
        source: the name of a packaged suite, or the path of a `.toml` file; paths of data sets and recipes in a file
            are relative to it, those in settings to the current folder.
        data: name of a data set -> folder of the prepared data; a suite's only data set may be called "".
        files: name of another file that the suite asks for -> its path.
        settings: `section.key=value`, for every method whose recipe has the section.

    Raises:
        ConfigError: no such suite, an unknown name or key (the nearest one is named), a value out of range, or a data
            set without a path.
    """
    values, home = _read(source)
    name = Path(source).stem if source.lower().endswith(".toml") else source
    where = f"suite {name}"
    for key, value in values.items():
        if key not in (*HEAD, *TABLES):
            raise ConfigError(f"{where}: there is no {key!r}. {nearest(key, (*HEAD, *TABLES))}")
        if key in TABLES and not isinstance(value, Mapping):
            raise ConfigError(f"{where}: {key} is {value!r}. Write it as a table, [{key}].")
    head = build(_Head, {key: values[key] for key in HEAD if key in values}, where=where)
    sources = _sources(values.get("data", {}), dict(data or {}), home, where)
    paths = _files(values.get("files", {}), dict(files or {}), where)
    methods = dict[str, Method]()
    for title, entry in values.get("methods", {}).items():
        methods[title] = _method(entry, f"{where}, {title}", home, methods, sources, paths)
    if not any(method.recipe for method in methods.values()):
        raise ConfigError(f"{where} has no method to run. Add [methods.NAME] with recipe = '...'.")
    run = [title for title, method in methods.items() if method.recipe]
    if head.reference and head.reference not in run:
        raise ConfigError(f"{where}: reference is {head.reference!r}, which is not run. {nearest(head.reference, run)}")
    protocol = build(Protocol, values.get("protocol", {}), where=f"{where}, protocol")
    for title, method in methods.items():
        _require_cutoffs(method, protocol, head.metrics, f"{where}, {title}")
    _require_folders(sources, "data set", where)
    _require_folders(methods, "method", where)
    return Suite(
        name=name,
        summary=head.summary,
        budget=head.budget,
        seeds=head.seeds,
        metrics=head.metrics,
        reference=head.reference,
        missed_users=head.missed_users,
        protocol=protocol,
        tuning=build(Tuning, values.get("tuning", {}), where=f"{where}, tuning"),
        data=sources,
        files=paths,
        methods=methods,
        settings=tuple(settings),
    )


def _require_cutoffs(method: Method, protocol: Protocol, compared: Sequence[str], where: str) -> None:
    """Refuse published figures that none of ours could stand beside."""
    for name, published in method.published.items():
        for metric in published.metrics:
            _, cutoff = parse_metric(metric.removeprefix("id_"))
            if method.recipe and metric not in compared and cutoff not in protocol.cutoffs:
                raise ConfigError(
                    f"{where}: {metric} is published on {name}, but protocol.cutoffs are "
                    f"{', '.join(map(str, protocol.cutoffs))}. Add {cutoff} to them."
                )


def _require_folders(names: Iterable[str], what: str, where: str) -> None:
    """Refuse empty names, and those that would share a folder."""
    known = dict[str, str]()
    for name in names:
        if not name.strip() or not name.isprintable():
            raise ConfigError(f"{where}: a {what} is called {name!r}. Give it a name of letters that can be printed.")
        if (other := known.setdefault(slug(name), name)) != name:
            raise ConfigError(
                f"{where}: {other!r} and another {what}, {name!r}, differ in signs and capitals only. Rename one."
            )


@dataclass(frozen=True, kw_only=True)
class _Head:
    """What stands above the tables of a suite."""

    summary: str = ""
    budget: str = ""
    seeds: tuple[int, ...] = (0,)
    metrics: tuple[str, ...] = ("recall@10", "ndcg@10")
    reference: str = ""
    missed_users: int = 1000

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds is {list(self.seeds)}. Give one seed or more, each once.")
        if self.missed_users < 0:
            raise ConfigError(f"missed_users is {self.missed_users}. Look at 1 user or more, or at none: 0.")
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise ConfigError(f"metrics is {list(self.metrics)}. Name one metric or more, each once.")
        for metric in self.metrics:
            parse_metric(metric.removeprefix("id_"))


def _read(source: str) -> tuple[dict[str, Any], Path]:
    """The content of a suite, and the folder to which its paths are relative."""
    if source.lower().endswith(".toml"):
        path = Path(source)
        if not path.is_file():
            raise ConfigError(f"There is no suite file {source}. Check the path, or use a packaged suite by its name.")
        content, home = path.read_bytes(), path.parent
    else:
        known = packaged_suites()
        if source not in known:
            raise ConfigError(f"There is no suite called {source!r}. {nearest(source, known)} Or give a .toml file.")
        content, home = (files("tesserec") / "suites" / f"{source}.toml").read_bytes(), Path()
    return parse_toml(content, source), home


def _sources(tables: Mapping[str, Any], given: dict[str, str], home: Path, where: str) -> dict[str, Data]:
    if not tables:
        raise ConfigError(f"{where} has no data set. Add [data.NAME] with path = '...'.")
    if "" in given:
        if len(tables) > 1:
            raise ConfigError(f"{where} has the data sets {', '.join(tables)}. Say which: --data NAME=PATH.")
        given = {next(iter(tables)): given[""]}
    for name in given:
        if name not in tables:
            raise ConfigError(f"{where} has no data set {name!r}. {nearest(name, tables)}")
    found = {}
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise ConfigError(f"{where}: data.{name} is {table!r}. Write it as a table, [data.{name}].")
        data = build(Data, table, where=f"{where}, data.{name}")
        if name in given and not given[name]:
            raise ConfigError(f"{where}: --data {name}= has no path. Write --data {name}=PATH.")
        if name in given:
            data = replace(data, path=given[name], synthetic=None)
        elif data.path:
            data = replace(data, path=str(home / data.path))
        elif data.synthetic is None:
            raise ConfigError(
                f"{where} does not know where the data set {name} is. Prepare it (`tesserec prepare`) and say so: "
                f"--data {name}=PATH."
            )
        found[name] = data
    return found


def _files(known: Mapping[str, Any], given: dict[str, str], where: str) -> dict[str, str]:
    for name, path in given.items():
        if name not in known:
            wanted = nearest(name, known) if known else "It asks for none."
            raise ConfigError(f"{where} asks for no file {name!r}. {wanted}")
        if not Path(path).exists():
            raise ConfigError(f"--file {name}={path}: there is nothing at this path. Check it.")
    return {name: str(given.get(name, "")) for name in known}


def _method(
    table: Any,
    where: str,
    home: Path,
    earlier: Mapping[str, Method],
    data: Mapping[str, Data],
    paths: Mapping[str, str],
) -> Method:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} is {table!r}. Write it as a table, with recipe = '...'.")
    values = dict(table)
    published = {
        name: _published(figures, f"{where}, published.{name}")
        for name, figures in _table(values.pop("published", {}), f"{where}, published").items()
    }
    search = _search(_table(values.pop("search", {}), f"{where}, search"), f"{where}, search")
    for key in values:
        if key not in METHOD_KEYS:
            raise ConfigError(f"{where}: there is no setting {key!r}. {nearest(key, METHOD_KEYS)}")
    method = build(Method, values, where=where)
    for name in (*published, *(method.data or ())):
        if name not in data:
            raise ConfigError(f"{where}: there is no data set {name!r}. {nearest(name, data)}")
    for name in (name for setting in method.settings for name in PLACEHOLDER.findall(setting)):
        if name not in paths:
            raise ConfigError(f"{where}: {{{name}}} is no file of the suite. Add it to [files], with what it is.")
    if method.like:
        if method.like not in earlier:
            wanted = nearest(method.like, earlier) if earlier else "There is none."
            raise ConfigError(f"{where}: there is no earlier method {method.like!r}. {wanted}")
        base = earlier[method.like]
        method = replace(
            method,
            recipe=method.recipe or base.recipe,  # of a file: relative to the suite's folder already, and absolute then
            settings=(*base.settings, *method.settings),
            seeds=method.seeds or base.seeds,
        )
    if not method.recipe and not published:
        raise ConfigError(f"{where} has nothing to run and nothing to show. Give it a recipe or published figures.")
    recipe = str(home / method.recipe) if method.recipe.lower().endswith(".toml") else method.recipe
    note = " ".join(method.note.split())  # a line of the results
    return replace(method, recipe=recipe, note=note, published=published, search=search)


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} is {value!r}. Write it as a table.")
    return value


def _published(table: Any, where: str) -> Published:
    words, metrics = dict[str, str](), dict[str, float]()
    for key, value in _table(table, where).items():
        if key in ("source", "differs"):
            words[key] = str(value)
            continue
        parse_metric(key.removeprefix("id_"))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ConfigError(f"{where}.{key} is {value!r}. Give a number from 0 to 1.")
        metrics[key] = float(value)
    return Published(metrics=metrics, **words)


def _search(table: Mapping[str, Any], where: str, prefix: str = "") -> Space:
    """A search space; `training.learning_rate` may be written as tables within each other, as TOML reads dots."""
    found = dict[str, Range | tuple[Any, ...]]()
    for key, value in table.items():
        if isinstance(value, Mapping) and not {"low", "high"} & set(value):
            found |= _search(value, where, f"{prefix}{key}.")
        elif key == "seed":
            raise ConfigError(f"{where}.{prefix}{key}: seeds are draws and no settings to choose among. Leave it out.")
        elif isinstance(value, Mapping):
            if not {"low", "high"} <= set(value):
                raise ConfigError(f"{where}.{prefix}{key} is {value!r}. Give both ends: {{ low = .., high = .. }}.")
            whole = all(isinstance(value.get(end), int) for end in ("low", "high"))
            found[f"{prefix}{key}"] = build(Range, {"whole": whole, **value}, where=f"{where}.{prefix}{key}")
        elif isinstance(value, list) and value:
            found[f"{prefix}{key}"] = tuple(value)
        else:
            raise ConfigError(
                f"{where}.{prefix}{key} is {value!r}. Give a list of values, or {{ low = .., high = .., log = true }}."
            )
    return found
