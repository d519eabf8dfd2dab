"""docs/reproduction.md against the figures that it sets side by side."""

from pathlib import Path

import pytest

from tesserec.bench import load_suite

DOCS = Path(__file__).parent.parent.parent / "docs"
EXPLAINED_ABOVE = 0.05  # of the published figure


def rows() -> list[tuple[str, list[str]]]:
    """(suite, cells) of every row with figures; a heading names the suite of the rows below it."""
    found, suite = [], ""
    for line in (DOCS / "reproduction.md").read_text().splitlines():
        if line.startswith("## ") and "`" in line:
            suite = line.split("`")[1]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[1].startswith("."):
            found.append((suite, cells))
    assert len(found) >= 7
    return found


@pytest.mark.parametrize(("suite", "cells"), rows(), ids=lambda value: value if isinstance(value, str) else value[0])
def test_a_row_of_reproduction_agrees_with_suite_and_results(suite, cells):
    name, *figures, why = cells
    loaded = load_suite(suite, data={"": "."})
    published = loaded.methods[name].published[next(iter(loaded.data))].metrics
    lines = [line for line in (DOCS / "results.md").read_text().splitlines() if line.startswith("| ")]
    gaps = []
    for metric, (theirs, ours, gap) in (("recall@10", figures[:3]), ("ndcg@10", figures[3:])):
        assert published[metric] == float(theirs)
        assert any(f"| {ours} " in line and line.startswith(f"| {name} |") for line in lines)
        gaps.append(float(ours) / float(theirs) - 1)
        assert gap == f"{gaps[-1]:+.1%}"
    assert bool(why) == any(abs(gap) > EXPLAINED_ABOVE for gap in gaps), (
        "a gap without a reason, or a reason without one"
    )
