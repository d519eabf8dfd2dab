"""tesserec recipes"""

from typing import Annotated

import typer

from tesserec.cli.output import Json, show


def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this recipe in full, defaults included.")] = None,
    as_json: Json = False,
) -> None:
    """List the recipes, a line each; or show one with all its settings."""
    from tesserec.pipeline import load_recipe, packaged_recipes

    if name is None:
        known = packaged_recipes()
        width = max(map(len, known))
        show(known, "\n".join(f"{recipe:{width}}  {summary}" for recipe, summary in known.items()), as_json=as_json)
        return
    recipe = load_recipe(name)
    show(recipe.to_dict(), recipe.text_form(), as_json=as_json)
