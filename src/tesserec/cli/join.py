"""tesserec join"""

from pathlib import Path
from typing import Annotated

import typer

from tesserec.cli.output import Json, report_lines, show


def join(
    datasets: Annotated[list[Path], typer.Argument(help="Data sets made by `tesserec prepare`, two or more.")],
    out: Annotated[Path, typer.Option(help="New folder for the joined data set.")],
    names: Annotated[
        str | None, typer.Option(help="Names of the domains, separated by commas; else those of the folders.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make one data set of several, to train on several domains at once."""
    from tesserec import data

    joined = data.join(datasets, out, names=names.split(",") if names is not None else None)
    sizes = {"users": len(joined.user_ids), "items": len(joined.catalogue), "interactions": joined.n_interactions}
    text = "\n".join(
        [*report_lines(joined.report), f"saved to {out}: " + ", ".join(f"{n:,} {name}" for name, n in sizes.items())]
    )
    show({"dataset": str(out), "sizes": sizes, "report": joined.report}, text, as_json=as_json)
