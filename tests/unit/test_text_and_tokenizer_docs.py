"""What docs/text.md and docs/tokenizers.md show must run, and they must name every method."""

import re
from pathlib import Path

import pytest

from tesserec.text import ENCODERS
from tesserec.tokenizers import TOKENIZERS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["text.md", "tokenizers.md"])
def test_the_python_of_the_page_runs(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})


def test_the_pages_name_every_encoder_and_every_tokenizer() -> None:
    for page, names in (("text.md", ENCODERS), ("tokenizers.md", TOKENIZERS)):
        for name in names:
            assert f"| `{name}` |" in (DOCS / page).read_text()
