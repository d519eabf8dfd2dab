"""Prompts: what a language model is asked, in words, and the one function that turns a question into tokens.

A template is a text with slots. Its fixed parts are split into tokens once, the texts of items once per item, IDs are
looked up; a prompt is the concatenation. So training, validation and serving read the very same tokens, and where the
prompt ends and the answer begins is known, not guessed.

The tasks are those of LC-Rec (arXiv 2311.09049, section III-C); the wording is our own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from tesserec.artifacts import fingerprint_json
from tesserec.errors import ConfigError
from tesserec.language.codes import CodeTokens
from tesserec.language.texts import ItemTexts
from tesserec.types import IntArray

FRAME = "Request: {request}\nAnswer:"  # around every request
SLOT = re.compile(r"( ?)\{(\w+)\}")


@dataclass(frozen=True)
class Template:
    """A request and its answer. Slots:

    history: IDs of the user's items, oldest first. titles: their titles. index: an item's ID.
    title, description: texts of the item. query: what the user is after, in words. preference: what the user likes.
    """

    request: str
    answer: str

    @property
    def slots(self) -> frozenset[str]:
        return _slots(self.request) | _slots(self.answer)


def _slots(text: str) -> frozenset[str]:
    return frozenset(name for _, name in SLOT.findall(text))


def _templates(answer: str, *requests: str) -> tuple[Template, ...]:
    return tuple(Template(request, answer) for request in requests)


TASKS: dict[str, tuple[Template, ...]] = {
    # sequential item prediction
    "seqrec": _templates(
        "{index}",
        "A user took these items in order: {history}. What comes next?",
        "Given the items {history}, name the one that this user takes next.",
        "Continue the sequence {history} by one item.",
        "So far the user went from item to item like this: {history}. Which item follows?",
        "After {history}, what would you recommend?",
        "Someone's past choices, oldest first, are {history}. Predict the next choice.",
        "Which item fits best behind {history}?",
        "Recommend one item to a person whose list reads {history}.",
    ),
    # item to index
    "item2index": (
        *_templates(
            "{index}",
            "Which item is called {title}?",
            "Name the item with the title {title}.",
            "Look up the item whose title is {title}.",
            "The title is {title}. What is the item?",
        ),
        *_templates(
            "{index}",
            "Which item is described so: {description}",
            "Find the item that this text is about: {description}",
            "Name the item with this description: {description}",
            "Here is what is known of an item: {description} Which one is it?",
        ),
        *_templates(
            "{index}",
            "An item called {title} has this description: {description} Name it.",
            "The title is {title}, and this is said of it: {description} Which item is that?",
            "Find the item by its title, {title}, and its description: {description}",
        ),
    ),
    # index to item
    "index2item": (
        *_templates(
            "{title}",
            "What is the title of {index}?",
            "How is {index} called?",
            "Write the title of item {index}.",
            "Which title belongs to {index}?",
        ),
        *_templates(
            "{description}",
            "Describe {index}.",
            "What is known of item {index}?",
            "Tell me about {index}.",
            "Write the description of {index}.",
        ),
        *_templates(
            "{title}. {description}",
            "Give title and description of {index}.",
            "What is {index}, and how is it described?",
            "Say what {index} is called, then describe it.",
        ),
    ),
    # asymmetric item prediction, in three forms
    "fusion": (
        *_templates(
            "{title}",
            "A user took {history}. What is the title of the next item?",
            "Following {history}, how is the item called that comes next?",
            "Write the title of the item that continues {history}.",
        ),
        *_templates(
            "{description}",
            "A user took {history}. Describe the next item.",
            "What would be said of the item that follows {history}?",
            "Describe what a user wants after {history}.",
        ),
        *_templates(
            "{index}",
            "A user took items with these titles: {titles}. Which item comes next?",
            "Titles of past choices, oldest first: {titles}. Name the next item.",
            "After {titles}, which item would you recommend?",
        ),
    ),
    # item from intention
    "itemsearch": _templates(
        "{index}",
        "Someone is looking for {query}. Which item is it?",
        "Find an item for this wish: {query}.",
        "The user searches for {query}. Recommend one item.",
        "What would you offer to a person who asks for {query}?",
        "A user took {history} and now wants {query}. Which item comes next?",
        "With {history} behind them, a user asks for {query}. Name an item.",
        "A user took {history} and likes {preference}. Which item comes next?",
        "Given the items {history} and a taste for {preference}, name the next item.",
        "A user likes {preference} and asks for {query}. Which item fits?",
    ),
    # preference inference
    "preference": _templates(
        "{preference}",
        "A user took {history}. What does this user like?",
        "What do the choices {history} say of a user's taste?",
        "Sum up the preferences behind {history}.",
        "Describe in a few words what a person who took {history} likes.",
    ),
}


def corpus(texts: ItemTexts, repeats: int = 100) -> list[str]:
    """What a new tokenizer learns its words from: the items' texts, and the templates, so often that they count."""
    requests = [FRAME.replace("{request}", one.request) for templates in TASKS.values() for one in templates]
    return [*texts.titles, *texts.descriptions, *[SLOT.sub("", request) for request in requests] * repeats]


