"""tesserec demo"""

from pathlib import Path
from typing import Annotated

import typer

from tesserec.cli.output import Json, TerminalProgress, show


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the data set and the runs.")] = Path("demo"),
    as_json: Json = False,
) -> None:
    """The whole flow on a synthetic catalogue: no network, a minute or two on two cores."""
    from tesserec.pipeline.demo import run_demo

    result = run_demo(out, progress=TerminalProgress())
    show(result.to_dict(), result.text(), as_json=as_json)
