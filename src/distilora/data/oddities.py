"""Finds texts that look unlike the others of their table: too short, far too long, one character, another script, mojibake.

All thresholds are meant to be seldom wrong rather than complete; what is typical is taken from the texts themselves.

    far longer    words > Q3 * max((Q3 / Q1)^3, 4)      Tukey's outer fence on the logarithms of the lengths
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np

TYPICAL_SHARE = 0.9  # of the texts that must be in one script for another to be odd
FEW = 20  # texts below which no length is typical
LONG = 10  # words of the median text from which on a text of one word is too short
REPEATED = 8  # characters from which on a text can be one of them repeated
_NOT_ASCII = re.compile(r"[^\x00-\x7f]{2,}")
_CONTROL = re.compile(r"[\x80-\x9f\ufffd]")  # Windows' characters read as Latin-1, and the mark of a lost character


def find_oddities(texts: Sequence[str]) -> list[tuple[int, str]]:
    """Find odd texts among cleaned ones that are not blank; return the index of each with what is odd, in words.

    Those whose kind is rarest come first, so that a common one (the wrong encoding of a whole file) does not hide them.
    """
    sizes = np.asarray([len(text.split()) for text in texts], np.float64)
    repeated, scripts = [], []
    for counts in map(Counter, texts):  # one at a time: those of 200,000 texts take 0.3 GB
        repeated.append(_repeated(counts))
        scripts.append(_main_script(counts))
    usual = _usual_script(scripts)
    shortest, longest = _bounds(sizes)
    odd = []
    for i, text in enumerate(texts):
        reason = repeated[i] or mojibake(text)
        if not reason and usual and scripts[i] not in ("", usual):
            reason = f"in another script ({scripts[i].lower()}) than the others ({usual.lower()})"
        if not reason and sizes[i] < shortest:
            reason = "too short (1 word)"
        if not reason and sizes[i] > longest:
            reason = f"far longer than the others ({int(sizes[i]):,} words; median {int(np.median(sizes)):,})"
        if reason:
            odd.append((i, reason))
    kinds = Counter(_kind(reason) for _, reason in odd)
    return sorted(odd, key=lambda one: (kinds[_kind(one[1])], _kind(one[1])))


def _kind(reason: str) -> str:
    return reason.partition(" (")[0]


def mojibake(text: str) -> str:
    """Say where a text holds UTF-8 that was read in another encoding, as "Ã©" for "é"; "" if nowhere."""
    lost = _CONTROL.search(text)
    if lost:
        return f"mojibake (the character U+{ord(lost[0]):04X})"
    for run in _NOT_ASCII.finditer(text):
        try:
            meant = b"".join(map(_byte, run[0])).decode("utf-8")
        except UnicodeError:
            continue
        return f"mojibake ({run[0]!r:.30} is {meant!r:.30} read in another encoding)"
    return ""


def _byte(character: str) -> bytes:
    """Return the byte that Windows-1252, or where it has none Latin-1, reads as this character."""
    try:
        return character.encode("cp1252")
    except UnicodeEncodeError:
        return character.encode("latin-1")


def _repeated(counts: Counter[str]) -> str:
    visible = {character: count for character, count in counts.items() if not character.isspace()}
    character = max(visible, key=lambda c: visible[c])
    total = sum(visible.values())
    if total < REPEATED or 2 * visible[character] <= total:
        return ""
    return f"one character repeated ({character!r}, {visible[character]:,} times)"


def _main_script(counts: Counter[str]) -> str:
    """Find the script of more than half of a text's letters; "" if there is none, or fewer than three letters."""
    letters: Counter[str] = Counter()
    for character, count in counts.items():
        if character.isalpha():
            letters[_script(character)] += count
    if letters.total() < 3:
        return ""
    script, count = letters.most_common(1)[0]
    return script if 2 * count > letters.total() else ""


@cache
def _script(character: str) -> str:
    """Return the first word of a letter's Unicode name, which is its script: LATIN, CYRILLIC, CJK ..."""
    return unicodedata.name(character, "UNKNOWN").split()[0]


def _usual_script(scripts: Sequence[str]) -> str:
    present = Counter(script for script in scripts if script)
    if not present:
        return ""
    script, count = present.most_common(1)[0]
    return script if count >= TYPICAL_SHARE * present.total() else ""


def _bounds(sizes: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float]:
    """Compute the fewest and the most words that are not odd."""
    if len(sizes) < FEW:
        return 0.0, np.inf
    first, median, third = np.maximum(np.quantile(sizes, [0.25, 0.5, 0.75]), 1)
    return 2.0 if median >= LONG else 0.0, float(third * max((third / first) ** 3, 4))
