"""Full ranking, reports with their protocol, and the tear-sheet of a tokenizer."""

from tesserec.evaluation.evaluate import CUTOFFS, evaluate
from tesserec.evaluation.report import Report, side_by_side

__all__ = ["CUTOFFS", "Report", "evaluate", "side_by_side"]
