"""Tokenising: cut on the side asked for, flagged where cut, one row for each text."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny import tiny_reviews, tiny_tokenizer

from distilora.batching import tokens
from distilora.batching.rows import Rows
from distilora.batching.tokens import BATCH, read_tokenizer, stretches_read, tokenise, unknown_only, with_truncation
from distilora.data.examples import Example
from distilora.errors import ArtifactError

WORDS = "the film was superb but the ending is dull".split()


def read(tokenizer: Any, examples: Sequence[Example]) -> tuple[Rows, NDArray[np.bool_]]:
    found = tokenise(tokenizer, examples)
    return found.rows, found.truncated


def pieces(tokenizer, rows, i: int) -> list[str]:
    return [tokenizer.id_to_token(id_) for id_ in rows.ids[rows.offsets[i] : rows.offsets[i + 1]]]


@pytest.mark.parametrize(("side", "kept"), [("right", WORDS[:4]), ("left", WORDS[-4:])])
def test_truncation(side: str, kept: list[str]) -> None:
    tokenizer = with_truncation(tiny_tokenizer(), 6, side)
    examples = [Example((" ".join(WORDS),)), Example((" ".join(WORDS[:4]),)), Example(("",))]
    rows, truncated = read(tokenizer, examples)
    assert pieces(tokenizer, rows, 0) == ["[CLS]", *kept, "[SEP]"]
    assert pieces(tokenizer, rows, 1) == ["[CLS]", *WORDS[:4], "[SEP]"]
    assert pieces(tokenizer, rows, 2) == ["[CLS]", "[SEP]"]
    assert truncated.tolist() == [True, False, False]


def test_a_row_for_each_text() -> None:
    tokenizer = with_truncation(tiny_tokenizer(), 6, "right")
    long = " ".join(WORDS)
    rows, truncated = read(tokenizer, [Example(("a film", long)), Example(("a plot",)), Example(("this", "that"))])
    assert rows.group.tolist() == [0, 0, 1, 2, 2]
    assert rows.row.tolist() == [0, 1, 0, 0, 1]
    assert rows.lengths.tolist() == [4, 6, 4, 3, 3]
    assert truncated.tolist() == [True, False, False]
    assert pieces(tokenizer, rows, 3) == ["[CLS]", "this", "[SEP]"]


def test_padding_is_taken_off() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.enable_padding(length=32)
    assert tokenise(with_truncation(tokenizer, 16, "right"), [Example(("a film",))]).rows.lengths.tolist() == [4]


def test_what_a_foreign_file_stores(tmp_path: Path) -> None:
    """Padding and truncation of its last call: the one is dropped, the other capped; the side is the folder's."""
    file, long = tmp_path / "tokenizer.json", " ".join(WORDS)
    examples = [Example((long,)), Example(("a film",))]
    for stored, expected in ((4, 4), (1000, 6), (None, 6)):
        tokenizer = tiny_tokenizer()
        tokenizer.enable_padding(length=32)
        if stored:
            tokenizer.enable_truncation(stored, stride=1, direction="left")
        tokenizer.save(str(file))
        assert tokenise(read_tokenizer(file), examples[1:]).rows.lengths.tolist() == [4]
        tokenizer = read_tokenizer(file, 6)
        rows, truncated = read(tokenizer, examples)
        assert rows.lengths.tolist() == [expected, 4]
        assert truncated.tolist() == [True, False]
        assert pieces(tokenizer, rows, 0)[1:-1] == (WORDS[2 - expected :] if stored else WORDS[: expected - 2])
    for side in ("left", "right"):
        (tmp_path / "tokenizer_config.json").write_text(f'{{"truncation_side": "{side}"}}')
        assert read_tokenizer(file, 6).truncation["direction"] == side


def test_order_over_many_batches() -> None:
    words = [WORDS[i % len(WORDS)] for i in range(2 * BATCH + 3)]
    tokenizer = tiny_tokenizer()
    rows, truncated = read(tokenizer, [Example((word,)) for word in words])
    assert [tokenizer.id_to_token(id_) for id_ in rows.ids[1::3]] == words
    assert len(truncated) == rows.groups == len(words)


