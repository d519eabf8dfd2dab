"""The tear-sheet of a tokenizer: what its semantic IDs keep of the catalogue, before a recommender is trained on them.

It rejects broken IDs (unused codes, items that cannot be told apart, prefixes that mean nothing); it does not say which
of two healthy tokenizers recommends better. Definitions: docs/tokenizers.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tesserec.config import to_dict
from tesserec.data.splits import Split
from tesserec.errors import DataError
from tesserec.functional.id_statistics import (
    Pairs,
    chance_agreement,
    co_occurrences,
    entropy_bits,
    gini,
    nearest_neighbours,
    popularity_thirds,
    prefix_groups,
)
from tesserec.tables import format_table
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.types import IntArray, PathLike

if TYPE_CHECKING:
    from tesserec.tokenizers.base import ItemTokenizer

N_NEIGHBOURS = 10  # nearest items in the embedding space
N_PROBES = 2000  # items whose neighbours are looked at, drawn by the seed
SHOWN_DEPTHS = 5  # prefix depths in the printed table, and the last one
N_TOGETHER = 20  # most frequent companions of an item
MAX_PAIRS = 5_000_000  # of items in the same histories


@dataclass(frozen=True)
class LevelUse:
    """How the codes of one level are used."""

    size: int  # codewords
    used: int  # codewords that some item has
    entropy_bits: float
    perplexity: float  # 2 to the entropy: as many equally frequent codes would be as even
    gini: float  # inequality of the used codes: 0 where all are equally frequent
    largest_share: float  # of the items that have the most frequent code
    extra: bool  # whether this is the level that tells colliding items apart, whose codes mean nothing


@dataclass(frozen=True)
class Sharing:
    """How items share their first d codes."""

    icr: float  # share of items that share them with another one
    largest_group: int


@dataclass(frozen=True)
class Collisions:
    """Items that share all their codes, an extra level left aside."""

    distinct: int  # code tuples
    icr: float  # items in collision: share of items that share their codes with another
    dup: float  # surplus items: 1 - distinct / items
    dist: float  # distinct / items
    uir: float  # uniquely identified: share of items that share with none, 1 - icr
    groups: int  # tuples with two items or more
    largest_group: int
    entropy_share: float  # entropy of the code tuples / that of an ID for every item
    gini: float  # inequality of the groups' sizes, those of one item included
    identical_text_groups: int | None  # groups whose items all have one text, which no tokenizer could tell apart
    identical_text_items: int | None  # items in those groups
    group_sizes: dict[int, int]  # items in a group -> groups
    identical_text_group_sizes: dict[int, int] | None  # the same of the groups of one text
    shared_targets: float | None  # share of test targets that share their codes with another item
    target_ceiling: float | None  # recall@1 of a model that always finds the target's ID: mean of 1 / items sharing it


@dataclass(frozen=True)
class Agreement:
    """How often related items share codes, against two items drawn at random."""

    pairs: int
    prefix: tuple[float, ...]  # share of pairs with the same first 1, 2, ... codes
    prefix_chance: tuple[float, ...]
    prefix_lift: tuple[float | None, ...]  # prefix / prefix_chance; None where chance is 0
    codes: float  # mean share of equal codes, place by place
    codes_chance: float


@dataclass(frozen=True)
class PopularityThird:
    """The items that carry a third of the training events; figures are None where there is no such item."""

    items: int
    events: float  # share of the training events; a third only roughly, as items of equal counts stay together
    dist: float | None  # distinct IDs / items, among these items alone
    icr: float | None  # share of these items that share their codes with any other item
    perplexity: float | None  # of the first codes of these items


@dataclass(frozen=True)
class Popularity:
    """Whether popular and rare items are named equally well; an extra level is left aside."""

    head: PopularityThird  # the most popular items
    mid: PopularityThird
    tail: PopularityThird  # the least popular ones, those without events included
    perplexity_by_events: float  # of the first codes, an item weighing as much as it has training events
    largest_share_by_events: float  # of the training events that the busiest first code carries
    mean_events: float  # training events per item
    mean_events_of_colliding: float | None  # the same of items that share their codes; None if there are none


@dataclass(frozen=True)
class TearSheet:
    """See the fields' classes; parts that lack their input are None."""

    items: int
    levels: tuple[LevelUse, ...]
    prefixes: tuple[int, ...]  # distinct prefixes of 1, 2, ... codes
    sharing: tuple[Sharing, ...]  # of the first 1, 2, ... codes, without an extra level
    collisions: Collisions
    unexplained: float | None  # squared reconstruction error / squared distance from the mean embedding
    neighbours: Agreement | None  # nearest items in the embedding space
    together: Agreement | None  # items that often are in the same training histories
    popularity: Popularity | None
    code_counts: tuple[tuple[int, ...], ...]  # per level, items of each used code, falling

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return to_dict(self)

    def text(self) -> str:
        """The tear-sheet for a terminal."""
        parts = [self._levels_text(), self._collisions_text(), self._agreement_text(), self._popularity_text()]
        return "\n\n".join(part for part in parts if part)

    def plot(self, path: PathLike) -> None:
        """Draw the tear-sheet as four panels into a .png, .svg or .pdf file.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        from tesserec.evaluation.tearsheet_plot import draw

        draw(self, Path(path))

    def _levels_text(self) -> str:
        rows = [["level", "codes", "used", "perplexity", "entropy", "largest share", "prefixes"]]
        for number, (level, distinct) in enumerate(zip(self.levels, self.prefixes, strict=True), start=1):
            name = f"{number} (extra)" if level.extra else str(number)
            used = f"{level.used} ({level.used / level.size:.0%})"
            rows.append([name, str(level.size), used, f"{level.perplexity:.1f}", f"{level.entropy_bits:.2f} bits",
                         f"{level.largest_share:.2%}", f"{distinct:,}"])  # fmt: skip
        return f"{self.items:,} items\n" + format_table(rows, align="lr")

    def _collisions_text(self) -> str:
        found = self.collisions
        name = "distinct IDs without the extra level" if self.levels[-1].extra else "distinct IDs"
        lines = [
            f"{name}: {found.distinct:,} (DIST {found.dist:.4f}, DUP {found.dup:.4f})",
            f"items sharing theirs: ICR {found.icr:.4f}, {found.groups:,} groups, the largest of {found.largest_group}",
        ]
        if found.identical_text_groups is not None:
            lines.append(
                f"of these groups, {found.identical_text_groups:,} with {found.identical_text_items:,} items have one "
                "text for all their items, which no tokenizer can tell apart"
            )
        if found.shared_targets is not None:
            lines.append(
                f"test targets sharing theirs: {found.shared_targets:.4f}; a model that finds every target's ID has "
                f"recall@1 {found.target_ceiling:.4f}"
            )
        if self.unexplained is not None:
            lines.append(f"variance of the embeddings that the codes do not explain: {self.unexplained:.1%}")
        return "\n".join(lines)

    def _agreement_text(self) -> str:
        n_semantic = sum(not level.extra for level in self.levels)
        shown = [depth for depth in range(n_semantic) if depth < SHOWN_DEPTHS or depth == n_semantic - 1]
        rows = [["pairs that share the first codes", *(str(depth + 1) for depth in shown), "equal codes"]]
        found: Agreement | None = None
        for name, related in (
            (f"{N_NEIGHBOURS} nearest embeddings", self.neighbours),
            ("often taken together", self.together),
        ):
            if related is not None:
                found = related
                lifts = ["" if lift is None else f" (x{lift:.1f})" for lift in found.prefix_lift]
                cells = [f"{found.prefix[depth]:.4f}{lifts[depth]}" for depth in shown]
                rows.append([name, *cells, f"{found.codes:.4f}"])
        if found is None:
            return "no embeddings or histories were given to compare with"
        cells = [f"{found.prefix_chance[depth]:.4f}" for depth in shown]
        rows.append(["two random items", *cells, f"{found.codes_chance:.4f}"])
        return format_table(rows, align="lr")

    def _popularity_text(self) -> str:
        if self.popularity is None:
            return ""
        rows = [["items by training events", "items", "events", "DIST", "ICR", "perplexity of first codes"]]
        for name in ("head", "mid", "tail"):
            third: PopularityThird = getattr(self.popularity, name)
            figures = (third.dist, third.icr)
            cells = ["" if value is None else f"{value:.4f}" for value in figures]
            perplexity = "" if third.perplexity is None else f"{third.perplexity:.1f}"
            rows.append([name, f"{third.items:,}", f"{third.events:.0%}", *cells, perplexity])
        found = self.popularity
        busiest = f"the busiest carries {found.largest_share_by_events:.2%} of them"
        lines = [
            format_table(rows, align="lr"),
            f"first codes weighed by training events: perplexity {found.perplexity_by_events:.1f}, {busiest}",
        ]
        if found.mean_events_of_colliding is not None:
            lines.append(
                f"training events per item: {found.mean_events:.1f}, of items that share their ID "
                f"{found.mean_events_of_colliding:.1f}"
            )
        return "\n".join(lines)


class RelatedItems:
    """Pairs of items that should share codes, found once for all tokenizers that are judged by them."""

    def __init__(self, seed: int = 0) -> None:
        """
        Args:
            seed: of the items whose neighbours are looked at, and of the histories if there are very many.
        """
        self.seed = seed
        self._found: dict[tuple[str, ...], Pairs] = {}

    def neighbours(self, embeddings: Embeddings) -> Pairs:
        """The nearest items of some items."""
        key = ("neighbours", embeddings.fingerprint)
        if key not in self._found:
            self._found[key] = _neighbours(embeddings, self.seed)
        return self._found[key]

    def together(self, split: Split) -> Pairs:
        """The most frequent companions of every item in the training part."""
        key = ("together", split.name, split.dataset.fingerprint)
        if key not in self._found:
            self._found[key] = co_occurrences(
                split.train, split.n_items, top=N_TOGETHER, max_pairs=MAX_PAIRS, seed=self.seed
            )
        return self._found[key]


def semantic_levels(ids: SemanticIds) -> int:
    """How many levels mean something: all but one that only tells colliding items apart."""
    return ids.n_levels - (ids.collision_policy == "extra-level")


def inspect_ids(
    semantic_ids: SemanticIds,
    *,
    texts: Sequence[str] | None = None,
    embeddings: Embeddings | None = None,
    tokenizer: "ItemTokenizer | None" = None,
    split: Split | None = None,
    related: RelatedItems | None = None,
) -> TearSheet:
    """Judge semantic IDs.

    Args:
        texts: N item texts, to tell collisions of identical texts from the others.
        embeddings: what the IDs were made from, to see what they keep of it.
        tokenizer: the fitted tokenizer that made them, to measure its reconstruction of `embeddings`.
        split: to see whether items that users take together share codes, and how popular and rare items fare, by its
            training part alone; and which targets of its test part share their ID.
        related: give the same to several calls, and pairs of related items are looked for once.

    Raises:
        DataError: texts, embeddings or split are of another catalogue.
    """
    catalogue = semantic_ids.catalogue
    if texts is not None and len(texts) != len(catalogue):
        raise DataError(
            f"There are {len(texts)} texts for {len(catalogue)} items. Give one per item, in catalogue order."
        )
    for name, other in (("embeddings", embeddings), ("split", split)):
        of = getattr(other, "catalogue", None) or getattr(getattr(other, "dataset", None), "catalogue", None)
        if of is not None and of.fingerprint != catalogue.fingerprint:
            raise DataError(f"The {name} and the semantic IDs are of different catalogues. Give those of one data set.")
    related = related or RelatedItems()
    n_semantic = semantic_levels(semantic_ids)
    groups = prefix_groups(semantic_ids.codes)  # (L, N)
    whole = groups[n_semantic - 1]  # (N,) the group of items with all codes equal
    counts = [
        np.bincount(column, minlength=size)
        for column, size in zip(semantic_ids.codes.T, semantic_ids.codebook_sizes, strict=True)
    ]
    semantic_codes = semantic_ids.codes[:, :n_semantic]

    def agreement(pairs: Pairs) -> Agreement | None:
        return _agreement(pairs, groups[:n_semantic], semantic_codes) if len(pairs.left) else None

    return TearSheet(
        items=len(catalogue),
        levels=tuple(_level_use(count, level == n_semantic) for level, count in enumerate(counts)),
        prefixes=tuple(int(group.max()) + 1 for group in groups),
        sharing=tuple(_sharing(group) for group in groups[:n_semantic]),
        collisions=_collisions(whole, texts, split.test.targets if split is not None else None),
        unexplained=unexplained(semantic_ids, embeddings, tokenizer),
        neighbours=agreement(related.neighbours(embeddings)) if embeddings is not None else None,
        together=agreement(related.together(split)) if split is not None else None,
        popularity=_popularity(groups[0], whole, split.train_counts) if split is not None else None,
        code_counts=tuple(tuple(np.sort(count[count > 0])[::-1].tolist()) for count in counts),
    )


def _level_use(counts: IntArray, extra: bool) -> LevelUse:
    bits = entropy_bits(counts)
    share = float(counts.max() / counts.sum())
    return LevelUse(len(counts), int((counts > 0).sum()), bits, float(2**bits), gini(counts), share, extra)


def _sharing(group: IntArray) -> Sharing:
    sizes = np.bincount(group)
    return Sharing(icr=float(sizes[sizes > 1].sum() / len(group)), largest_group=int(sizes.max()))


def _collisions(group: IntArray, texts: Sequence[str] | None, targets: IntArray | None) -> Collisions:
    sizes = np.bincount(group)
    n_items, distinct, colliding = len(group), len(sizes), sizes > 1
    icr = float(sizes[colliding].sum() / n_items)
    identical: IntArray | None = None  # rows of colliding groups whose items all have one text
    if texts is not None:
        number = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        text = np.array([number[text] for text in texts])
        n_texts = np.bincount(np.unique(group * len(number) + text) // len(number))  # distinct texts per group
        identical = np.flatnonzero(colliding & (n_texts == 1))
    return Collisions(
        distinct=distinct,
        icr=icr,
        dup=1 - distinct / n_items,
        dist=distinct / n_items,
        uir=1 - icr,
        groups=int(colliding.sum()),
        largest_group=int(sizes.max()),
        entropy_share=entropy_bits(sizes) / float(np.log2(n_items)) if n_items > 1 else 1.0,
        gini=gini(sizes),
        identical_text_groups=None if identical is None else len(identical),
        identical_text_items=None if identical is None else int(sizes[identical].sum()),
        group_sizes=_histogram(sizes[colliding]),
        identical_text_group_sizes=None if identical is None else _histogram(sizes[identical]),
        shared_targets=None if targets is None else float(colliding[group[targets]].mean()),
        target_ceiling=None if targets is None else float((1 / sizes[group[targets]]).mean()),
    )


def _histogram(sizes: IntArray) -> dict[int, int]:
    values, frequency = np.unique(sizes, return_counts=True)
    return dict(zip(values.tolist(), frequency.tolist(), strict=True))


def _popularity(first_code: IntArray, group: IntArray, events: IntArray) -> Popularity | None:
    """Figures by training events (N,); None if there are none."""
    if not events.any():
        return None
    colliding = np.bincount(group)[group] > 1  # (N,)
    third_of_item = popularity_thirds(events)

    def third(number: int) -> PopularityThird:
        of_third = third_of_item == number
        n_items = int(of_third.sum())
        return PopularityThird(
            items=n_items,
            events=float(events[of_third].sum() / events.sum()),
            dist=len(np.unique(group[of_third])) / n_items if n_items else None,
            icr=float(colliding[of_third].mean()) if n_items else None,
            perplexity=float(2 ** entropy_bits(np.bincount(first_code[of_third]))) if n_items else None,
        )

    traffic = np.bincount(first_code, weights=events)  # events of each first code
    return Popularity(
        head=third(0),
        mid=third(1),
        tail=third(2),
        perplexity_by_events=float(2 ** entropy_bits(traffic)),
        largest_share_by_events=float(traffic.max() / traffic.sum()),
        mean_events=float(events.mean()),
        mean_events_of_colliding=float(events[colliding].mean()) if colliding.any() else None,
    )


def unexplained(ids: SemanticIds, embeddings: Embeddings | None, tokenizer: "ItemTokenizer | None") -> float | None:
    """Squared error of the tokenizer's reconstruction / squared distance of the embeddings from their mean."""
    if embeddings is None or tokenizer is None:
        return None
    x = embeddings.vectors.astype(np.float64)
    error = ((x - tokenizer.reconstruct(ids.codes)) ** 2).sum()
    return float(error / ((x - x.mean(axis=0)) ** 2).sum())


def _neighbours(embeddings: Embeddings, seed: int) -> Pairs:
    vectors = np.asarray(embeddings.vectors).reshape(len(embeddings.catalogue), -1)  # attributes side by side
    with_text = np.flatnonzero(np.any(vectors != 0, axis=1))
    chosen = np.random.default_rng(seed).permutation(with_text)[:N_PROBES]
    return nearest_neighbours(vectors, chosen, min(N_NEIGHBOURS, len(vectors) - 1))


def _agreement(pairs: Pairs, groups: IntArray, codes: IntArray) -> Agreement:
    prefix = tuple(pairs.agreement(group) for group in groups)
    chance = tuple(chance_agreement(group) for group in groups)
    return Agreement(
        pairs=len(pairs.left),
        prefix=prefix,
        prefix_chance=chance,
        prefix_lift=tuple(value / base if base else None for value, base in zip(prefix, chance, strict=True)),
        codes=float(np.mean([pairs.agreement(column) for column in codes.T])),
        codes_chance=float(np.mean([chance_agreement(column) for column in codes.T])),
    )
