"""Recommendation with semantic IDs: from a raw log to ranked items.

The package imports nothing heavy; ask for what you need from its parts, for instance
`from tesserec.data import Dataset` or `from tesserec.recommenders import load_recommender`.
"""

from tesserec.version import __version__

__all__ = ["__version__"]
