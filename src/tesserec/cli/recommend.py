"""tesserec recommend"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tesserec.cli.output import Json, items_table, show


def recommend(
    run: Annotated[Path, typer.Argument(help="A run made by `tesserec run`.")],
    history: Annotated[str, typer.Option(help="Item ids, oldest first, separated by commas.")],
    k: Annotated[int, typer.Option("-k", help="How many items.")] = 10,
    allow: Annotated[str | None, typer.Option(help="Only these items: ids separated by commas.")] = None,
    deny: Annotated[str | None, typer.Option(help="None of these items: ids separated by commas.")] = None,
    exclude_seen: Annotated[bool, typer.Option("--exclude-seen", help="Nothing that is in the history.")] = False,
    data: Annotated[Path | None, typer.Option(help="The data set, if it is no longer where it was.")] = None,
    as_json: Json = False,
) -> None:
    """The items that someone with this history most likely takes next, with their titles."""
    from tesserec.pipeline import Run

    opened = Run.open(run, data=data)
    items = _ids(history) or []
    unknown = [item for item in items if item not in opened.recommender.fitted_catalogue]
    if unknown:
        print(f"not in the catalogue, passed over: {', '.join(unknown)}", file=sys.stderr)
    answer = opened.recommender.recommend([items], k, allow=_ids(allow), deny=_ids(deny), exclude_seen=exclude_seen)
    rows = opened.titled(answer)[0]
    by_popularity = bool(answer.by_popularity is not None and answer.by_popularity[0])
    text = items_table(rows)
    if by_popularity:
        text = f"nothing of the history is known: these are the most popular items\n{text}"
    found = {"recommendations": rows, "unknown_in_history": unknown, "by_popularity": by_popularity}
    show(found, text, as_json=as_json)


def _ids(text: str | None) -> list[str] | None:
    return None if text is None else [item.strip() for item in text.split(",") if item.strip()]
