"""The tear-sheet of the LETTER authors' released IDs, against published figures.

Counts, ICR, DUP, prefixes, entropies and Gini indices: SIDInspector's definitions (arXiv 2606.10375) on the released
index files; perplexities: a report on the same files. Agreement of items taken together: SIDInspector's probe, which
breaks ties by item number; here they are shared, which is the expectation over random orders. The probe as published
is computed beside ours, from counts of its own.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tesserec.data import leave_one_out, prepare
from tesserec.data.catalogue import Catalogue
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split
from tesserec.evaluation import TearSheet, inspect_ids
from tesserec.functional.id_statistics import prefix_groups
from tesserec.tokenizers.imports import read_semantic_ids
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.types import IntArray

pytestmark = pytest.mark.data

TOP = 20  # companions of an item


@pytest.fixture
def beauty(real_data: Path) -> tuple[SemanticIds, Split]:
    split = leave_one_out(prepare(real_data / "beauty"))
    return read_semantic_ids(real_data / "beauty" / "Beauty.index.json", split.dataset.catalogue), split


def test_ids_of_beauty(beauty: tuple[SemanticIds, Split]) -> None:
    ids, split = beauty
    sheet = inspect_ids(ids, split=split)
    found = sheet.collisions
    assert (found.distinct, found.largest_group) == (12_088, 3)
    assert round(found.icr * sheet.items) == 24  # items in collisions
    assert found.icr == pytest.approx(0.0019833, abs=5e-8)
    assert found.dup == pytest.approx(0.0010743, abs=5e-8)
    assert found.gini == pytest.approx(0.0011, abs=5e-5)
    assert found.entropy_share == pytest.approx(0.9998, abs=5e-5)
    assert found.target_ceiling == pytest.approx(0.9988, abs=5e-5)
    assert sheet.prefixes == (197, 7_931, 11_696, 12_088)
    assert [level.used for level in sheet.levels] == [197, 256, 256, 256]
    assert sheet.levels[0].perplexity == pytest.approx(82.7, abs=0.05)
    assert all(240 <= level.perplexity < 249 for level in sheet.levels[1:])  # published as 240 to 248
    assert [round(level.entropy_bits, 2) for level in sheet.levels] == [6.37, 7.96, 7.95, 7.95]
    assert [round(level.gini, 3) for level in sheet.levels] == [0.684, 0.132, 0.144, 0.154]
    np.testing.assert_allclose([depth.icr for depth in sheet.sharing], (0.999, 0.530, 0.056, 0.0020), atol=5e-4)
    assert [depth.largest_group for depth in sheet.sharing] == [565, 51, 27, 3]


def test_ids_of_yelp(real_data: Path) -> None:
    split = leave_one_out(prepare(real_data / "yelp"))
    catalogue = Catalogue([str(row) for row in range(20_033)])
    ids = read_semantic_ids(real_data / "yelp" / "letter_codes.npy", catalogue)
    texts = pl.DataFrame({"item_id": catalogue.item_ids}).join(split.dataset.items, on="item_id", how="left")
    joined = texts.select(pl.concat_str(pl.all().exclude("item_id"), separator="|", ignore_nulls=True)).to_series()
    sheet = inspect_ids(ids, texts=joined.to_list())
    found = sheet.collisions
    assert (found.distinct, found.largest_group) == (19_201, 65)
    assert round(found.icr * sheet.items) == 1_247  # items in collisions
    assert found.icr == pytest.approx(0.0622473, abs=5e-8)
    assert found.dup == pytest.approx(0.0415315, abs=5e-8)
    assert found.gini == pytest.approx(0.0410, abs=5e-5)
    assert found.entropy_share == pytest.approx(0.9911, abs=5e-5)
    assert found.dist == pytest.approx(0.9585, abs=5e-5)
    assert sheet.prefixes == (256, 15_879, 19_145, 19_201)
    assert [level.used for level in sheet.levels] == [256] * 4
    assert sheet.levels[0].perplexity == pytest.approx(237.5, abs=0.05)
    assert sheet.levels[3].perplexity == pytest.approx(215, abs=0.5)
    assert found.identical_text_groups == found.groups  # own finding: every collision of these IDs is one text,
    assert found.identical_text_group_sizes is not None
    assert max(found.identical_text_group_sizes) == 65  # the largest, too


Companions = tuple[IntArray, IntArray, IntArray]


def companions(sequences: Sequences, n_items: int) -> Companions:
    """Pairs of items in the same histories, both ways, and in how many histories: counted pair by pair."""
    keys: list[IntArray] = []
    for history in sequences:
        items = np.unique(history).astype(np.int64)
        if 2 <= len(items) <= 200:
            one, other = np.triu_indices(len(items), 1)
            keys += [items[one] * n_items + items[other], items[other] * n_items + items[one]]
    pairs, counts = np.unique(np.concatenate(keys), return_counts=True)
    return pairs // n_items, pairs % n_items, counts


def as_published(ids: SemanticIds, pairs: Companions, order: IntArray) -> list[float]:
    """SIDInspector's agreement at depths 1 to 3; of tied companions those of lower `order` (N,) are kept."""
    left, right, counts = pairs
    by = np.lexsort((order[right], -counts, left))
    left, right = left[by], right[by]
    degree = np.bincount(left, minlength=len(order))
    kept = np.arange(len(left)) - (np.cumsum(degree) - degree)[left] < TOP
    groups = prefix_groups(ids.codes)[:3]
    return [float((group[left[kept]] == group[right[kept]]).mean()) for group in groups]


