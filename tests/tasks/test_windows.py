"""A long context is read whole, in windows that overlap; every token knows its characters."""

import numpy as np
from support.tiny import PLAIN, tiny_tokenizer

from distilora.tasks.windows import Windows


def windows(length: int = 20, overlap: int = 5) -> Windows:
    tokenizer = tiny_tokenizer()
    tokenizer.enable_truncation(length)
    return Windows(tokenizer, overlap)


def test_a_short_context_is_one_window() -> None:
    tokens = windows().tokens([("the film", "a plot and music")])
    rows, tokenizer = tokens.rows, tiny_tokenizer()
    assert [tokenizer.id_to_token(i) for i in rows.ids] == "[CLS] the film [SEP] a plot and music [SEP]".split()
    assert not tokens.truncated.any()
    assert tokens.lengths.tolist() == [len(rows.ids)]
    (encoded,) = windows().spans([("the film", "a plot and music")])
    assert ["a plot and music"[s:e] for s, e in encoded.spans[encoded.inside]] == ["a", "plot", "and", "music"]


def test_nothing_of_a_long_context_is_lost() -> None:
    context = " ".join(PLAIN * 4)
    rows = windows().tokens([("the film", context), ("a", "the")]).rows
    first, second = windows().spans([("the film", context), ("a", "the")])
    assert rows.groups == 2
    assert len(rows) > 4
    assert rows.lengths.max() <= 20
    assert len(first.window) + len(second.window) == len(rows.ids)
    assert sorted({context[s:e] for s, e in first.spans[first.inside]}) == sorted(set(PLAIN))
    starts = first.spans[first.inside][:, 0]
    assert sorted(set(starts.tolist())) == [i for i, c in enumerate(context) if i == 0 or context[i - 1] == " "]
    assert len(starts) > len(set(starts.tolist()))  # in two windows
    assert np.array_equal(first.firsts, np.flatnonzero(np.diff(first.window, prepend=-1)))


def test_what_windows_repeat_counts_once() -> None:
    context = " ".join(PLAIN * 4)
    tokens = windows().tokens([("the film", context), ("a", "the")])
    specials = 3
    assert tokens.lengths.tolist() == [2 + 4 * len(PLAIN) + specials, 1 + 1 + specials]
    assert tokens.rows.group_lengths[0] > tokens.lengths[0]


def test_a_long_question_leaves_half_a_window() -> None:
    question, context = " ".join(PLAIN * 2), " ".join(PLAIN)
    tokens = windows().tokens([(question, context), ("the film", context)])
    assert tokens.rows.lengths.max() <= 20
    assert tokens.truncated.tolist() == [True, False]
    (encoded,) = windows().spans([(question, context)])
    assert {context[s:e] for s, e in encoded.spans[encoded.inside]} == set(PLAIN)


def test_an_empty_context_has_no_token_inside() -> None:
    (encoded,) = windows().spans([("the film", "")])
    assert not encoded.inside.any()
