"""Tear-sheets of several tokenizers of one catalogue side by side, and what stays from one seed to the next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tesserec.artifacts import fingerprint_json
from tesserec.config import to_dict, without_seeds
from tesserec.data.splits import Split
from tesserec.errors import ConfigError, DataError
from tesserec.evaluation.stability import Stability, stability
from tesserec.evaluation.tearsheet import (
    N_NEIGHBOURS,
    Agreement,
    PopularityThird,
    RelatedItems,
    TearSheet,
    inspect_ids,
    unexplained,
)
from tesserec.tables import NO_FIGURE, format_table
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.types import PathLike

if TYPE_CHECKING:
    from tesserec.tokenizers.base import ItemTokenizer

SHOWN_LEVELS = 4  # more are summed up in the tables


@dataclass(frozen=True)
class StablePair:
    """What two of the tokenizers have in common."""

    first: str
    second: str
    figures: Stability


@dataclass(frozen=True, eq=False)
class TearSheetComparison:
    """Tear-sheets by the tokenizers' names, in the order in which they were given.

    Attributes:
        sheets: one for each tokenizer.
        families: names of the tokenizers that differ in nothing but their seed, for each recipe that occurs so.
        pairs: the pairs whose stability was measured: those of the families, or all.
    """

    sheets: dict[str, TearSheet]
    families: tuple[tuple[str, ...], ...] = ()
    pairs: tuple[StablePair, ...] = ()

    def family_pairs(self, family: Sequence[str]) -> list[StablePair]:
        """The pairs within a family."""
        return [pair for pair in self.pairs if pair.first in family and pair.second in family]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "sheets": {name: sheet.to_dict() for name, sheet in self.sheets.items()},
            "families": [list(family) for family in self.families],
            "stability": [to_dict(pair) for pair in self.pairs],
        }

    def text(self) -> str:
        """The comparison for a terminal: tables with a row for each tokenizer."""
        n_items = next(iter(self.sheets.values())).items
        sections = [
            ("codes of each level, without an extra level", self._codes_rows()),
            ("IDs without an extra level, as shares of the items", self._collision_rows()),
            (f"{N_NEIGHBOURS} nearest embeddings that share the first codes", self._agreement_rows("neighbours")),
            ("items often taken together that share the first codes", self._agreement_rows("together")),
            ("head / mid / tail, each with a third of the training events", self._popularity_rows()),
            ("stability: from the first to the second tokenizer", self._stability_rows()),
        ]  # fmt: skip
        tables = [f"{title}\n{format_table(rows, align='lr')}" for title, rows in sections if len(rows) > 1]
        return "\n\n".join([f"{n_items:,} items, {len(self.sheets)} tokenizers", *tables])

    def plot(self, path: PathLike) -> None:
        """Draw the comparison, a colour for each tokenizer, into a .png, .svg or .pdf file.

        Raises:
            MissingDependencyError: matplotlib is not installed.
            ConfigError: the file cannot be written, or its suffix names no format of pictures.
        """
        from tesserec.evaluation.tearsheet_comparison_plot import draw

        draw(self, Path(path))

    def _codes_rows(self) -> list[list[str]]:
        rows = [["", "codes", "used", "perplexity", "distinct prefixes"]]
        for name, sheet in self.sheets.items():
            levels = [level for level in sheet.levels if not level.extra]
            sizes, used = [str(level.size) for level in levels], [str(level.used) for level in levels]
            perplexity = _levels([f"{level.perplexity:.1f}" for level in levels])
            prefixes = _levels([f"{count:,}" for count in sheet.prefixes[: len(levels)]])
            rows.append([name, _repeated(sizes), _repeated(used), perplexity, prefixes])
        return rows

    def _collision_rows(self) -> list[list[str]]:
        rows = [["", "distinct", "UIR", "DUP", "ICR", "of one text", "other", "largest", "test targets", "unexplained"]]
        for name, sheet in self.sheets.items():
            found = sheet.collisions
            same = None if found.identical_text_items is None else found.identical_text_items / sheet.items
            other = None if same is None else found.icr - same
            shares = [_share(value) for value in (found.uir, found.dup, found.icr, same, other)]
            rows.append([name, f"{found.distinct:,}", *shares, f"{found.largest_group}", _share(found.shared_targets),
                         _share(sheet.unexplained)])  # fmt: skip
        return rows

    def _agreement_rows(self, kind: str) -> list[list[str]]:
        """kind: the field of the tear-sheet, `neighbours` or `together`."""
        rows = [["", "1", "2", "3", "equal codes"]]
        for name, sheet in self.sheets.items():
            found: Agreement | None = getattr(sheet, kind)
            if found is not None:
                lifts = ["" if lift is None else f" (x{lift:.1f})" for lift in found.prefix_lift]
                cells = [f"{share:.4f}{lift}" for share, lift in zip(found.prefix, lifts)][:3]
                rows.append([name, *cells, *[NO_FIGURE] * (3 - len(cells)), f"{found.codes:.4f}"])
        return rows

    def _popularity_rows(self) -> list[list[str]]:
        rows = [["", "DIST", "ICR", "perplexity of first codes", "by events", "busiest first code"]]
        for name, sheet in self.sheets.items():
            if (found := sheet.popularity) is not None:
                thirds: list[PopularityThird] = [found.head, found.mid, found.tail]
                dist = " / ".join(_share(third.dist) for third in thirds)
                icr = " / ".join(_share(third.icr) for third in thirds)
                perplexity = " / ".join(
                    NO_FIGURE if third.perplexity is None else f"{third.perplexity:.1f}" for third in thirds
                )
                rows.append([name, dist, icr, perplexity, f"{found.perplexity_by_events:.1f}",
                             f"{found.largest_share_by_events:.2%} of events"])  # fmt: skip
        return rows

    def _stability_rows(self) -> list[list[str]]:
        rows = [["", "first codes changed", "the same, renamed", "adjusted Rand"]]
        for family in self.families:
            found = [pair.figures for pair in self.family_pairs(family)]
            if len(found) > 1:
                name = f"mean of {len(found)} pairs of {', '.join(family)}"
                rows.append([name, *_stability_cells(found)])
        rows += [[f"{pair.first} and {pair.second}", *_stability_cells([pair.figures])] for pair in self.pairs]
        return rows


def _stability_cells(found: Sequence[Stability]) -> list[str]:
    """Means over pairs, depth by depth."""
    fields = ([one.churn for one in found], [one.churn_relabelled for one in found], [one.rand for one in found])
    return [_levels([f"{value:.3f}" for value in np.mean(values, axis=0)]) for values in fields]


@dataclass(frozen=True, eq=False)
class Subject:
    """Semantic IDs to be judged, and what is known of their making."""

    semantic_ids: SemanticIds
    texts: Sequence[str] | None = None  # N, what the tokenizer read of every item
    embeddings: Embeddings | None = None  # what it was fitted on
    tokenizer: "ItemTokenizer | None" = None  # fitted on these embeddings
    recipe: Mapping[str, Any] = field(default_factory=dict)  # what decided the IDs beside `SemanticIds.config`


def compare_ids(
    subjects: Mapping[str, SemanticIds | Subject],
    *,
    texts: Sequence[str] | None = None,
    embeddings: Embeddings | None = None,
    split: Split | None = None,
    every_pair: bool = False,
    seed: int = 0,
) -> TearSheetComparison:
    """Judge several tokenizers' semantic IDs of one catalogue in the same way.

    Args:
        subjects: name -> IDs, with or without what is known of their making.
        texts: N item texts, for those subjects that have none.
        embeddings: in which nearest items are looked for, the same for all; None: in each subject's own.
        split: as `inspect_ids` takes it.
        every_pair: measure the stability of every pair, not only of those that differ in nothing but their seed.
        seed: of the items whose neighbours are looked at, and of the histories if there are very many.

    Raises:
        ConfigError: there is nothing to compare.
        DataError: IDs of different catalogues (the two are named), or what `inspect_ids` refuses.
    """
    if not subjects:
        raise ConfigError("There are no semantic IDs to compare. Give one or more.")
    known = {name: Subject(one) if isinstance(one, SemanticIds) else one for name, one in subjects.items()}
    ids = {name: subject.semantic_ids for name, subject in known.items()}
    require_one_catalogue(ids)
    related = RelatedItems(seed)
    sheets = {name: _sheet(subject, texts, embeddings, split, related) for name, subject in known.items()}
    families = same_recipe_families({name: {**ids[name].config, **subject.recipe} for name, subject in known.items()})
    pairs = [
        StablePair(first, second, stability(ids[first], ids[second]))
        for first, second in combinations(ids, 2)
        if every_pair or any(first in family and second in family for family in families)
    ]
    return TearSheetComparison(sheets, families, tuple(pairs))


def _sheet(
    subject: Subject,
    texts: Sequence[str] | None,
    embeddings: Embeddings | None,
    split: Split | None,
    related: RelatedItems,
) -> TearSheet:
    ids, own = subject.semantic_ids, subject.embeddings
    sheet = inspect_ids(
        ids,
        texts=subject.texts if subject.texts is not None else texts,
        embeddings=embeddings if embeddings is not None else own,
        split=split,
        related=related,
    )
    return replace(sheet, unexplained=unexplained(ids, own, subject.tokenizer))


def require_one_catalogue(semantic_ids: Mapping[str, SemanticIds]) -> None:
    """Refuse IDs of different items, naming the first two that differ."""
    (first, reference), *others = semantic_ids.items()
    for name, ids in others:
        if ids.catalogue.fingerprint != reference.catalogue.fingerprint:
            sizes = f"{len(reference.catalogue):,} and {len(ids.catalogue):,} items"
            raise DataError(
                f"{first} and {name} are of different catalogues ({sizes}, which differ or stand in another order). "
                "Compare semantic IDs of one data set."
            )


def same_recipe_families(recipes: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, ...], ...]:
    """Names of what differs in nothing but seeds; of equal seeds the first is named, and files are in no family."""
    members: dict[str, dict[str, str]] = {}  # recipe without seeds -> recipe with seeds -> name
    for name, recipe in recipes.items():
        if recipe and recipe.get("method") != "file":
            members.setdefault(fingerprint_json(without_seeds(recipe)), {}).setdefault(fingerprint_json(recipe), name)
    return tuple(tuple(names.values()) for names in members.values() if len(names) > 1)


def _levels(cells: Sequence[str]) -> str:
    """A cell of values per level; of many levels the first ones."""
    if len(cells) <= SHOWN_LEVELS:
        return " / ".join(cells)
    return " / ".join(cells[:SHOWN_LEVELS]) + f" / ... ({len(cells)} levels)"


def _repeated(cells: Sequence[str]) -> str:
    """The same, with equal values named once."""
    return f"{len(cells)} x {cells[0]}" if len(set(cells)) == 1 < len(cells) else _levels(cells)


def _share(value: float | None) -> str:
    return NO_FIGURE if value is None else f"{value:.4f}"
