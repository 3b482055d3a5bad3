"""Fragments of training texts: neighbouring sentences of the text itself, with its target."""

import numpy as np

from distilora.data.examples import Example, Examples
from distilora.data.fragments import cut_fragments, sentence_starts


def test_sentences() -> None:
    text = 'Good. Very good!! "Was it?" He said ... no'
    starts = sentence_starts(text)
    assert [text[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] == [
        "Good.", "Very good!!", '"Was it?"', "He said ...", "no",
    ]  # fmt: skip
    assert sentence_starts("no end") == [0]
    assert sentence_starts("An end. ") == [0]


def test_fragments_are_neighbouring_sentences_with_the_target_of_their_text() -> None:
    sentences = [f"Sentence {n}." for n in range(8)]
    examples = Examples("train", [Example((" ".join(sentences),), target) for target in range(400)])
    cut = cut_fragments(examples, 0.5, 3)
    assert len(cut.examples) == 200
    assert len(set(cut.source.tolist())) == 200
    counts = set()
    for example, source in zip(cut.examples.items, cut.source, strict=True):
        parts = example.texts[0].split(". ")
        first = int(parts[0].removeprefix("Sentence ").rstrip("."))
        counts.add(len(parts))
        assert example.texts[0] == " ".join(sentences[first : first + len(parts)])
        assert example.target == source
    assert counts == {1, 2, 3}


def test_the_seed_decides_and_single_sentences_stay_out() -> None:
    examples = Examples("train", [Example(("One. Two. Three. Four.",)), Example(("only one",))] * 50)
    a, b, c = (cut_fragments(examples, 1.0, seed) for seed in (0, 0, 1))
    assert [e.texts for e in a.examples.items] == [e.texts for e in b.examples.items]
    assert [e.texts for e in a.examples.items] != [e.texts for e in c.examples.items]
    assert np.all(a.source % 2 == 0)
    assert not len(cut_fragments(examples, 0.0, 0).examples)
