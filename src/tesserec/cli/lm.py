"""tesserec lm: what only language models can be asked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tesserec.cli.output import Json, items_table, reporting, show

if TYPE_CHECKING:
    from tesserec.recommenders.lcrec import LCRec

lm = typer.Typer(
    name="lm",
    no_args_is_help=True,
    help="Language models: make a small one, find items by their text, write an item's text from its ID.",
)

Trained = Annotated[Path, typer.Argument(help="A run of lcrec made by `tesserec run`.")]
Data = Annotated[Path | None, typer.Option(help="The data set, if it is no longer where it was.")]


def new(
    data: Annotated[Path, typer.Option(help="A data set made by `tesserec prepare`, with item texts.")],
    out: Annotated[Path, typer.Option(help="Folder of the model.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, such as width=256 or n_layers=6; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights.")] = 0,
    as_json: Json = False,
) -> None:
    """Make a small untrained language model whose words are those of the items' texts; no download.

    The folder is loaded like any other: `tesserec run lcrec --set recommender.model=FOLDER`.
    """
    from tesserec.artifacts import require_place
    from tesserec.config import build, key_and_value, to_dict
    from tesserec.data import Dataset
    from tesserec.language.new import KIND, NewModelConfig, new_model
    from tesserec.language.prompts import corpus
    from tesserec.language.texts import item_texts

    values = dict(key_and_value(setting, example="width=256") for setting in settings or [])
    config = build(NewModelConfig, values, where="lm new")
    require_place(out, kind=KIND)
    new_model(corpus(item_texts(Dataset.load(data).items)), out, config, seed=seed)
    show(
        {"model": str(out), "seed": seed, **to_dict(config)},
        f"{out}: {config.architecture}, {config.n_layers} layers of width {config.width}, untrained",
        as_json=as_json,
    )


def find(
    run: Trained,
    text: Annotated[str, typer.Argument(help="A title or a description; it need not be that of any item.")],
    k: Annotated[int, typer.Option("-k", help="How many items.")] = 10,
    kind: Annotated[Literal["title", "description"], typer.Option(help="What the text is.")] = "title",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The items that a text names, by their semantic IDs: also items that nobody has taken yet."""
    from tesserec.pipeline import Run

    opened = Run.open(run, data=data)
    rows = opened.titled(_language_model(opened.recommender).find([text], k, kind=kind))[0]
    show({"found": rows}, items_table(rows), as_json=as_json)


def describe(
    run: Trained,
    items: Annotated[list[str], typer.Argument(help="Item ids.")],
    kind: Annotated[Literal["title", "description"], typer.Option(help="What to write.")] = "title",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """What the model writes of items, from their semantic IDs alone, beside their real titles."""
    from tesserec.pipeline import Run
    from tesserec.pipeline.run import titles
    from tesserec.tables import format_table

    opened = Run.open(run, data=data)
    written = _language_model(opened.recommender).describe(items, kind=kind)
    dataset = opened.split.dataset
    known = titles(dataset)
    real = [known[dataset.catalogue.index_of(item)] for item in items]
    found = [{"item_id": item, "written": text, "title": title} for item, text, title in zip(items, written, real)]
    table = [["item_id", "written", "title"], *([row["item_id"], row["written"], row["title"]] for row in found)]
    show({"described": found}, format_table(table, align="lll"), as_json=as_json)


def _language_model(recommender: object) -> "LCRec":
    from tesserec.errors import ConfigError
    from tesserec.recommenders.lcrec import LCRec

    if not isinstance(recommender, LCRec):
        raise ConfigError(
            f"This run's recommender is {getattr(recommender, 'method', recommender)}, which reads and writes no text. "
            "Give a run of lcrec."
        )
    return recommender


for verb in (new, find, describe):
    lm.command()(reporting(verb))
