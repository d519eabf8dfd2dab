"""Full ranking, reports with their protocol, and the tear-sheets of tokenizers."""

from tesserec.evaluation.comparison import Comparison, Subject, compare_ids
from tesserec.evaluation.evaluate import CUTOFFS, check_ranking, evaluate, require_generative
from tesserec.evaluation.report import Report, side_by_side
from tesserec.evaluation.stability import Stability, stability
from tesserec.evaluation.tearsheet import TearSheet, inspect_ids

__all__ = [
    "CUTOFFS",
    "Comparison",
    "Report",
    "Stability",
    "Subject",
    "TearSheet",
    "check_ranking",
    "compare_ids",
    "evaluate",
    "inspect_ids",
    "require_generative",
    "side_by_side",
    "stability",
]
