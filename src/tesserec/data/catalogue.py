"""The catalogue: which items there are, and the way between an item's id and its row."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from tesserec.artifacts import fingerprint_bytes
from tesserec.errors import DataError
from tesserec.types import IntArray


class Catalogue:
    """N item ids in a fixed order; `item_index` (0 to N-1) is the row of an item everywhere in the library."""

    def __init__(self, item_ids: Sequence[str]) -> None:
        """
        Raises:
            DataError: an id occurs twice, or there is none.
        """
        self.item_ids = tuple(item_ids)
        if not self.item_ids:
            raise DataError("The catalogue is empty. At least one item is needed.")
        if len(self._rows) != len(self.item_ids):
            seen: set[str] = set()
            twice = [item for item in self.item_ids if item in seen or seen.add(item)]  # type: ignore[func-returns-value]
            raise DataError(
                f"{len(twice)} item ids occur more than once, the first being {twice[:3]}. Ids must be unique."
            )

    def __len__(self) -> int:
        return len(self.item_ids)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._rows

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    @cached_property
    def fingerprint(self) -> str:
        """Equal for two catalogues exactly when they hold the same ids in the same order."""
        return fingerprint_bytes("\n".join(self.item_ids).encode())

    def index_of(self, item_id: str) -> int:
        """The row of an item.

        Raises:
            DataError: no such item.
        """
        try:
            return self._rows[item_id]
        except KeyError:
            raise DataError(f"There is no item {item_id!r} in the catalogue of {len(self)} items.") from None

    def known(self, item_ids: Iterable[str]) -> IntArray:
        """Rows of those ids that the catalogue has, in the given order; others are left out."""
        return np.array([self._rows[item_id] for item_id in item_ids if item_id in self._rows], dtype=np.int64)
