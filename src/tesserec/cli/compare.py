"""tesserec compare"""

from pathlib import Path
from typing import Annotated

import typer

from tesserec.cli.output import Json, show


def compare(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Finished runs, or folders of saved reports. Those that differ in their seed alone are one method; "
            "NAME=PATH names it."
        ),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="A metric to compare, such as ndcg@20; may be repeated. Default: recall@10 and ndcg@10."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="The method that the others are compared with; default: the best one.")
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            help="Measure how alike the items of a list are in these embeddings, an artefact or a run; default: those "
            "of the first run that has any."
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables in Markdown.")] = False,
    as_json: Json = False,
) -> None:
    """Finished runs side by side: what differs, and whether that could be chance."""
    from tesserec.evaluation.report_comparison import METRICS
    from tesserec.pipeline.comparison import compare_runs

    found = compare_runs(sources, metrics=metric or METRICS, reference=reference, embeddings=embeddings)
    show(found.to_dict(), found.markdown().rstrip() if markdown else found.text(), as_json=as_json)