@dataclass(frozen=True, eq=False)
class Facts:
    """What fills the slots of a template."""

    history: IntArray | None = None  # item rows, oldest first; never empty
    item: int | None = None  # item row of index, title and description
    query: str | None = None
    preference: str | None = None
    title: str | None = None  # of something that is no item of the catalogue, instead of the item's
    description: str | None = None


class PromptBuilder:
    """Facts -> tokens, the same wherever a prompt is needed."""

    def __init__(
        self,
        tokenizer: Any,
        codes: CodeTokens,
        item_codes: IntArray,
        texts: ItemTexts | None = None,
        *,
        max_items: int = 20,
        max_tokens: int = 512,
        text_tokens: int = 96,
    ) -> None:
        """
        Args:
            tokenizer: knows the codes.
            item_codes: (N, L).
            texts: of the N items, or None: then no template with an item's texts can be filled.
            max_items: latest items of a history that are read.
            max_tokens: of prompt and answer together. A history is shortened until they fit, the answer never.
            text_tokens: of a title, a description, a query or a preference; the rest is cut off.
        """
        self.tokenizer, self.codes, self.texts = tokenizer, codes, texts
        self.index_tokens = codes.of(item_codes)  # (N, L)
        self.max_items, self.max_tokens, self.text_tokens = max_items, max_tokens, text_tokens
        self.comma, self.end = self._words(","), np.array([_end_of(tokenizer)], dtype=np.int64)
        self.start = _start_of(tokenizer)
        self._index_length = self.index_tokens.shape[1] + 1  # of an answer that is an ID, with its end
        self._text = lru_cache(maxsize=1 << 20)(self._text_tokens)
        self._parts = lru_cache(maxsize=None)(self._split)

    def fillable(self, task: str, facts: Facts) -> tuple[int, ...]:
        """The numbers of the task's templates that these facts can fill."""
        known = self._known(facts)
        return tuple(number for number, template in enumerate(TASKS[task]) if template.slots <= known)

    def prompt(self, task: str, number: int, facts: Facts) -> IntArray:
        """The tokens of a request, up to where the answer begins.

        Raises:
            ConfigError: the facts lack something, or the request is longer than `max_tokens`.
        """
        return self._request(TASKS[task][number], facts, room=self.max_tokens - self._index_length)

    def question(self, task: str, facts: Facts, answer: str) -> IntArray:
        """As `prompt`, by the task's first template that is answered by this slot and asks for no more than is known.

        Raises:
            ConfigError: there is none, or as `prompt`.
        """
        known = self._known(facts)
        for number, template in enumerate(TASKS[task]):
            if template.answer == f"{{{answer}}}" and _slots(template.request) <= known:
                return self.prompt(task, number, facts)
        raise ConfigError(f"The task {task} has no template that asks for {answer} with {', '.join(sorted(known))}.")

    def sample(self, task: str, number: int, facts: Facts) -> tuple[IntArray, IntArray]:
        """The tokens of a request, for an ID the same as `prompt` gives, and of its answer with its end.

        Raises:
            ConfigError: as `prompt`, or the answer alone is longer than `max_tokens`.
        """
        template = TASKS[task][number]
        answer = np.concatenate([*self._fill(self._parts(template.answer), facts), self.end])
        if len(answer) >= self.max_tokens:
            raise ConfigError(
                f"An answer of {len(answer)} tokens does not fit into max_tokens = {self.max_tokens}. Use a larger "
                "max_tokens or a smaller text_tokens."
            )
        room = self.max_tokens - max(len(answer), self._index_length)
        return self._request(template, facts, room=room), answer

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the wording, the tokenizer and the limits."""
        wording = [FRAME, {task: [[t.request, t.answer] for t in templates] for task, templates in TASKS.items()}]
        limits = [self.max_items, self.max_tokens, self.text_tokens]
        return fingerprint_json([wording, limits, self.codes.all.tolist(), self._words("Answer:").tolist()])

    # -- from facts to tokens ----------------------------------------------------------------------------------------

    def _request(self, template: Template, facts: Facts, room: int) -> IntArray:
        parts = self._parts(FRAME.replace("{request}", template.request))
        n_items = min(self.max_items, len(facts.history)) if facts.history is not None else 0
        while True:
            tokens = np.concatenate([self.start, *self._fill(parts, facts, n_items)])
            if len(tokens) <= room or n_items <= 1:
                break
            n_items -= max(1, (len(tokens) - room) // (self.index_tokens.shape[1] + 1))
            n_items = max(n_items, 1)
        if len(tokens) > room:
            raise ConfigError(
                f"A prompt of {len(tokens)} tokens does not fit: max_tokens is {self.max_tokens}, and the answer needs "
                f"{self.max_tokens - room}. Use a larger max_tokens or a smaller text_tokens."
            )
        return tokens

    def _fill(self, parts: Sequence[tuple[IntArray, str | None]], facts: Facts, n_items: int = 0) -> list[IntArray]:
        filled = list[IntArray]()
        for words, slot in parts:
            filled.append(words)
            if slot is not None:
                filled.append(self._slot(slot, facts, n_items))
        return filled

    def _slot(self, slot: str, facts: Facts, n_items: int) -> IntArray:
        if slot in ("history", "titles"):
            assert facts.history is not None
            items = facts.history[len(facts.history) - n_items :]
            each = [self.index_tokens[item] if slot == "history" else self._item_text("title", item) for item in items]
            return np.concatenate([part for one in each for part in (self.comma, one)][1:])
        if slot == "index":
            assert facts.item is not None
            return np.asarray(self.index_tokens[facts.item])
        given: str | None = getattr(facts, slot)
        if given is not None:
            return self._text(given)
        assert facts.item is not None
        return self._item_text(slot, facts.item)

    def _item_text(self, slot: str, item: int) -> IntArray:
        assert self.texts is not None
        return self._text((self.texts.titles if slot == "title" else self.texts.descriptions)[item])

    def _known(self, facts: Facts) -> frozenset[str]:
        """The slots that can be filled."""
        texts, item = self.texts, facts.item
        known = {
            "history": facts.history is not None,
            "titles": facts.history is not None and texts is not None and all(texts.titles[i] for i in facts.history),
            "index": item is not None,
            "title": bool(facts.title or (texts is not None and item is not None and texts.titles[item])),
            "description": bool(
                facts.description or (texts is not None and item is not None and texts.descriptions[item])
            ),
            "query": bool(facts.query),
            "preference": bool(facts.preference),
        }
        return frozenset(slot for slot, is_known in known.items() if is_known)

    def _split(self, text: str) -> list[tuple[IntArray, str | None]]:
        """The words before each slot and its name; the last entry has the words behind them all and no name.

        A blank before a slot belongs to what fills it, as the words of byte-pair tokenizers begin with their blank;
        IDs have none.
        """
        parts, at = list[tuple[IntArray, str | None]](), 0
        for found in SLOT.finditer(text):
            parts.append((self._words(text[at : found.start()]), found[2]))
            at = found.end()
        return [*parts, (self._words(text[at:]), None)]

    def _text_tokens(self, text: str) -> IntArray:
        return self._words(" " + text.strip())[: self.text_tokens]

    def _words(self, text: str) -> IntArray:
        ids = self.tokenizer(text, add_special_tokens=False).input_ids if text else []
        return np.array(ids, dtype=np.int64)


def _start_of(tokenizer: Any) -> IntArray:
    """What the tokenizer puts in front of every text, such as a token for its beginning."""
    bare, dressed = tokenizer("a", add_special_tokens=False).input_ids, tokenizer("a").input_ids
    place = next((at for at in range(len(dressed)) if dressed[at : at + len(bare)] == bare), 0)
    return np.array(dressed[:place], dtype=np.int64)


def _end_of(tokenizer: Any) -> int:
    if tokenizer.eos_token_id is None:
        raise ConfigError("The model's tokenizer has no token for the end of a text. Choose a model that has one.")
    return int(tokenizer.eos_token_id)
