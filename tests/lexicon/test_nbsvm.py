"""The n-gram expert: what it learns, exact contributions, any number of classes, out of fold, stored and read again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.tiny import tiny_reviews

from distilora.errors import ArtifactError, DataError
from distilora.lexicon.format import FILE, compact, read_lexicon, write_lexicon
from distilora.lexicon.nbsvm import as_logits, count_ngrams, fit_nbsvm
from distilora.lexicon.ngrams import ngram_keys
from distilora.lexicon.out_of_fold import assign_folds, out_of_fold

ROWS = tiny_reviews(300)
TEXTS = [text for text, _ in ROWS]
TARGETS = [int(label == "pos") for _, label in ROWS]
NEW = tiny_reviews(100, 7)


@pytest.fixture(scope="module")
def counted():
    return count_ngrams(TEXTS)


@pytest.fixture(scope="module")
def lexicon(counted):
    return fit_nbsvm(counted, TARGETS, 2)


def test_it_learns_words(lexicon) -> None:
    answers = lexicon.logits([text for text, _ in NEW]).argmax(axis=1)
    assert np.mean(answers == [label == "pos" for _, label in NEW]) > 0.95


def test_the_log_count_ratio_is_the_papers(counted) -> None:
    from distilora.lexicon.nbsvm import _log_count_ratio

    inside = np.asarray(TARGETS, bool)
    dense = counted.presence.toarray()
    p, q = 1 + dense[inside].sum(axis=0), 1 + dense[~inside].sum(axis=0)
    expected = np.log((p / p.sum()) / (q / q.sum()))
    np.testing.assert_allclose(_log_count_ratio(counted.presence, inside), expected, atol=1e-5)


def test_contributions_add_up_exactly(lexicon) -> None:
    for text in (NEW[0][0], NEW[1][0], "superb superb superb", "unheard words only", ""):
        total = as_logits(lexicon.bias[None], 2)[0].astype(np.float64)
        for ngram, added in lexicon.contributions(text):
            assert 0 <= ngram.start < ngram.end <= len(text)
            total += added
        np.testing.assert_allclose(total, lexicon.logits([text])[0], atol=1e-5)


def test_both_ways_to_the_logits_agree(counted, lexicon) -> None:
    rows = np.arange(0, 300, 7)
    np.testing.assert_allclose(lexicon.of_counted(counted, rows), lexicon.logits([TEXTS[i] for i in rows]), atol=1e-5)


def test_a_long_text_is_scaled_down_and_a_short_one_is_not(counted, lexicon) -> None:
    text = NEW[0][0]
    sums = [lexicon.weights[lexicon.keys == key].sum() for key in ngram_keys(text)]
    size = len(sums)
    for mean_size in (size / 4, size, size * 9):
        (logits,) = replace(lexicon, mean_size=mean_size).logits([text])
        factor = (mean_size / size) ** 0.5 if mean_size < size else 1
        np.testing.assert_allclose(logits[1] - logits[0], factor * sum(sums) + lexicon.bias[0], rtol=1e-4)


def test_texts_do_not_depend_on_each_other(lexicon) -> None:
    texts = [text for text, _ in NEW[:20]]
    alone = np.concatenate([lexicon.logits([text]) for text in texts])
    assert np.array_equal(alone, lexicon.logits(texts))


def test_three_classes_and_one_without_an_example() -> None:
    texts = ["a dull film", "a warm film", "a plain film"] * 10
    three = fit_nbsvm(count_ngrams(texts), [0, 1, 2] * 10, 3)
    assert three.logits(["dull", "warm", "plain"]).argmax(axis=1).tolist() == [0, 1, 2]
    missing = fit_nbsvm(count_ngrams(texts), [0, 1, 3] * 10, 4)
    assert missing.logits(["dull", "warm", "plain"]).argmax(axis=1).tolist() == [0, 1, 3]


def test_one_class_is_refused(counted) -> None:
    with pytest.raises(DataError, match="of one class"):
        fit_nbsvm(counted, [1] * 300, 2)


def test_out_of_fold_logits_are_honest() -> None:
    # labels that no word tells: in-sample an expert learns them by heart, out of fold it knows nothing
    random = np.random.default_rng(0).integers(0, 2, 300).tolist()
    in_sample = fit_nbsvm(count_ngrams(TEXTS), random, 2).logits(TEXTS).argmax(axis=1)
    honest = out_of_fold(TEXTS, random, 2).argmax(axis=1)
    assert np.mean(in_sample == random) > 0.95
    assert np.mean(honest == random) < 0.6
    assert np.mean(out_of_fold(TEXTS, TARGETS, 2).argmax(axis=1) == TARGETS) > 0.95


def test_folds_keep_clusters_whole_and_classes_even() -> None:
    clusters = np.arange(300) // 3
    fold = assign_folds(TARGETS, clusters, 5, 0)
    assert all(len(set(fold[clusters == c])) == 1 for c in range(100))
    sizes = np.bincount(fold, np.asarray(TARGETS)), np.bincount(fold)
    assert max(sizes[1]) - min(sizes[1]) <= 6
    assert max(sizes[0]) - min(sizes[0]) <= 4
    assert np.array_equal(fold, assign_folds(TARGETS, clusters, 5, 0))
    assert not np.array_equal(fold, assign_folds(TARGETS, clusters, 5, 1))
    assert sorted(assign_folds([0, 1, 0], None, 5, 0)) == [0, 1, 2]


def test_stored_and_read_again(tmp_path: Path, counted, lexicon) -> None:
    small = compact(lexicon, counted, 200 * 10)
    assert len(small.keys) == 200
    write_lexicon(small, tmp_path)
    again = read_lexicon(tmp_path)
    texts = [text for text, _ in NEW]
    assert np.array_equal(again.logits(texts), small.logits(texts))
    assert (tmp_path / FILE).stat().st_size < 200 * 10 + 1000
    # the n-grams that are kept decide as all do
    assert np.mean(small.logits(texts).argmax(axis=1) == lexicon.logits(texts).argmax(axis=1)) > 0.95


def test_a_damaged_file_is_named(tmp_path: Path, counted, lexicon) -> None:
    write_lexicon(compact(lexicon, counted), tmp_path)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:50])
    with pytest.raises(ArtifactError, match=r"lexicon\.safetensors: damaged"):
        read_lexicon(tmp_path)


def test_an_expert_of_another_factor_is_refused(tmp_path: Path, counted, lexicon) -> None:
    write_lexicon(compact(lexicon, counted), tmp_path)
    save_file(load_file(tmp_path / FILE), tmp_path / FILE, {"classes": "2", "longest": "3"})
    with pytest.raises(ArtifactError, match=r"of an earlier release.*--lexicon none"):
        read_lexicon(tmp_path)
