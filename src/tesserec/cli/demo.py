"""tesserec demo"""

from pathlib import Path
from typing import Annotated

import typer

from tesserec.cli.output import Json, TerminalProgress, show


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the data set and the runs.")] = Path("demo"),
    as_json: Json = False,
) -> None:
    """The suite `quick` on a synthetic catalogue, a tear-sheet, recommendations: no network, a minute or two."""
    from tesserec.bench.demo import run_demo

    result = run_demo(out, progress=TerminalProgress())
    show(result.to_dict(), result.text(), as_json=as_json)
