"""What docs/decoding.md shows must run and print what it says."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "decoding.md"


def test_examples_of_the_decoding_page_run() -> None:
    failed, attempted = doctest.testfile(str(PAGE), module_relative=False)
    assert (failed, attempted > 15) == (0, True)
