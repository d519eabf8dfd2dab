"""tesserec run"""

from pathlib import Path
from typing import Annotated

import typer

from tesserec.cli.output import Json, TerminalProgress, show


def run(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (see `tesserec recipes`) or a .toml file.")],
    data: Annotated[Path, typer.Option(help="A data set made by `tesserec prepare`.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted or changed run goes on there.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value, or tokenizer=pq; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Carry out a recipe on a data set: all stages, cached and resumable, up to the report."""
    from tesserec import pipeline

    finished = pipeline.run(pipeline.load_recipe(recipe, settings or []), data, out, progress=TerminalProgress())
    show({"run": str(out), **finished.report.to_dict()}, finished.report.text(), as_json=as_json)
