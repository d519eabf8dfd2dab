"""tesserec evaluate"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tesserec.cli.output import Json, TerminalProgress, show


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run made by `tesserec run`.")],
    part: Annotated[Literal["test", "validation"], typer.Option(help="Which cases.")] = "test",
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen", help="Items of the history are no candidates.")
    ] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Generative models: rank by scoring every item.")] = False,
    beam: Annotated[int | None, typer.Option(help="Generative models: rank by a beam of this width.")] = None,
    data: Annotated[Path | None, typer.Option(help="The data set, if it is no longer where it was.")] = None,
    out: Annotated[Path | None, typer.Option(help="Save the report, with every user's rank, into this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Evaluate the recommender of a run again, in another way than its recipe did."""
    from tesserec.artifacts import require_place
    from tesserec.evaluation import evaluate
    from tesserec.pipeline import Run

    opened = Run.open(run, data=data)
    if out is not None:
        require_place(out, kind="report")
    report = evaluate(
        opened.recommender,
        opened.split,
        part=part,
        exclude_seen=exclude_seen,
        exact=exact,
        beam_width=beam,
        progress=TerminalProgress(),
    )
    if out is not None:
        report.save(out)
    show(report.to_dict(), report.text(), as_json=as_json)
