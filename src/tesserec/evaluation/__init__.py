"""Full ranking, reports with their protocol, and the tear-sheet of a tokenizer."""

from tesserec.evaluation.evaluate import CUTOFFS, evaluate
from tesserec.evaluation.report import Report, side_by_side
from tesserec.evaluation.tearsheet import TearSheet, inspect_ids

__all__ = ["CUTOFFS", "Report", "TearSheet", "evaluate", "inspect_ids", "side_by_side"]
