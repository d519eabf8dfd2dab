"""The examples in docstrings are true."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import tesserec

ROOT = Path(tesserec.__file__).parent
MODULES = sorted(
    "tesserec." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text()
)


def test_there_are_examples():
    assert "tesserec.functional.metrics" in MODULES


@pytest.mark.parametrize("module", MODULES)
def test_examples_of(module):
    assert doctest.testmod(import_module(module)).failed == 0
