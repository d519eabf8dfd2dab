"""From what item files hold to plain text: entities, tags, lists, and the many ways of saying "nothing"."""

import ast
import html
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

MISSING = frozenset({"", "nan", "none", "null", "n/a", "[]", "{}", "[[]]", "['']", '[""]', "-", "\\n"})
_TAG = re.compile(
    r"<!--.*?-->|<(script|style)\b.*?</\1\s*>|</?[a-z!][^<>]*>|</?[a-z][a-z0-9]*(\s[^<>]*)?$", re.I | re.S
)
_CODE = re.compile(r"var aPageStart|getTime\(\)|\bfunction\s*\(\w*\)\s*\{")  # scraped page scripts (Amazon 2018)
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufffd]")
_SPACE = re.compile(r"\s+")
_EMPTY_ENTRIES = re.compile(r"\s*,(?:\s*,)+")  # "Games, , by Sega", once a tag is gone
_ORDINARY = re.compile(r"[\w.!?'’:;()/+\-]+(?: [\w.!?'’:;()/+\-]+)*", re.ASCII)
_SENTENCE_END = (".", "!", "?", ":", ";")


def clean(value: Any) -> str:
    """One value of an item file as clean text, "" if it says nothing.

    Entities are resolved (twice: `&amp;amp;` is common); tags, page scripts, control and replacement characters are
    dropped; white space becomes single spaces. The entries of lists, however nested, are cleaned, rid of repeats and
    joined: with ", ", or with " " after the end of a sentence. The values of a mapping are treated likewise. A list
    written as text (`"['a', 'b']"`) is a list.

    >>> clean("Kids &amp;amp; Family, </span></span>, by  <b>Sega</b>")
    'Kids & Family, by Sega'
    >>> clean([["Toys", "Puzzles"], ["Toys", "Games"], None, "nan"])
    'Toys, Puzzles, Games'
    """
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, bytes):
        return _clean_text(value.decode(errors="replace"))
    if isinstance(value, Mapping):
        return _join(clean(entry) for entry in value.values())
    if isinstance(value, Iterable):
        return _join(clean(entry) for entry in _flatten(value))
    return "" if value is None or value != value else str(value)  # NaN is the value that differs from itself


def _clean_text(text: str) -> str:
    text = text.strip()
    if text.lower() in MISSING:
        return ""
    if _ORDINARY.fullmatch(text):
        return text
    if text.startswith(("['", '["', "[[")) and text.endswith("]"):
        try:
            return clean(ast.literal_eval(text))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass  # a title that happens to look like a list
    if _CODE.search(text):
        return ""
    text = html.unescape(html.unescape(text)) if "&" in text else text
    text = _TAG.sub(" ", text) if "<" in text else text
    text = _EMPTY_ENTRIES.sub(",", text) if "," in text else text
    text = unicodedata.normalize("NFC", _SPACE.sub(" ", _UNWANTED.sub("", text)).strip(" ,"))
    return "" if text.lower() in MISSING else text


def _flatten(value: Iterable[Any]) -> Iterable[Any]:
    for entry in value:
        if isinstance(entry, Iterable) and not isinstance(entry, str | bytes | Mapping):
            yield from _flatten(entry)
        else:
            yield entry


def _join(entries: Iterable[str]) -> str:
    """Distinct entries in order, one after the other."""
    text = ""
    for entry in dict.fromkeys(entries):
        if entry:
            text += (" " if text.endswith(_SENTENCE_END) else ", " if text else "") + entry
    return text
