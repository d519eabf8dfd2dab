"""What docs/data.md shows must run, and what it says of defaults must be so."""

import re
from pathlib import Path

from tesserec.config import to_dict
from tesserec.data import PrepareConfig
from tesserec.data.readers import FORMATS

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def test_the_python_of_the_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/data.md", "exec"), {})


def test_the_page_names_every_format_and_the_right_defaults():
    for name in FORMATS:
        assert f"| `{name}` |" in PAGE
    table = dict(re.findall(r"^\| `(\w+)` \| `?(\w+)`? \| ", PAGE, flags=re.M))
    defaults = {name: str(value).lower() for name, value in to_dict(PrepareConfig()).items()}
    named = {name: value for name, value in table.items() if name in defaults}
    assert len(named) == 6
    assert named == {name: defaults[name] for name in named}
