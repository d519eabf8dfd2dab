"""From item embeddings to semantic IDs, one file per method."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tesserec.artifacts import method_of
from tesserec.config import build, choose
from tesserec.types import PathLike

if TYPE_CHECKING:
    from tesserec.tokenizers.base import ItemTokenizer

# method -> module:class; imported when first asked for, as fitting needs heavy libraries
TOKENIZERS = {
    "pq": "tesserec.tokenizers.pq:PQ",
    "opq": "tesserec.tokenizers.pq:OPQ",
    "rkmeans": "tesserec.tokenizers.rkmeans:RKMeans",
    "rqvae": "tesserec.tokenizers.rqvae:RQVAE",
    "letter": "tesserec.tokenizers.letter:Letter",
    "random": "tesserec.tokenizers.random_codes:RandomCodes",
}


def tokenizer_class(method: str) -> "type[ItemTokenizer]":
    """The class of a method; `ConfigError` naming the nearest method if there is none."""
    module, name = choose(method, TOKENIZERS, what="tokenizer").split(":")
    found: type[ItemTokenizer] = getattr(import_module(module), name)
    return found


def make_tokenizer(method: str, settings: Mapping[str, Any] | None = None) -> "ItemTokenizer":
    """An unfitted tokenizer; settings left out keep their defaults.

    Raises:
        ConfigError: an unknown method or setting (the nearest one is named), or a value out of range.
    """
    tokenizer = tokenizer_class(method)
    return tokenizer(build(tokenizer.config_class, settings or {}, where=f"tokenizer {method}"))


def load_tokenizer(folder: PathLike) -> "ItemTokenizer":
    """Open a fitted tokenizer of any method.

    Raises:
        ArtifactError: the folder holds no tokenizer, or a damaged one.
    """
    return tokenizer_class(method_of(folder, kind="tokenizer")).load(folder)
