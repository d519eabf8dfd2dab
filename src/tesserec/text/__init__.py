"""From item texts to item embeddings."""

from tesserec.text.embeddings import Embeddings
from tesserec.text.encode import ENCODERS, TextConfig, encode_items
from tesserec.text.imports import read_embeddings

__all__ = ["ENCODERS", "Embeddings", "TextConfig", "encode_items", "read_embeddings"]
