"""Finds what separates the cells of a csv or tsv file: comma, semicolon, tab or bar.

A file is what its suffix says unless its own rows speak against it: of the first rows, fewer than half have as many cells as
the header, and by another separator nearly all have. A comma within a text is no reason, nor is a semicolon.
"""

import csv
from collections.abc import Sequence

from distilora.errors import ConfigError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
ROWS, BYTES = 32, 1 << 16  # what is looked at: as many lines, or as many bytes
_SPELLED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "bar": "|"}
_OWN, _OTHER = 0.5, 0.9  # share of rows that fit, below which the suffix is doubted and above which another is believed


def separator_from(given: str, setting: str) -> str:
    """The character that a setting means: itself, or by name (tab). Raises ConfigError naming the setting."""
    separator = _SPELLED.get(given.lower(), given)
    if len(separator) != 1 or separator in '"\r\n ' or separator.isalnum():
        raise ConfigError(f"{setting}: {given!r} given, one character such as ';', '|' or tab wanted")
    return separator


def find_separator(lines: Sequence[bytes], own: str) -> str:
    """The separator of a table that begins with these lines, `own` where nothing speaks against it."""
    text = [line.decode("utf-8-sig" if i == 0 else "utf-8", "replace") for i, line in enumerate(lines)]
    if _fit(text, own)[0] >= _OWN:
        return own
    fits = {separator: _fit(text, separator) for separator in SEPARATORS if separator != own}
    best = max(fits, key=lambda separator: fits[separator])
    return best if fits[best][0] >= _OTHER else own


def _fit(lines: Sequence[str], separator: str) -> tuple[float, int]:
    """The share of rows with as many cells as the header, and how many these are; (0, 1) for a header of one cell."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    counts: list[int] = []
    while True:
        try:
            cells = next(reader, None)
        except csv.Error:
            if reader.line_num >= len(lines):
                break  # what is looked at may end within a quote
            counts.append(0)
            continue
        if cells is None:
            break
        if cells:
            counts.append(len(cells))
    if not counts or counts[0] < 2:
        return 0.0, 1
    rows = counts[1:]
    return (sum(count == counts[0] for count in rows) / len(rows) if rows else 1.0), counts[0]
