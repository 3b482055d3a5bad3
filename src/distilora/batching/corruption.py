"""Corrupts rows of tokens: some are replaced by others that often follow the token before, as a bigram model would write.

It is the generator of replaced-token detection (ELECTRA, Clark et al. 2020) without a network: it costs nothing, and its
replacements are plausible enough that telling them apart takes more context than the token before. Torch-free.
"""

import numpy as np
from numpy.typing import NDArray

from distilora.batching.rows import Rows, rows_of

Ids = NDArray[np.int32]


class Bigrams:
    """Tokens that followed each token in a corpus, as often as they did; special tokens follow none."""

    def __init__(self, rows: Rows, special: Ids) -> None:
        ids = np.asarray(rows.ids)
        before, after = ids[:-1], ids[1:]
        inside = np.ones(len(before), bool)
        inside[rows.offsets[1:-1] - 1] = False  # pairs of two rows
        inside &= ~np.isin(after, special)
        before, after = before[inside], after[inside]
        order = np.argsort(before, kind="stable")
        self._after, self._before = after[order], before[order]

    def draw(self, before: Ids, rng: np.random.Generator) -> Ids:
        """Draw a token for each of the tokens `before`, [N]; where nothing is known to follow, the token itself."""
        starts, ends = (np.searchsorted(self._before, before, side) for side in ("left", "right"))  # type: ignore[call-overload]
        counts = ends - starts
        places = np.minimum(starts + (rng.random(len(before)) * counts).astype(np.int64), max(len(self._after) - 1, 0))
        return np.where(counts > 0, self._after[places], before).astype(np.int32) if len(self._after) else before


def stretches(rows: Rows, special: Ids, length: int, tokens: int, rng: np.random.Generator) -> Rows:
    """Cut a random stretch out of each row, special tokens at its ends kept, until there are about `tokens` tokens.

    Args:
        rows: rows of one text each.
        special: numbers of the special tokens.
        length: most tokens of a stretch, special ones included.
        tokens: tokens wanted; rows are taken in random order, all of them again when they are used up.
    """
    pieces: list[list[Ids]] = []
    total = 0
    while total < tokens:
        for index in rng.permutation(len(rows)).tolist():
            ids = rows.ids[rows.offsets[index] : rows.offsets[index + 1]]
            body = np.flatnonzero(~np.isin(ids, special))
            if not len(body):
                continue
            first, last = int(body[0]), int(body[-1]) + 1
            room = max(length - first - (len(ids) - last), 1)
            start = first + int(rng.integers(max(last - first - room, 0) + 1))
            piece = np.concatenate([ids[:first], ids[start : min(start + room, last)], ids[last:]])
            pieces.append([piece])
            total += len(piece)
            if total >= tokens:
                break
        if not pieces:
            break
    return rows_of(pieces)  # type: ignore[arg-type]


def corrupt(
    rows: Rows, bigrams: Bigrams, special: Ids, share: float, rng: np.random.Generator
) -> tuple[Rows, NDArray[np.bool_]]:
    """Replace a share of the tokens; return the rows and which tokens are others than before, [T].

    Special tokens stay, and so does the first token of a row.
    """
    ids = np.asarray(rows.ids)
    replaceable = ~np.isin(ids, special)
    replaceable[rows.offsets[:-1]] = False
    chosen = np.flatnonzero(replaceable & (rng.random(len(ids)) < share))
    changed = ids.copy()
    changed[chosen] = bigrams.draw(ids[chosen - 1], rng)
    return Rows(changed, rows.offsets, rows.row, rows.group), changed != ids
