"""What item files hold, and the text that should come of it."""

import doctest

import pytest

from tesserec.data import cleaning
from tesserec.data.cleaning import clean


@pytest.mark.parametrize(
    "nothing",
    [
        None,
        "",
        "  ",
        "nan",
        "NaN",
        "None",
        "null",
        "N/A",
        float("nan"),
        [],
        {},
        [[]],
        "[]",
        "['']",
        ["", None, "nan"],
        "&nbsp;",
    ],
)
def test_every_way_of_saying_nothing_becomes_an_empty_text(nothing):
    assert clean(nothing) == ""


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Kids &amp; Family", "Kids & Family"),
        ("Kids &amp;amp; Family", "Kids & Family"),
        ("Caf&eacute; &#8211; &#34;Nero&#34;", 'Café – "Nero"'),
        ("5 &lt; 6", "5 < 6"),
        ("I <3 chess", "I <3 chess"),
        ("<p>One</p><p>two<br/>three</p>", "One two three"),
        ("Video Games, Games, </span></span></span>, by Sega", "Video Games, Games, by Sega"),
        ("</span></span></span>, by Sega", "by Sega"),
        ("before<script>var x = '<b>';</script>after", "before after"),
        ("cut off <a href='http://", "cut off"),
        ("var aPageStart = (new Date()).getTime();", ""),
        ("tab\tand\nnew\x00line\u200b here", "tab and newline here"),
        ("\ufeffbom", "bom"),
        ("cafe\u0301", "café"),
        (12, "12"),
        (9.5, "9.5"),
    ],
)
def test_clean_text(raw, expected):
    assert clean(raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (["Toys", "Puzzles"], "Toys, Puzzles"),
        ([["Toys", "Puzzles"], ["Toys", "Games"]], "Toys, Puzzles, Games"),
        (["First sentence.", "Second one."], "First sentence. Second one."),
        (["Games", "</span></span></span>", "by Sega"], "Games, by Sega"),
        ({"Brand": "Sega", "Colour": ["red", "blue"]}, "Sega, red, blue"),
        ("['Toys', 'Puzzles &amp; Games']", "Toys, Puzzles & Games"),
        ("[Download] Chess", "[Download] Chess"),
        ("['unfinished, list]", "['unfinished, list]"),
    ],
)
def test_lists_are_flattened_without_repeats(raw, expected):
    assert clean(raw) == expected


def test_documented_examples_hold():
    results = doctest.testmod(cleaning)
    assert results.attempted >= 2
    assert results.failed == 0