def together(sheet: TearSheet) -> tuple[float, ...]:
    assert sheet.together is not None
    return sheet.together.prefix[:3]


def test_agreement_of_companions_in_beauty(beauty: tuple[SemanticIds, Split]) -> None:
    ids, split = beauty
    number = np.array([int(item_id) for item_id in ids.catalogue.item_ids])
    pairs = companions(split.train, split.n_items)
    low_first, high_first = as_published(ids, pairs, number), as_published(ids, pairs, -number)
    np.testing.assert_allclose(low_first, (0.1244, 0.0155, 0.0025), atol=5e-5)
    np.testing.assert_allclose(high_first, (0.1416, 0.0188, 0.0030), atol=5e-5)
    sheet = inspect_ids(ids, split=split)
    np.testing.assert_allclose(together(sheet), (0.1334, 0.0171, 0.0028), atol=4e-4)  # published with random ties
    random = np.random.default_rng(0)
    draws = [as_published(ids, pairs, random.permutation(len(number))) for _ in range(3)]
    np.testing.assert_allclose(together(sheet), np.mean(draws, axis=0), atol=5e-4)
    assert sheet.together is not None
    assert sheet.together.prefix_chance[0] == pytest.approx(0.0181, abs=5e-5)


def test_agreement_with_all_events_counted_as_training_as_it_was_published(beauty: tuple[SemanticIds, Split]) -> None:
    """SIDInspector's adapters mark every event as training; ours looks at the training part unless told otherwise."""
    ids, split = beauty
    every = split.dataset.sequences
    number = np.array([int(item_id) for item_id in ids.catalogue.item_ids])
    pairs = companions(every, split.n_items)
    low_first = as_published(ids, pairs, number)
    np.testing.assert_allclose(low_first, (0.1308, 0.0162, 0.0026), atol=5e-5)
    shared = together(inspect_ids(ids, split=replace(split, train=every)))
    high_first = as_published(ids, pairs, -number)
    assert all(low < ours < high for low, ours, high in zip(low_first, shared, high_first))


def test_popularity_of_beauty_by_thirds_of_items_as_published(beauty: tuple[SemanticIds, Split]) -> None:
    """SIDInspector's tail, the lowest third of the items by rank of popularity, has as many IDs as items."""
    ids, split = beauty
    events = np.bincount(split.dataset.sequences.flat()[0], minlength=split.n_items)
    tail = np.argsort(events, kind="stable")[: split.n_items // 3]
    assert len(np.unique(prefix_groups(ids.codes)[-1][tail])) == len(tail)
    found = inspect_ids(ids, split=split).popularity  # ours: thirds of the events, of the training part alone
    assert found is not None
    assert found.head.items < found.mid.items < found.tail.items
    assert found.tail.dist is not None
    assert found.tail.dist > 0.998


def test_codes_of_vqrec_have_no_code_for_twelve_items(real_data: Path) -> None:
    table = pl.read_csv(real_data / "scientific" / "scientific.item", separator="\t", quote_char=None)
    catalogue = Catalogue(table["item_id:token"].to_list())
    ids = read_semantic_ids(real_data / "scientific" / "vqrec_codes.npy", catalogue, uncoded="reserve")
    assert ids.config["items_without_code"] == 12
    without = (ids.codes == 256).all(axis=1)
    assert without.sum() == 12
    sheet = inspect_ids(ids)
    assert sheet.collisions.distinct == 4_223 + 1  # the twelve share one
    assert all(level.used == 257 for level in sheet.levels)
