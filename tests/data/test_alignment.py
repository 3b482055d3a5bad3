"""A span of a cleaned text is found again in the original, whatever cleaning did."""

import html
import random

import pytest

from distilora.data.alignment import align
from distilora.data.cleaning import cleaning

HTML = cleaning("html")
TEXTS = [
    "", " ", "plain words", "  two   spaces\tand\nlines  ", "a<br />b", "<p>The  film</p> was&nbsp;good &amp; bad",
    "&lt;br&gt; stays", "a<!-- hidden -->b", "a<!-- open", "x &hearts; y &#8211; z &#99999999999; &notanentity; &amp", "<b></b>",
    "tail <br/>", "&#x1F600; smile", "caf&eacute;<i>s</i>", "a < b and c > d", "\u00a0nbsp\u2003em", "&amp;lt; twice",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_the_text_is_the_cleaned_one(text: str) -> None:
    assert align(text, HTML).text == HTML.clean(text)
    assert align(text, cleaning("none")).text == text


def test_random_texts_are_cleaned_alike_and_characters_come_from_where_they_were() -> None:
    rng = random.Random(0)
    pieces = [
        "word",
        " ",
        "  ",
        "<br/>",
        "<p>",
        "&amp;",
        "&nbsp;",
        "&#65;",
        "<!--x-->",
        "é",
        "\n",
        "&",
        "<",
        ".",
        "&#x41;",
    ]
    for _ in range(2000):
        text = "".join(rng.choices(pieces, k=rng.randint(0, 14)))
        aligned = align(text, HTML)
        assert aligned.text == HTML.clean(text)
        before = 0
        for place, character in enumerate(aligned.text):
            start, end = aligned.in_original(place, place + 1)
            assert before <= start < end <= len(text)
            before = start
            if not character.isspace():
                assert html.unescape(text[start:end]) == character


def test_spans_go_there_and_back() -> None:
    text = "<p>The   plot is&nbsp;thin &amp; <b>the music</b> loud.</p>"
    aligned = align(text, HTML)
    assert aligned.text == "The plot is thin & the music loud."
    for words in ("plot", "thin & the music", "loud."):
        start = aligned.text.index(words)
        original = aligned.in_original(start, start + len(words))
        assert aligned.in_cleaned(*original) == (start, start + len(words))
    start, end = aligned.in_original(*_span(aligned.text, "thin & the"))
    assert text[start:end] == "thin &amp; <b>the"


def test_what_cleaning_removed_is_an_empty_span() -> None:
    text = "a <i>word</i>"
    start, end = align(text, HTML).in_cleaned(2, 5)
    assert start >= end or align(text, HTML).text[start:end].isspace()


def test_another_step_is_refused() -> None:
    with pytest.raises(ValueError, match="no alignment is known for the cleaning step 'own'"):
        align("a", HTML.__class__("own", 1, str.lower))


def _span(text: str, words: str) -> tuple[int, int]:
    start = text.index(words)
    return start, start + len(words)
