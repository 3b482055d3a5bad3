"""Cuts fragments out of training texts, so that a model of long texts learns to read short ones, too.

A fragment is one to three neighbouring sentences, and has its text's target. That is a noisy label, and the right one to learn
from: the model learns how far a few sentences tell what the whole text says. Trained on long reviews alone, encoders were seen to
lose accuracy on short posts (LOG.md: Short texts).
"""

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from distilora.data.examples import Examples

MOST_SENTENCES = 3
_END = re.compile(r"[.!?…。！？]+[\"'”’)\]]*\s+")


@dataclass(frozen=True)
class Fragments:
    """Fragments of some of the examples; `source[i]` is the index of the example that fragment i was cut out of."""

    examples: Examples
    source: NDArray[np.int64]


def cut_fragments(examples: Examples, share: float, seed: int) -> Fragments:
    """Cut one fragment out of each of a random `share` of the examples, texts of a single sentence left out.

    Args:
        examples: examples of one text each.
        share: from 0 to 1.
        seed: decides which examples, and which sentences.
    """
    rng = np.random.default_rng([seed, 0xF4A6])
    chosen = np.sort(rng.permutation(len(examples))[: round(share * len(examples))])
    items, source = [], []
    for index in chosen.tolist():
        example = examples.items[index]
        (text,) = example.texts
        starts = sentence_starts(text)
        first, count = int(rng.integers(len(starts))), int(rng.integers(1, MOST_SENTENCES + 1))
        if len(starts) == 1:
            continue
        ends = [*starts[1:], len(text)]
        last = min(first + count, len(starts)) - 1
        items.append(replace(example, texts=(text[starts[first] : ends[last]].strip(),)))
        source.append(index)
    return Fragments(Examples("fragments", items), np.asarray(source, np.int64))


def sentence_starts(text: str) -> list[int]:
    """Find where the sentences of a text start, in characters; a sentence ends with its closing marks, then white space."""
    return [0, *(match.end() for match in _END.finditer(text) if match.end() < len(text))]
