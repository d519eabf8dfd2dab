"""The items of a catalogue -> their embeddings, through an encoder of the registry and a cache on disk."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from tesserec.artifacts import fingerprint_json
from tesserec.config import choose, to_dict
from tesserec.data.catalogue import Catalogue
from tesserec.errors import ConfigError, DataError
from tesserec.progress import SILENT, Progress
from tesserec.text.batches import EncodeBatch, encode_batches, save_array
from tesserec.text.embeddings import Embeddings
from tesserec.text.imports import read_embeddings
from tesserec.text.lsa import Lsa
from tesserec.text.networks import load_huggingface, load_minilm, load_sentence_transformer
from tesserec.text.templates import column_texts, render
from tesserec.types import FloatArray, PathLike

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How items become vectors."""

    encoder: str = "lsa"  # a name of ENCODERS; "file" reads ready embeddings from the .npy or Parquet file `model`
    model: str | None = None  # name or folder, for "sentence-transformers" and "huggingface"; path for "file"
    template: str | None = None  # such as "{title}. {category}. {brand}"; None: all text columns
    attributes: tuple[str, ...] = ()  # columns to encode apart, one vector each, instead of a template
    width: int = 256  # dimensions of "lsa", at most
    pooling: Literal["mean", "cls"] = "mean"  # of "huggingface"
    max_tokens: int = 256  # of a text that a network reads, at most what it can; the rest is cut off
    batch_size: int = 64  # texts per pass through a network
    precision: Literal["fp32", "bf16"] = "fp32"  # of a network's weights
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", "mps"
    normalize: bool = True  # scale every vector to length 1
    seed: int = 0  # of "lsa"

    def __post_init__(self) -> None:
        choose(self.encoder, ENCODERS, what="text encoder")
        needs_model = self.encoder in ("sentence-transformers", "huggingface", "file")
        if needs_model and not self.model:
            what = "the path of the file" if self.encoder == "file" else "a model's name or folder"
            raise ConfigError(f"text.encoder is {self.encoder!r} but text.model is not set. Set it to {what}.")
        if self.model and not needs_model:
            raise ConfigError(f"text.model is {self.model!r}, but the encoder {self.encoder!r} takes none. Remove it.")
        if self.template is not None and self.attributes:
            raise ConfigError("Both text.template and text.attributes are set. Set one: one text, or one per column.")
        for name in ("width", "max_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"text.{name} is {getattr(self, name)}. Use 1 or more.")
        if self.seed < 0:
            raise ConfigError(f"text.seed is {self.seed}. Use 0 or more.")


def encode_items(
    items: "pl.DataFrame",
    catalogue: Catalogue,
    config: TextConfig,
    *,
    fitted: Embeddings | None = None,
    cache: PathLike | None = None,
    progress: Progress = SILENT,
) -> Embeddings:
    """One vector per item, or one per item and attribute.

    Equal texts are encoded once and so get equal vectors. An item without text gets a vector of zeros; how many there
    are is said to `progress` and stored in the result's config as `items_without_text`.

    Args:
        items: `item_id` and text columns; any order, every item of the catalogue.
        fitted: earlier embeddings whose encoder goes on as it was, so that new items lie in the same space. Only "lsa"
            needs it: what it makes of a text else depends on all the others.
        cache: folder where a network's vectors are kept under a hash of the texts and of what makes them, finished
            blocks of an interrupted run too. None: nothing is kept.

    Raises:
        ConfigError: an unknown column, a model that cannot be loaded, or `fitted` is of another encoder.
        DataError: an item of the catalogue is not in `items`, or no item has any text.
        MissingDependencyError: the encoder's library is not installed.
    """
    if config.encoder == "file":
        assert config.model is not None
        return read_embeddings(config.model, catalogue)
    items = _in_order(items, catalogue)
    columns = [column_texts(items, name) for name in config.attributes] or [render(items, config.template)]
    texts = [text for row in zip(*columns, strict=True) for text in row]  # item after item, N * A
    distinct = sorted(set(texts) - {""})
    if not distinct:
        where = f"the columns {', '.join(config.attributes)}" if config.attributes else "any column of the template"
        raise DataError(f"None of the {len(catalogue)} items has a text in {where}. Choose columns that hold text.")
    blank = sum(not any(row) for row in zip(*columns, strict=True))
    if blank:
        progress.say(f"{blank} of {len(catalogue)} items have no text; they get vectors of zeros.")
    state = dict[str, npt.NDArray[Any]]()
    if config.encoder == "lsa":
        lsa = _lsa(distinct, config, fitted, progress)
        found, state = lsa.encode(distinct), lsa.arrays()
    else:
        found = _network_vectors(distinct, config, Path(cache) if cache is not None else None, progress)
    if config.normalize:
        found = found / np.linalg.norm(found, axis=1, keepdims=True).clip(min=np.finfo(np.float32).tiny)
    place = {text: row for row, text in enumerate(distinct)}
    rows = np.array([place.get(text, -1) for text in texts])
    vectors: FloatArray = np.zeros((len(rows), found.shape[1]), dtype=np.float32)
    vectors[rows >= 0] = found[rows[rows >= 0]]
    if config.attributes:
        vectors = vectors.reshape(len(catalogue), len(config.attributes), -1)  # (N, A, D)
    return Embeddings(catalogue, vectors, config.attributes, {**to_dict(config), "items_without_text": blank}, state)


def _in_order(items: "pl.DataFrame", catalogue: Catalogue) -> "pl.DataFrame":
    """The rows of `items` in catalogue order."""
    ids = items["item_id"].to_list()
    if tuple(ids) == catalogue.item_ids:
        return items
    rows = {item_id: row for row, item_id in enumerate(ids)}
    missing = [item_id for item_id in catalogue.item_ids if item_id not in rows]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(catalogue)} items have no row in the item table, the first being {missing[:3]}. "
            "Give a table with all items; a row may have empty texts."
        )
    return items[[rows[item_id] for item_id in catalogue.item_ids]]


