"""tesserec inspect"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tesserec.cli.output import Json, show


def inspect(
    source: Annotated[
        Path, typer.Argument(help="A run, a semantic-ids artefact, a LETTER index JSON, or codes in .npy.")
    ],
    data: Annotated[Path | None, typer.Option(help="The data set that the IDs belong to; a run knows its own.")] = None,
    uncoded: Annotated[
        Literal["refuse", "reserve"],
        typer.Option(help="Items without a code in a file: an error, or one code for them."),
    ] = "refuse",
    plot: Annotated[Path | None, typer.Option(help="Also draw the tear-sheet into this .png or .pdf file.")] = None,
    as_json: Json = False,
) -> None:
    """The tear-sheet of a tokenizer: how its codes are used, which items share an ID, what the codes preserve."""
    from tesserec.pipeline.inspection import inspect

    sheet = inspect(source, data=data, uncoded=uncoded)
    if plot is not None:
        sheet.plot(plot)
    show(sheet.to_dict(), sheet.text(), as_json=as_json)
