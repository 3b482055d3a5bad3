"""Known scales: words that grade, from the least to the most, by which labels are recognised as having an order."""

import re
from collections.abc import Sequence

_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

# A scale is a sequence of levels, a level the names it goes by, as `_plain` writes them.
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


def graded(labels: Sequence[str]) -> tuple[str, ...] | None:
    """The labels from the least to the most, where three or more stand on one known scale or begin with a number word.

    None if they do not, or if two of them are of one level.
    """
    if len(labels) < 3:
        return None
    plain = [_plain(label) for label in labels]
    first = [name.split(" ")[0] for name in plain]
    scales = [*_SCALES, tuple(frozenset([word]) for word in _NUMBER_WORDS)]
    for scale, names in zip(scales, [*[plain] * len(_SCALES), first], strict=True):
        levels = [next((i for i, level in enumerate(scale) if name in level), None) for name in names]
        found = [level for level in levels if level is not None]
        if len(set(found)) == len(labels):
            return tuple(label for _, label in sorted(zip(found, labels, strict=True)))
    return None


def _plain(label: str) -> str:
    """The label in lower case, with single spaces between its words."""
    return re.sub(r"[\s_-]+", " ", label.lower()).strip()
