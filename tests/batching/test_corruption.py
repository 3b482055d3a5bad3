"""Corrupted rows: stretches of the texts with tokens that follow what stands before them; special tokens stay."""

import numpy as np

from distilora.batching.corruption import Bigrams, corrupt, stretches
from distilora.batching.rows import rows_of

CLS, SEP = 1, 2
SPECIAL = np.asarray([0, CLS, SEP], np.int32)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_bigrams_draw_what_followed_as_often_as_it_did() -> None:
    rows = rows_of([[[CLS, 5, 6, SEP]], [[CLS, 5, 7, 5, 6, 5, 6, SEP]], [[CLS, 9, SEP]]])
    drawn = Bigrams(rows, SPECIAL).draw(np.full(4000, 5, np.int32), rng())
    assert set(drawn.tolist()) == {6, 7}
    assert abs(np.mean(drawn == 6) - 0.75) < 0.03
    # 9 ends a row: neither the separator nor the next row's start follows it; of an unknown token nothing is known
    assert Bigrams(rows, SPECIAL).draw(np.asarray([9, 77], np.int32), rng()).tolist() == [9, 77]
    assert set(Bigrams(rows, SPECIAL).draw(np.full(50, CLS, np.int32), rng()).tolist()) == {5, 9}


def test_stretches_are_parts_of_the_rows_between_their_special_tokens() -> None:
    texts = [list(range(10 + 100 * n, 10 + 100 * n + 60)) for n in range(5)]
    rows = rows_of([[[CLS, *text, SEP]] for text in texts] + [[[CLS, SEP]]])
    cut = stretches(rows, SPECIAL, 16, 400, rng())
    assert 400 <= len(cut.ids) < 416
    starts = set()
    for index in range(len(cut)):
        ids = cut.ids[cut.offsets[index] : cut.offsets[index + 1]].tolist()
        assert (ids[0], ids[-1], len(ids)) == (CLS, SEP, 16)
        text = next(text for text in texts if ids[1] in text)
        start = text.index(ids[1])
        assert ids[1:-1] == text[start : start + 14]
        starts.add((text[0], start))
    assert len(starts) > 20  # of 25 stretches: another place each time a text comes again
    short = stretches(rows_of([[[CLS, 7, 8, SEP]]]), SPECIAL, 16, 6, rng())
    assert short.ids.tolist() == [CLS, 7, 8, SEP] * 2
    assert len(stretches(rows_of([[[CLS, SEP]]]), SPECIAL, 16, 6, rng())) == 0


def test_a_share_of_the_tokens_is_replaced_and_the_others_stay() -> None:
    draws = np.random.default_rng(1)
    rows = rows_of([[[CLS, *draws.integers(10, 500, 100).tolist(), SEP]] for _ in range(100)])
    changed, replaced = corrupt(rows, Bigrams(rows, SPECIAL), SPECIAL, 0.3, rng())
    assert np.array_equal(changed.ids != rows.ids, replaced)
    assert 0.2 < replaced.mean() < 0.3  # some draws are what stood there
    assert np.isin(rows.ids[replaced], SPECIAL).sum() == np.isin(changed.ids[replaced], SPECIAL).sum() == 0
    again, _ = corrupt(rows, Bigrams(rows, SPECIAL), SPECIAL, 0.3, rng())
    assert np.array_equal(again.ids, changed.ids)
