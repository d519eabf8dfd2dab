"""tesserec prepare"""

from pathlib import Path
from typing import Annotated, Any

import typer

from tesserec.cli.output import Json, TerminalProgress, report_lines, show


def prepare(
    source: Annotated[Path, typer.Argument(help="A log of interactions, or a folder with one and a table of items.")],
    out: Annotated[Path, typer.Option(help="Folder for the prepared data set.")],
    items: Annotated[Path | None, typer.Option(help="The table of items, if it lies elsewhere.")] = None,
    format: Annotated[str | None, typer.Option(help="The format, where it is not recognised.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="user=COLUMN,item=COLUMN,time=COLUMN,..., where not found.")
    ] = None,
    text_columns: Annotated[
        str | None, typer.Option(help="Columns of item text, separated by commas; else all.")
    ] = None,
    timestamp_unit: Annotated[str | None, typer.Option(help="s, ms, us or ns, where it is not recognised.")] = None,
    min_rating: Annotated[float | None, typer.Option(help="Drop events that are rated below.")] = None,
    k_core: Annotated[int | None, typer.Option(help="Keep users and items with so many events, until stable.")] = None,
    repeats: Annotated[str | None, typer.Option(help="Of a user and item: keep, exact, first or last.")] = None,
    ties: Annotated[str | None, typer.Option(help="Events at the same time: file (its order) or shuffled.")] = None,
    items_without_text: Annotated[str | None, typer.Option(help="keep or drop.")] = None,
    items_without_events: Annotated[str | None, typer.Option(help="keep or drop.")] = None,
    on_error: Annotated[str | None, typer.Option(help="Malformed lines: raise, or skip and count them.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of shuffled ties.")] = None,
    as_json: Json = False,
) -> None:
    """Turn a raw log into a data set: read, clean, filter, order; print what was dropped and why."""
    from tesserec import data
    from tesserec.config import build

    given: dict[str, Any] = {
        "format": format,
        "columns": columns,
        "text_columns": text_columns,
        "timestamp_unit": timestamp_unit,
        "min_rating": min_rating,
        "k_core": k_core,
        "repeats": repeats,
        "ties": ties,
        "items_without_text": items_without_text,
        "items_without_events": items_without_events,
        "on_error": on_error,
        "seed": seed,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    config = build(data.PrepareConfig, chosen, where="prepare")
    dataset = data.prepare(source, config=config, items=items, out=out, progress=TerminalProgress())
    sizes = {
        "users": len(dataset.user_ids),
        "items": len(dataset.catalogue),
        "interactions": dataset.n_interactions,
    }
    text = "\n".join(
        [*report_lines(dataset.report), f"saved to {out}: " + ", ".join(f"{n:,} {name}" for name, n in sizes.items())]
    )
    show({"dataset": str(out), "sizes": sizes, "report": dataset.report}, text, as_json=as_json)