def _lsa(texts: Sequence[str], config: TextConfig, fitted: Embeddings | None, progress: Progress) -> Lsa:
    """The LSA of earlier embeddings, or one fitted on these texts."""
    if fitted is None:
        return Lsa.fit(texts, width=config.width, seed=config.seed, progress=progress)
    if fitted.config.get("encoder") != "lsa" or not fitted.state:
        raise ConfigError(
            f"The earlier embeddings are of encoder {fitted.config.get('encoder')!r}, but text.encoder is 'lsa'. Use "
            "the same text settings as for the earlier items."
        )
    return Lsa.from_arrays(fitted.state)


def _network_vectors(texts: Sequence[str], config: TextConfig, cache: Path | None, progress: Progress) -> FloatArray:
    """(n, D) vectors of distinct texts, from the cache if they are there."""
    load = ENCODERS[config.encoder]
    assert load is not None
    folder = cache / fingerprint_json([_identity(config), list(texts)]) if cache is not None else None
    if folder is not None and (folder / "vectors.npy").exists():
        progress.say(f"Embeddings of {len(texts)} texts found in the cache.")
        return np.asarray(np.load(folder / "vectors.npy"))
    partial = folder / "blocks" if folder is not None else None
    vectors = encode_batches(
        texts, lambda: load(config), batch_size=config.batch_size, partial=partial, progress=progress
    )
    if folder is not None:
        save_array(folder / "vectors.npy", vectors)
        shutil.rmtree(folder / "blocks")
    return vectors


def _identity(config: TextConfig) -> dict[str, object]:
    """What decides a network's vector of a text before scaling to length 1, besides the text."""
    names = ("encoder", "model", "max_tokens", "precision", "pooling")
    identity: dict[str, object] = {name: getattr(config, name) for name in names}
    if config.model is not None and Path(config.model).is_dir():
        files = sorted(path for path in Path(config.model).rglob("*") if path.is_file())
        identity["files"] = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return identity


# name -> what loads its network; None for those that have none
ENCODERS: dict[str, Callable[[TextConfig], EncodeBatch] | None] = {
    "lsa": None,
    "minilm": load_minilm,
    "sentence-transformers": lambda config: load_sentence_transformer(config.model or "", config),
    "huggingface": lambda config: load_huggingface(config.model or "", config),
    "file": None,
}
