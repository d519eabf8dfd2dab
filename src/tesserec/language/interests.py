"""What users want and like, in words: from a file, or made from the texts of their items by a rule.

LC-Rec asks a large language model for both. Where no such texts are at hand they are made by a rule, and whoever reads
a result is told so (`Interests.source`):

- The **key words** of a text about an item are those of its words, not of the item's title, that are frequent in it
  and rare in the catalogue (the largest tf-idf).
- A user's **query** for an item is a draw of the key words of what that user wrote of it, where there are reviews, and
  else of the item's description.
- A user's **preference** is the key words with the largest sum over the items of the history.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tesserec.data.splits import Split
from tesserec.errors import DataError
from tesserec.language.texts import ItemTexts
from tesserec.types import IntArray

N_WORDS = 8  # key words of an item,
QUERY_WORDS = (2, 4)  # of which a query has so few to so many,
PREFERENCE_WORDS = 5  # and a preference so many
WORD = r"(?u)\b[^\W\d_]{3,}\b"  # three letters or more
USER_KEYS = ("user_id", "reviewerID", "user")
ITEM_KEYS = ("item_id", "parent_asin", "asin", "business_id", "item")
TEXT_KEYS = ("review", "reviewText", "text")
Weighted = list[tuple[str, float]]


@dataclass(frozen=True, eq=False)
class Interests:
    """Words for what a user likes and for what a user looks for.

    Attributes:
        source: where they are from, in words for the report.
        preferences: user id -> texts of what the user likes, from a file.
        queries: user id -> texts of what the user looked for when taking the last training item, from a file.
        key_words: N lists of (word, weight), the weightiest first, for users without a text.
        reviewed: user id -> the same of what the user wrote of the last training item.
    """

    source: str
    preferences: Mapping[str, Sequence[str]] = field(default_factory=dict)
    queries: Mapping[str, Sequence[str]] = field(default_factory=dict)
    key_words: Sequence[Weighted] = ()
    reviewed: Mapping[str, Weighted] = field(default_factory=dict)

    @classmethod
    def from_texts(cls, texts: ItemTexts) -> "Interests":
        """By the rule above."""
        return cls("key words of item texts", key_words=key_words(texts)[0])

    @classmethod
    def from_reviews(cls, path: Path, texts: ItemTexts, split: Split) -> "Interests":
        """By the rule above, with a file of reviews: JSON lines such as Amazon's and Yelp's, gzipped or not.

        Of each user, the review of the last training item is read and no other: what users wrote of the items that
        they are tested on would give those away.

        Raises:
            DataError: no such file, a line that is no JSON object, or no review of a user's last training item.
        """
        written = last_training_reviews(path, split)
        if not written:
            raise DataError(
                f"recommender.reviews: {path} has no review of any user's last training item. Give a file with the "
                f"user and item ids of this data set, under {', '.join(USER_KEYS)} and {', '.join(ITEM_KEYS)}."
            )
        words, of_reviews = key_words(texts, list(written.values()))
        reviewed = {user: found for user, found in zip(written, of_reviews) if found}
        source = f"key words of the reviews of {len(reviewed):,} of {len(split.train):,} users, and of item texts"
        return cls(source, key_words=words, reviewed=reviewed)

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
        return cls(f"texts of {path.name}", preferences, queries, key_words(texts)[0])

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
        words = [word for word, _ in self.reviewed.get(user, self.key_words[item])]
        n_words = min(int(random.integers(QUERY_WORDS[0], QUERY_WORDS[1] + 1)), len(words))
        return ", ".join(words[place] for place in sorted(random.choice(len(words), n_words, replace=False)))


def key_words(texts: ItemTexts, reviews: Sequence[tuple[int, str]] = ()) -> tuple[list[Weighted], list[Weighted]]:
    """The N_WORDS words of the largest tf-idf, the weightiest first, that are not in the item's title.

    Args:
        reviews: (item row, what was written of it).

    Returns:
        Of every item's description, and of every review.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    documents = [*texts.descriptions, *(text for _, text in reviews)]
    titles = [*texts.titles, *(texts.titles[item] for item, _ in reviews)]
    vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english", token_pattern=WORD, min_df=2)
    try:
        table = vectorizer.fit_transform(documents).tocsr()
    except ValueError:  # no word occurs twice
        return [[] for _ in texts.titles], [[] for _ in reviews]
    words, analyse = vectorizer.get_feature_names_out(), vectorizer.build_analyzer()
    found = list[Weighted]()
    for row, title in enumerate(titles):
        named = set(analyse(title))
        span = slice(table.indptr[row], table.indptr[row + 1])
        weighted = [
            (str(words[column]), float(weight))
            for column, weight in zip(table.indices[span], table.data[span])
            if words[column] not in named
        ]
        found.append(sorted(weighted, key=lambda one: (-one[1], one[0]))[:N_WORDS])
    return found[: len(texts.titles)], found[len(texts.titles) :]


def last_training_reviews(path: Path, split: Split) -> dict[str, tuple[int, str]]:
    """User id -> (item row, review) of the last training item, of the users who wrote one."""
    from tesserec.data.files import read_json
    from tesserec.data.raw import Reading

    if not path.is_file():
        raise DataError(f"recommender.reviews: there is no file {path}. Check the path.")
    item_ids, ends = split.dataset.catalogue.item_ids, split.train.stops
    wanted = {
        user: item_ids[split.train.values[end - 1]]
        for user, end, length in zip(split.dataset.user_ids, ends, split.train.lengths)
        if length > 0
    }
    found = dict[str, tuple[int, str]]()
    for _, record in read_json(path, Reading()):
        user, item, text = (_first(record, keys) for keys in (USER_KEYS, ITEM_KEYS, TEXT_KEYS))
        if text.strip() and wanted.get(user) == item:
            found[user] = (split.dataset.catalogue.index_of(item), text)
    return found


def _first(record: Mapping[str, Any], keys: Sequence[str]) -> str:
    return next((str(record[key]) for key in keys if record.get(key) is not None), "")


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
