"""tesserec bench"""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tesserec.cli.output import Json, TerminalProgress, show


def bench(
    suite: Annotated[
        str | None, typer.Argument(help="A packaged suite (without a name: they are listed) or a .toml file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of runs and results; a suite goes on there.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH of a prepared data set; only PATH where the suite has one.")
    ] = None,
    file: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH of a further file that a method of the suite reads.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value for every method that has the section.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Run methods whose name contains this; may be repeated.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Run only these of the suite's seeds, such as 0,1.")] = None,
    workers: Annotated[int, typer.Option(help="Runs at a time, each with a share of the cores and GPUs.")] = 1,
    stages: Annotated[
        Path | None, typer.Option(help="Folder of stages that several suites share; else OUT/stages.")
    ] = None,
    merge: Annotated[
        list[str] | None, typer.Option(help="METHOD=PATH of a run or report made elsewhere, to stand in the tables.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Check everything, print what would be run, run nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare methods: a suite of recipes on data sets over seeds, shared stages made once, resumable."""
    from tesserec import bench as suites
    from tesserec.bench.crew import require_room
    from tesserec.errors import ConfigError
    from tesserec.pipeline.sources import name_and_path

    if suite is None:
        known = suites.packaged_suites()
        width = max(map(len, known))
        show(known, "\n".join(f"{name:{width}}  {summary}" for name, summary in known.items()), as_json=as_json)
        return
    named = [name_and_path(entry) for entry in data or []]
    sources = {name: str(path) for name, path in named}
    if len(sources) < len(named):
        raise ConfigError("--data names a data set twice. Give each one once, as NAME=PATH.")
    loaded = suites.load_suite(suite, data=sources, files=dict(_pairs(file or [], "--file")), settings=settings or [])
    folder = out if out is not None else Path("bench") / loaded.name
    merged = _pairs(merge or [], "--merge")
    try:
        chosen = [int(seed) for seed in seeds.split(",")] if seeds is not None else None
    except ValueError:
        raise ConfigError(f"--seeds is {seeds!r}. Give whole numbers separated by commas, such as 0,1.") from None
    require_room(workers)
    planned = suites.plan(loaded, folder, only=only or [], seeds=chosen, merge=merged)
    if plan:
        show(planned.to_dict(), planned.text(), as_json=as_json)
        return
    merges = list(dict.fromkeys([*suites.merged_before(folder), *(merge or [])]))
    repeated = {"--data": data, "--file": file, "--set": settings, "--merge": merges}
    if not any(planned.finished(job) for job in planned.jobs if job not in planned.chosen):  # else it repeats them, too
        repeated |= {"--only": only, "--seeds": [seeds] if seeds is not None else []}
    options = [f"{option}={value}" for option, values in repeated.items() for value in values or []]
    options += [f"--stages={stages}"] if stages is not None else []
    command = shlex.join(["tesserec", "bench", suite, f"--out={folder}", *options, f"--workers={workers}"])
    results = suites.bench(planned, workers=workers, stages=stages, command=command, progress=TerminalProgress())
    show(results.to_dict(), results.text(), as_json=as_json)
    if results.failures:
        raise typer.Exit(1)


def _pairs(entries: list[str], option: str) -> list[tuple[str, str]]:
    from tesserec.errors import ConfigError

    pairs = []
    for entry in entries:
        name, equals, path = entry.partition("=")
        if not equals or not name.strip() or not name.isprintable() or not path:
            raise ConfigError(f"{option} {entry!r} is no NAME=PATH. Write it as in {option} name=folder/file.")
        pairs.append((name, path))
    return pairs
