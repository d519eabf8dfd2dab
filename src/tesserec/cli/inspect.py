"""tesserec inspect"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tesserec.cli.output import Json, show


def inspect(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Runs, semantic-ids artefacts, LETTER index JSON, or codes in .npy; NAME=PATH names one. Several are "
            "compared."
        ),
    ],
    data: Annotated[Path | None, typer.Option(help="The data set that the IDs belong to; a run knows its own.")] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(help="Look for nearest items in these embeddings: an artefact, or rows in .npy or .parquet."),
    ] = None,
    uncoded: Annotated[
        Literal["refuse", "reserve"],
        typer.Option(help="Items without a code in a file: an error, or one code for them."),
    ] = "refuse",
    stability: Annotated[
        bool,
        typer.Option("--stability", help="Compare every pair, not only those that differ in nothing but the seed."),
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Also draw it into this .png, .svg or .pdf file.")] = None,
    as_json: Json = False,
) -> None:
    """The tear-sheet of tokenizers: how codes are used, which items share an ID, what the codes preserve."""
    from tesserec.pipeline.inspection import inspect_many

    found = inspect_many(sources, data=data, embeddings=embeddings, uncoded=uncoded, every_pair=stability)
    result = found if len(found.sheets) > 1 else next(iter(found.sheets.values()))
    if plot is not None:
        result.plot(plot)
    show(result.to_dict(), result.text(), as_json=as_json)
