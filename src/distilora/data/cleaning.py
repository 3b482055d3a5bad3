"""Cleans a text before tokenising: one named, versioned step, the same in training, prediction and serving.

The artifact records the step's name and version; a model is never fed through another one. A change of what a step does
raises its version. A step takes time linear in the text's length, whatever the text.
"""

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from distilora.errors import ArtifactError

# Only real tag names, and only attributes with a value, so that "a<b and c>d" stays as written.
_TAGS = (
    "a|abbr|b|big|blockquote|body|br|center|cite|code|dd|del|div|dl|dt|em|font|h[1-6]|head|hr|html|i|img|ins|li|link"
    "|meta|ol|p|pre|q|s|script|small|span|strike|strong|style|sub|sup|table|tbody|td|th|thead|title|tr|tt|u|ul"
)
# Linear: no tag has "<" outside quotes, so that a character is scanned for three unfinished tags at most, one outside quotes
# and one in each kind of them. The end of a comment has no such bound; `_without_markup` searches for it.
_MARKUP = re.compile(
    rf"<!--|</?(?:{_TAGS})(?:\s+[a-z:-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'<>]+))*\s*/?>", re.IGNORECASE
)
LONG_REFERENCE = re.compile(r"&#([0-9]{10,})")
SPACE = re.compile(r"\s+")


def _html(text: str) -> str:
    return SPACE.sub(" ", html.unescape(LONG_REFERENCE.sub(shortened, _without_markup(text)))).strip()


def _without_markup(text: str) -> str:
    """Replace each tag and each closed comment by a space."""
    pieces: list[str] = []
    copied = 0
    for start, end in markup(text):
        pieces.append(text[copied:start])
        copied = end
    return " ".join([*pieces, text[copied:]])


def markup(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each tag and each closed comment."""
    position = 0
    closed = True  # after an unclosed comment, none is closed
    while found := _MARKUP.search(text, position):
        position = found.end()
        if found[0] == "<!--":
            end = text.find("-->", position) if closed else -1
            closed = end >= 0
            if not closed:
                continue
            position = end + len("-->")
        yield found.start(), position


def shortened(reference: re.Match[str]) -> str:
    """Shorten a reference to a number that Python converts (4,300 digits at most); it means the same character, or still none."""
    return "&#" + (reference[1].lstrip("0")[:8] or "0")


def _nothing(text: str) -> str:
    return text


@dataclass(frozen=True)
class Cleaning:
    """A cleaning step: `clean(text)` returns the text to tokenise."""

    name: str
    version: int
    clean: Callable[[str], str]


CLEANINGS = {
    "html": Cleaning("html", 1, _html),  # tags to spaces, entities decoded, white space collapsed
    "none": Cleaning("none", 1, _nothing),
}


def cleaning(name: str, version: int | None = None) -> Cleaning:
    """Return the step called `name`; `version` is the one an artifact recorded.

    Raises ArtifactError if this release has no such step, or has it in another version.
    """
    step = CLEANINGS.get(name)
    if step is None or (version is not None and version != step.version):
        steps = ", ".join(f"{s.name} v{s.version}" for s in CLEANINGS.values())
        raise ArtifactError(f"cleaning: this release has no step {name!r} v{version} (it has {steps})")
    return step
