"""tesserec misses"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tesserec.cli.output import Json, TerminalProgress, show


def misses(
    run: Annotated[Path, typer.Argument(help="A run of a generative model, made by `tesserec run`.")],
    part: Annotated[
        Literal["validation", "test"],
        typer.Option(help="Which cases; what is chosen by the answer is chosen on validation."),
    ] = "validation",
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen", help="Items of the history are no candidates.")
    ] = False,
    beam: Annotated[int | None, typer.Option(help="Width of the beam; default: the recommender's own.")] = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Also score every prefix: exact places, and widths that are certain. Slow."),
    ] = False,
    users: Annotated[int | None, typer.Option(help="Look at so many users, drawn by --seed; default: all.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    data: Annotated[Path | None, typer.Option(help="The data set, if it is no longer where it was.")] = None,
    out: Annotated[Path | None, typer.Option(help="Save all this, with every user's, into this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Why a generative model missed: where its beam lost the targets, and what it thought of them."""
    from tesserec.artifacts import require_place
    from tesserec.evaluation import why_missed
    from tesserec.pipeline import Run

    opened = Run.open(run, data=data)
    if out is not None:
        require_place(out, kind="misses")
    found = why_missed(
        opened.recommender,
        opened.split,
        part=part,
        exclude_seen=exclude_seen,
        beam_width=beam,
        exact=exact,
        n_users=users,
        seed=seed,
        progress=TerminalProgress(),
    )
    if out is not None:
        found.save(out, sources={"recommender": opened.about["stages"]["recommender"]["fingerprint"]})
    show(found.to_dict(), found.text(), as_json=as_json)
