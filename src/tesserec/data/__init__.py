"""From raw logs to a prepared data set and its splits."""

from tesserec.data.catalogue import Catalogue
from tesserec.data.dataset import Dataset
from tesserec.data.join import join, join_datasets
from tesserec.data.prepare import PrepareConfig, from_frames, prepare
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Cases, Split, by_time, leave_one_out
from tesserec.data.synthetic import SyntheticConfig, plant, synthetic_catalogue

__all__ = [
    "Cases",
    "Catalogue",
    "Dataset",
    "PrepareConfig",
    "Sequences",
    "Split",
    "SyntheticConfig",
    "by_time",
    "from_frames",
    "join",
    "join_datasets",
    "leave_one_out",
    "plant",
    "prepare",
    "synthetic_catalogue",
]
