"""Cleaning takes out mark-up and nothing else."""

import html
import random
import re

import pytest

from distilora.data.cleaning import CLEANINGS, cleaning
from distilora.errors import ArtifactError

# The definition of version 1; not linear, and of no use for long texts.
TAGS = (
    "a|abbr|b|big|blockquote|body|br|center|cite|code|dd|del|div|dl|dt|em|font|h[1-6]|head|hr|html|i|img|ins|li|link"
    "|meta|ol|p|pre|q|s|script|small|span|strike|strong|style|sub|sup|table|tbody|td|th|thead|title|tr|tt|u|ul"
)
DEFINITION = re.compile(
    rf"<!--.*?-->|</?(?:{TAGS})(?:\s+[a-z:-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'<>]+))*\s*/?>",
    re.IGNORECASE | re.DOTALL,
)


def as_defined(text: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(DEFINITION.sub(" ", text))).strip()


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("A film.<br /><br />A good one.", "A film. A good one."),
        ("<i>Alien</i> <B>and</B> <a href='x.html'>its</a> sequel", "Alien and its sequel"),
        ('<p class="x" id=y>one</p><!-- two\nlines -->three', "one three"),
        ("<h1>Big</h1><hr/>small", "Big small"),
        ("Tom &amp; Jerry &#8211; caf&eacute; &lt;3", "Tom & Jerry – café <3"),
        ("  many\n\n\tspaces\u00a0here ", "many spaces here"),
        ("a<b and c>d", "a<b and c>d"),
        ("I <3 this, 5 < 6 > 4", "I <3 this, 5 < 6 > 4"),
        ("<sarcasm>great</sarcasm>", "<sarcasm>great</sarcasm>"),
        ("<i think so>", "<i think so>"),
        ("naïve 電影 🎬", "naïve 電影 🎬"),
        ("<br />", ""),
        ("", ""),
    ],
)
def test_html(text: str, cleaned: str) -> None:
    assert cleaning("html").clean(text) == cleaned


def test_html_is_done_in_one_go() -> None:
    """A text that was cleaned stays as it is, so that cleaning twice on the way to a model does no harm."""
    text = cleaning("html").clean("<p>A  film<br/>by <b>her</b></p>")
    assert cleaning("html").clean(text) == text


def test_version_1_stays_as_it_was_defined() -> None:
    pieces = '<!-- --> <!--> -- < ! > <a </P <br /> x y: = " / & &# &#65 &lt; &amp # ; 0000000000 99999999999 &#x41 ſ'.split()
    pieces += [" ", "\n", "'"]
    rng = random.Random(0)
    clean = cleaning("html").clean
    changed = 0
    for _ in range(20000):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 16)))
        assert clean(text) == as_defined(text), text
        changed += clean(text) != text
    assert changed > 10000


@pytest.mark.usefixtures("a_minute")
@pytest.mark.parametrize(
    ("unit", "stays"),
    [("<!--", True), ("<a ", True), ('<a x="', True), ("<p x=y ", True), ("<a x=\"<p y='\" z=\"' ", True), ("&", True),
     ("&#", True), ("<!---->", False), ("<b><!--", False), (" \t", True), ("&#1", False)],
)  # fmt: skip
def test_a_megabyte_of_anything_is_cleaned_in_linear_time(unit: str, stays: bool) -> None:
    text = unit * (1_000_000 // len(unit))
    assert (cleaning("html").clean(text) == text.strip()) is stays


@pytest.mark.usefixtures("a_minute")
def test_a_megabyte_of_a_mixture_is_cleaned_in_linear_time() -> None:
    rng = random.Random(1)
    text = "".join(rng.choices(["<!--", "<a ", '<a x="', "<p x=y ", " ", "&", "'", "&#1"], k=250_000))
    assert len(cleaning("html").clean(text)) > 500_000


@pytest.mark.parametrize(
    ("reference", "cleaned"), [("1" * 5000, "\ufffd"), ("0" * 5000 + "65", "A"), ("0" * 5000, "\ufffd"), ("0" * 20 + "8211", "–")]
)  # fmt: skip
def test_a_reference_of_any_length(reference: str, cleaned: str) -> None:
    """Python converts numbers of 4,300 digits at most."""
    assert cleaning("html").clean(f"a&#{reference};b") == f"a{cleaned}b"


def test_none_leaves_every_character() -> None:
    assert cleaning("none").clean(" <br />\n&amp; ") == " <br />\n&amp; "


def test_a_step_by_name_and_version() -> None:
    for name, step in CLEANINGS.items():
        assert cleaning(name, step.version) is step
    with pytest.raises(ArtifactError, match=r"no step 'html' v2 \(it has html v1, none v1\)"):
        cleaning("html", 2)
    with pytest.raises(ArtifactError, match="no step 'lower' v1"):
        cleaning("lower", 1)
