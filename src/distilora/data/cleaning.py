"""Cleans a text before tokenising: one named, versioned step, the same in training, prediction and serving.

The artifact records the step's name and version; a model is never fed through another one. Change what a step
does and its version goes up. A step takes time in proportion to the text, whatever stands in it.
"""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass

from distilora.errors import ArtifactError

# Only real tag names, and only attributes with a value, so that "a<b and c>d" stays as written.
_TAGS = (
    "a|abbr|b|big|blockquote|body|br|center|cite|code|dd|del|div|dl|dt|em|font|h[1-6]|head|hr|html|i|img|ins|li|link"
    "|meta|ol|p|pre|q|s|script|small|span|strike|strong|style|sub|sup|table|tbody|td|th|thead|title|tr|tt|u|ul"
)
# Linear: "<" stands in no tag outside quotes, so that a character is read for three unfinished tags at most, one outside
# quotes and one in each kind. The end of a comment has no such bound and is looked for by `_without_markup`.
_MARKUP = re.compile(
    rf"<!--|</?(?:{_TAGS})(?:\s+[a-z:-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'<>]+))*\s*/?>", re.IGNORECASE
)
_LONG_REFERENCE = re.compile(r"&#([0-9]{10,})")
_SPACE = re.compile(r"\s+")


def _html(text: str) -> str:
    return _SPACE.sub(" ", html.unescape(_LONG_REFERENCE.sub(_shortened, _without_markup(text)))).strip()


def _without_markup(text: str) -> str:
    """The text with a space in place of each tag and each comment that is closed."""
    pieces: list[str] = []
    copied = place = 0
    closed = True  # where one comment is not closed, none behind it is
    while markup := _MARKUP.search(text, place):
        place = markup.end()
        if markup[0] == "<!--":
            end = text.find("-->", place) if closed else -1
            closed = end >= 0
            if not closed:
                continue
            place = end + len("-->")
        pieces.append(text[copied : markup.start()])
        copied = place
    return " ".join([*pieces, text[copied:]])


def _shortened(reference: re.Match[str]) -> str:
    """A reference to the same character, or to none as before, by a number that Python converts (4,300 digits at most)."""
    return "&#" + (reference[1].lstrip("0")[:8] or "0")


def _nothing(text: str) -> str:
    return text


@dataclass(frozen=True)
class Cleaning:
    """A cleaning step: `clean(text)` gives the text that is tokenised."""

    name: str
    version: int
    clean: Callable[[str], str]


CLEANINGS = {
    "html": Cleaning("html", 1, _html),  # tags to spaces, entities decoded, white space collapsed
    "none": Cleaning("none", 1, _nothing),
}


def cleaning(name: str, version: int | None = None) -> Cleaning:
    """The step called `name`; with `version`, the one an artifact recorded.

    Raises ArtifactError if this release has no such step, or has it in another version.
    """
    found = CLEANINGS.get(name)
    if found is None or (version is not None and version != found.version):
        have = ", ".join(f"{step.name} v{step.version}" for step in CLEANINGS.values())
        raise ArtifactError(f"cleaning: this release has no step {name!r} v{version} (it has {have})")
    return found
