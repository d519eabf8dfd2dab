"""What docs/recipes.md and docs/evaluation.md show must run."""

import re
from pathlib import Path

from tesserec.data import SyntheticConfig, synthetic_catalogue
from tesserec.pipeline import load_recipe

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert found, f"{page} shows no {language}"
    return found


def test_the_examples_of_recipes_and_evaluation_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    synthetic_catalogue(SyntheticConfig(n_users=60, n_items=50)).save("data/shop")
    for page in ("recipes.md", "evaluation.md"):
        for block in blocks(page, "python"):
            exec(compile(block, page, "exec"), {})
    printed = capsys.readouterr().out
    assert printed.count("ndcg  ") == 4  # two reports, each with ndcg and id_ndcg
    assert "| sasrec | 1 |" in printed
    assert (tmp_path / "reports" / "sasrec" / "per_user.parquet").exists()


def test_the_recipe_file_that_is_shown_is_valid(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(blocks("recipes.md", "toml")[0])
    recipe = load_recipe(str(file))
    assert recipe.tokenizer is not None
    assert recipe.tokenizer.method == "rqvae"
