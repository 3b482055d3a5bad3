"""Finds the separator of a csv or tsv file's cells: comma, semicolon, tab or bar.

The suffix holds unless the file's own rows speak against it: fewer than half of the first rows have as many cells as the
header, and with another separator nearly all have. A comma or semicolon within a text does not suffice.
"""

import csv
from collections.abc import Sequence

from distilora.errors import ConfigError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
ROWS, BYTES = 32, 1 << 16  # examined: so many lines, or so many bytes
_SPELLED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "bar": "|"}
_DOUBT = 0.5  # share of rows that fit the suffix's separator, below which it is doubted
_BELIEVE = 0.9  # share of rows that fit another separator, from which on that one is believed


def separator_from(value: str, setting: str) -> str:
    """Return the character that a setting means: itself, or by name (tab). Raises ConfigError naming the setting."""
    separator = _SPELLED.get(value.lower(), value)
    if len(separator) != 1 or separator in '"\r\n ' or separator.isalnum():
        raise ConfigError(f"{setting}: {value!r} given, one character such as ';', '|' or tab wanted")
    return separator


def find_separator(lines: Sequence[bytes], usual: str) -> str:
    """Find the separator of a table that begins with these lines; `usual`, its suffix's, unless they speak against it."""
    text = [line.decode("utf-8-sig" if i == 0 else "utf-8", "replace") for i, line in enumerate(lines)]
    if _fit(text, usual)[0] >= _DOUBT:
        return usual
    fits = {separator: _fit(text, separator) for separator in SEPARATORS if separator != usual}
    best = max(fits, key=lambda separator: fits[separator])
    return best if fits[best][0] >= _BELIEVE else usual


def _fit(lines: Sequence[str], separator: str) -> tuple[float, int]:
    """Return the share of rows with as many cells as the header, and that count; (0, 1) for a header of one cell."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    counts: list[int] = []
    while True:
        try:
            cells = next(reader, None)
        except csv.Error:
            if reader.line_num >= len(lines):
                break  # the last line may end within a quote
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
