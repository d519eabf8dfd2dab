"""Full ranking, reports with their protocol, and the tear-sheets of tokenizers."""

from tesserec.evaluation.evaluate import CUTOFFS, check_ranking, evaluate, require_generative
from tesserec.evaluation.misses import Misses, why_missed
from tesserec.evaluation.report import Report
from tesserec.evaluation.report_comparison import ReportComparison, StatisticsConfig, compare_reports
from tesserec.evaluation.stability import Stability, stability
from tesserec.evaluation.tearsheet import TearSheet, inspect_ids
from tesserec.evaluation.tearsheet_comparison import Subject, TearSheetComparison, compare_ids

__all__ = [
    "CUTOFFS",
    "Misses",
    "Report",
    "ReportComparison",
    "Stability",
    "StatisticsConfig",
    "Subject",
    "TearSheet",
    "TearSheetComparison",
    "check_ranking",
    "compare_ids",
    "compare_reports",
    "evaluate",
    "inspect_ids",
    "require_generative",
    "stability",
    "why_missed",
]