def test_nothing() -> None:
    rows, truncated = read(tiny_tokenizer(), [])
    assert (rows.groups, len(truncated)) == (0, 0)


def test_truncation_travels_in_the_file(tmp_path: Path) -> None:
    with_truncation(tiny_tokenizer(), 6, "left").save(str(tmp_path / "tokenizer.json"))
    tokenizer = read_tokenizer(tmp_path / "tokenizer.json")
    rows, truncated = read(tokenizer, [Example((" ".join(WORDS),))])
    assert pieces(tokenizer, rows, 0) == ["[CLS]", *WORDS[-4:], "[SEP]"]
    assert truncated.tolist() == [True]


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    for name in ("tokenizer.json", "missing.json"):
        with pytest.raises(ArtifactError, match=name):
            read_tokenizer(tmp_path / name)


def test_a_large_corpus_is_mapped_from_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [Example((text,)) for text, _ in tiny_reviews(700)]
    expected = tokens.tokenise(tiny_tokenizer(), examples)
    assert not isinstance(expected.rows.ids, np.memmap)
    monkeypatch.setattr(tokens, "MAPPED", 3000)
    monkeypatch.setattr(tokens, "BATCH", 100)
    mapped = tokens.tokenise(tiny_tokenizer(), examples)
    assert isinstance(mapped.rows.ids, np.memmap)
    assert np.array_equal(mapped.rows.ids, expected.rows.ids)
    assert np.array_equal(mapped.rows.offsets, expected.rows.offsets)
    assert np.array_equal(mapped.rows.group, expected.rows.group)
    assert np.array_equal(mapped.rows.take([699, 3]).ids, expected.rows.take([699, 3]).ids)
    with pytest.raises(ValueError, match="read-only"):
        mapped.rows.ids[0] = 1


def test_texts_of_which_nothing_is_known_are_counted() -> None:
    tokenizer = with_truncation(tiny_tokenizer(), 64, "right")
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])  # as every published one has them
    texts = ["a superb film", "😀😍👍", "фильм", "a 😀", "Ω Ω Ω"]
    rows = tokenise(tokenizer, [Example((text,)) for text in texts]).rows
    assert unknown_only(tokenizer, rows) == 3
    middle = with_truncation(tokenizer, 8, "middle")
    long = ["Ω " * 20, f"a {'Ω ' * 20}", f"{'Ω ' * 10} a {'Ω ' * 10}"]  # the last one's word is cut out
    assert unknown_only(middle, tokenise(middle, [Example((text,)) for text in long]).rows) == 2
    assert unknown_only(tokenizer, rows.take([0, 3])) == 0


@pytest.mark.parametrize(
    ("side", "kept"),
    [("right", [(0, 4)]), ("left", [(4, 8)]), ("middle", [(0, 1), (6, 8)])],  # first and last word
)
def test_the_stretches_of_a_text_that_are_read(side: str, kept: list[tuple[int, int]]) -> None:
    tokenizer = with_truncation(tiny_tokenizer(), 7, side)
    for text in (" ".join(WORDS), f"  {'   '.join(WORDS)}  "):
        words = [match.span() for match in re.finditer(r"\S+", text)]
        wanted = [(words[first][0], words[last][1]) for first, last in kept]
        assert stretches_read(tokenizer.encode(text), text) == wanted
    assert stretches_read(tokenizer.encode(" a film "), " a film ") == [(0, 8)]
    assert stretches_read(tokenizer.encode(""), "") == [(0, 0)]


def test_the_middle_goes_before_what_a_file_stores(tmp_path: Path) -> None:
    for side in ("right", "middle"):
        with_truncation(tiny_tokenizer(), 6, side).save(str(tmp_path / "tokenizer.json"))
        tokenizer = read_tokenizer(tmp_path / "tokenizer.json", 6, "middle")
        rows, truncated = read(tokenizer, [Example((" ".join(WORDS),)), Example(("a film",))])
        assert pieces(tokenizer, rows, 0) == ["[CLS]", WORDS[0], *WORDS[-3:], "[SEP]"]
        assert pieces(tokenizer, rows, 1) == ["[CLS]", "a", "film", "[SEP]"]
        assert truncated.tolist() == [True, False]
    assert read_tokenizer(tmp_path / "tokenizer.json").truncation is None
