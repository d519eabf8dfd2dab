"""Suites of runs: methods x data sets x seeds, their results in one table with the published ones beside them."""

from tesserec.bench.bench import bench, collect
from tesserec.bench.finished import Finished
from tesserec.bench.merged import merged_before
from tesserec.bench.plan import Plan, plan
from tesserec.bench.results import Results
from tesserec.bench.suite import Suite
from tesserec.bench.suite_files import load_suite, packaged_suites

__all__ = [
    "Finished",
    "Plan",
    "Results",
    "Suite",
    "bench",
    "collect",
    "load_suite",
    "merged_before",
    "packaged_suites",
    "plan",
]
