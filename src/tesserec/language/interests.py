"""What users want and like, in words: from a file, or made from the texts of their items by a rule.

LC-Rec asks a large language model for both. Where no such texts are at hand they are made by a rule, and whoever reads
a result is told so (`Interests.source`):

- An item's **key words** are the words of its description, not of its title, that are frequent in it and rare in the
  catalogue (the largest tf-idf). What a review says counts as part of the description.
- A user's **query** for an item is a draw of its key words.
- A user's **preference** is the key words with the largest sum over the items of the history.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tesserec.errors import DataError
from tesserec.language.texts import ItemTexts
from tesserec.types import IntArray

N_WORDS = 8  # key words of an item,
QUERY_WORDS = (2, 4)  # of which a query has so few to so many,
PREFERENCE_WORDS = 5  # and a preference so many
WORD = r"(?u)\b[^\W\d_]{3,}\b"  # three letters or more
Weighted = list[tuple[str, float]]


@dataclass(frozen=True, eq=False)
class Interests:
    """Words for what a user likes and for what a user looks for.

    Attributes:
        source: where they are from, in words for the report.
        preferences: user id -> texts of what the user likes, from a file.
        queries: user id -> texts of what the user looked for when taking the last training item, from a file.
        key_words: N lists of (word, weight), the weightiest first, for users without a text.
    """

    source: str
    preferences: Mapping[str, Sequence[str]] = field(default_factory=dict)
    queries: Mapping[str, Sequence[str]] = field(default_factory=dict)
    key_words: Sequence[Weighted] = ()

    @classmethod
    def from_texts(cls, texts: ItemTexts, reviews: Mapping[int, str] | None = None) -> "Interests":
        """By the rule above. reviews: item row -> what was written of it."""
        source = "key words of item texts" if not reviews else "key words of reviews and item texts"
        return cls(source, key_words=key_words(texts, reviews or {}))

    @classmethod
    def from_file(cls, path: Path, texts: ItemTexts) -> "Interests":
        """A JSON file; users that it does not have get texts by the rule.

            {"USER": {"preferences": ["...", ...], "queries": ["...", ...]}, ...}

        The file that LC-Rec's authors publish (`user_explicit_preference`, `user_vague_intention`) is read as well.

        Raises:
            DataError: no such file, or another content.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(
                f"recommender.interests: {path} cannot be read as JSON ({error}). Check the path."
            ) from None
        try:
            preferences, queries = _released(content) if "user_explicit_preference" in content else _plain(content)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise DataError(
                f'recommender.interests: {path} should hold {{"USER": {{"preferences": [texts], "queries": [texts]}}}}.'
            ) from None
        return cls(f"texts of {path.name}", preferences, queries, key_words(texts, {}))

    def preference(self, user: str, history: IntArray, random: np.random.Generator) -> str:
        """What the user likes; "" if nothing is known."""
        if texts := self.preferences.get(user):
            return texts[int(random.integers(len(texts)))]
        sums = Counter[str]()
        for item in history:
            sums.update(dict(self.key_words[item]))
        return ", ".join(word for word, _ in sorted(sums.items(), key=lambda one: (-one[1], one[0]))[:PREFERENCE_WORDS])

    def query(self, user: str, item: int, random: np.random.Generator) -> str:
        """What the user looks for who took this item; "" if nothing is known."""
        if texts := self.queries.get(user):
            return texts[int(random.integers(len(texts)))]
        words = [word for word, _ in self.key_words[item]]
        n_words = min(int(random.integers(QUERY_WORDS[0], QUERY_WORDS[1] + 1)), len(words))
        return ", ".join(words[place] for place in sorted(random.choice(len(words), n_words, replace=False)))


def key_words(texts: ItemTexts, reviews: Mapping[int, str]) -> list[Weighted]:
    """For every item its N_WORDS words of the largest tf-idf that are not in its title, the weightiest first."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    documents = [f"{text} {reviews.get(item, '')}" for item, text in enumerate(texts.descriptions)]
    vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english", token_pattern=WORD, min_df=2)
    try:
        table = vectorizer.fit_transform(documents).tocsr()
    except ValueError:  # no word occurs twice
        return [[] for _ in documents]
    words, analyse = vectorizer.get_feature_names_out(), vectorizer.build_analyzer()
    found = list[Weighted]()
    for row, title in enumerate(texts.titles):
        named = set(analyse(title))
        span = slice(table.indptr[row], table.indptr[row + 1])
        weighted = [
            (str(words[column]), float(weight))
            for column, weight in zip(table.indices[span], table.data[span])
            if words[column] not in named
        ]
        found.append(sorted(weighted, key=lambda one: (-one[1], one[0]))[:N_WORDS])
    return found


def _plain(content: Any) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    preferences = {str(user): _texts(entry.get("preferences", [])) for user, entry in content.items()}
    return preferences, {str(user): _texts(entry.get("queries", [])) for user, entry in content.items()}


def _released(content: Any) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    preferences = {str(user): _texts(texts) for user, texts in content["user_explicit_preference"].items()}
    train = content["user_vague_intention"]["train"]
    return preferences, {str(user): _texts(entry["querys"]) for user, entry in train.items()}


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(value)
    return [text.strip() for text in value if text.strip()]
