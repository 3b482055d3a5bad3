"""N-grams: their keys, their spans, and texts that hold none."""

import hashlib

import numpy as np
import pytest

from distilora.lexicon import ngrams as module
from distilora.lexicon.ngrams import ngram_keys, ngrams, stacked_keys


def test_a_word_has_its_hash_as_key() -> None:
    expected = int.from_bytes(hashlib.blake2b(b"dull", digest_size=8).digest(), "little")
    assert ngram_keys("Dull").tolist() == [expected]


def test_keys_depend_on_words_and_their_order_alone() -> None:
    keys = ngram_keys("not a good film")
    assert len(keys) == 4 + 3 + 2
    assert np.array_equal(keys, np.unique(keys))
    assert np.array_equal(keys, ngram_keys("  Not a\tGOOD film "))
    assert not np.array_equal(keys, ngram_keys("a good film not"))
    assert np.isin(ngram_keys("not a good"), keys).all()
    assert not np.isin(ngram_keys("good a")[0:], keys).all()


def test_marks_and_apostrophes() -> None:
    text = "Don't go, it's dull!"
    assert [text[n.start : n.end] for n in ngrams(text, 1)] == ["Don't", "go", ",", "it's", "dull", "!"]
    assert [text[n.start : n.end] for n in ngrams(text, 2)][6:] == ["Don't go", "go,", ", it's", "it's dull", "dull!"]


def test_occurrences_are_those_of_the_set() -> None:
    text = "dull, dull and dull"
    occurrences = ngrams(text)
    assert len(occurrences) == 5 + 4 + 3
    assert sorted({n.key for n in occurrences}) == ngram_keys(text).tolist()


@pytest.mark.parametrize("text", ["", "   ", "\N{SLIGHTLY SMILING FACE}"])
def test_a_text_without_words_has_none(text: str) -> None:
    assert len(ngram_keys(text)) == 0
    assert ngrams(text) == []


def test_a_letter_that_lower_case_makes_longer_moves_no_span() -> None:
    text = "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}stanbul was DULL"
    assert len(text.lower()) == len(text) + 1
    assert [text[n.start : n.end] for n in ngrams(text, 1)] == text.split()
    assert np.isin(ngram_keys("was dull"), ngram_keys(text)).all()


def test_texts_are_stacked() -> None:
    keys, offsets = stacked_keys(["dull", "", "a warm film"])
    assert offsets.tolist() == [0, 1, 1, 7]
    assert np.array_equal(keys[1:], ngram_keys("a warm film"))
    assert stacked_keys([])[1].tolist() == [0]


def test_the_cache_of_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CACHED", 10)
    monkeypatch.setattr(module, "_word_keys", module._WordKeys())
    before = ngram_keys("superb")
    for i in range(100):
        ngram_keys(f"word{i}")
        assert len(module._word_keys) <= 10
    assert np.array_equal(ngram_keys("superb"), before)
