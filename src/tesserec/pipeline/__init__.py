"""Recipes and runs: all stages from item texts to a report, cached and resumable."""

from tesserec.pipeline.recipe import Recipe, load_recipe, packaged_recipes
from tesserec.pipeline.run import Run, run

__all__ = ["Recipe", "Run", "load_recipe", "packaged_recipes", "run"]
