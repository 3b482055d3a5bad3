"""Cleaning takes out mark-up and nothing else."""

import pytest

from distilora.cleaning import CLEANINGS, cleaning
from distilora.errors import ArtifactError


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


def test_an_endless_tag_takes_no_time() -> None:
    text = "<a " + "x=1 " * 20000
    assert cleaning("html").clean(text) == text.strip()


def test_none_leaves_every_character() -> None:
    assert cleaning("none").clean(" <br />\n&amp; ") == " <br />\n&amp; "


def test_a_step_by_name_and_version() -> None:
    for name, step in CLEANINGS.items():
        assert cleaning(name, step.version) is step
    with pytest.raises(ArtifactError, match=r"no step 'html' v2 \(it has html v1, none v1\)"):
        cleaning("html", 2)
    with pytest.raises(ArtifactError, match="no step 'lower' v1"):
        cleaning("lower", 1)
