"""Recognises labels that have an order, by known scales such as low, medium, high."""

import re
from collections.abc import Sequence

_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

# A scale is a sequence of levels, a level a set of synonyms, normalised by `_plain`.
_SCALES = tuple(
    tuple(frozenset(level.split("|")) for level in scale.split(" < "))
    for scale in (
        "very negative|extremely negative|strongly negative < negative|neg < slightly negative|somewhat negative"
        " < neutral|neu|mixed < slightly positive|somewhat positive < positive|pos"
        " < very positive|extremely positive|strongly positive",
        "none < very low|lowest|minimal < low|minor|mild < medium|moderate|middle|mid|normal|average < high|major"
        " < very high|highest|severe < critical|extreme",
        "terrible|awful|very bad|worst < bad|poor < ok|okay|fair|average|neutral|acceptable|mediocre|so so < good"
        " < very good|great < excellent|best|perfect|outstanding",
        "xxs < xs|extra small|tiny < s|small < m|medium < l|large|big < xl|extra large|huge < xxl",
        "never < rarely|seldom < sometimes|occasionally < often|frequently|usually < always",
        "strongly disagree < disagree < somewhat disagree|slightly disagree < neutral|undecided|neither"
        " < somewhat agree|slightly agree < agree < strongly agree",
        "very unlikely < unlikely < possible|neutral < likely < very likely",
        "beginner|novice|basic < intermediate|medium < advanced < expert",
        "very easy < easy|simple < medium|moderate|normal < hard|difficult < very hard|very difficult",
        "slow < medium|normal|average < fast",
        "cold < cool < mild|warm < hot",
    )
)


def graded_order(labels: Sequence[str]) -> tuple[str, ...] | None:
    """Sort three or more labels that are all on one known scale, or all begin with a number word, from low to high.

    Returns None for any others, also if two of them are on the same level.
    """
    if len(labels) < 3:
        return None
    plain = [_plain(label) for label in labels]
    first_words = [name.split(" ")[0] for name in plain]
    scales = [*_SCALES, tuple(frozenset([word]) for word in _NUMBER_WORDS)]
    for scale, names in zip(scales, [*[plain] * len(_SCALES), first_words], strict=True):
        matches = [next((i for i, level in enumerate(scale) if name in level), None) for name in names]
        levels = [level for level in matches if level is not None]
        if len(set(levels)) == len(labels):
            return tuple(label for _, label in sorted(zip(levels, labels, strict=True)))
    return None


def _plain(label: str) -> str:
    """Return the label in lower case, with single spaces between its words."""
    return re.sub(r"[\s_-]+", " ", label.lower()).strip()
