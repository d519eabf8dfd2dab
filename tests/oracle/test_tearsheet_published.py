"""The tear-sheet of the LETTER authors' released IDs, against published figures.

Counts, ICR, DUP and prefixes: SIDInspector's definitions (arXiv 2606.10375) on the released index files. Agreement of
items taken together: its probe on the training part with random ties, of which fractional ties are the expectation.
"""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tesserec.data.catalogue import Catalogue
from tesserec.data.dataset import Dataset
from tesserec.data.sequences import Sequences
from tesserec.data.splits import leave_one_out
from tesserec.evaluation import inspect_ids
from tesserec.tokenizers.imports import read_semantic_ids

pytestmark = pytest.mark.data


def numbered(n_items: int) -> Catalogue:
    return Catalogue([str(row) for row in range(n_items)])


def test_letter_ids_of_beauty(real_data: Path) -> None:
    ids = read_semantic_ids(real_data / "beauty" / "Beauty.index.json", numbered(12_101))
    users = json.loads((real_data / "beauty" / "Beauty.inter.json").read_text())
    items = pl.DataFrame({"item_id": ids.catalogue.item_ids})
    split = leave_one_out(Dataset(items, tuple(users), Sequences.from_lists(list(users.values()))))
    sheet = inspect_ids(ids, split=split)
    found = sheet.collisions
    assert (found.distinct, found.largest_group) == (12_088, 3)
    assert found.icr == pytest.approx(0.0019833, abs=5e-8)
    assert found.dup == pytest.approx(0.0010743, abs=5e-8)
    assert sheet.prefixes == (197, 7_931, 11_696, 12_088)
    assert sheet.levels[0].perplexity == pytest.approx(82.7, abs=0.05)
    assert [round(level.entropy_bits, 2) for level in sheet.levels] == [6.37, 7.96, 7.95, 7.95]
    assert sheet.together is not None
    np.testing.assert_allclose(sheet.together.prefix[:3], (0.1334, 0.0171, 0.0028), atol=4e-4)
    assert sheet.together.prefix_chance[0] == pytest.approx(0.0181, abs=5e-5)


def test_letter_ids_of_yelp(real_data: Path) -> None:
    ids = read_semantic_ids(real_data / "yelp" / "letter_codes.npy", numbered(20_033))
    table = pl.read_csv(real_data / "yelp" / "yelp.item", separator="\t", quote_char=None, infer_schema=False)
    texts = table.select(pl.concat_str(pl.all().exclude("item_id:token"), separator="|", ignore_nulls=True)).to_series()
    sheet = inspect_ids(ids, texts=texts.to_list())
    found = sheet.collisions
    assert (found.distinct, found.largest_group) == (19_201, 65)
    assert found.icr == pytest.approx(0.0622473, abs=5e-8)
    assert found.dup == pytest.approx(0.0415315, abs=5e-8)
    assert sheet.prefixes == (256, 15_879, 19_145, 19_201)
    assert sheet.levels[0].perplexity == pytest.approx(237.5, abs=0.05)
    assert found.identical_text_groups == found.groups  # own finding: every collision of these IDs is one text


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
