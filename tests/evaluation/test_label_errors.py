"""Labels that look wrong: planted ones are found, no expert sees what it judges, a run only answers what it has not seen."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.tiny import tiny_reviews, write_csv

from distilora.config.schema import DataConfig
from distilora.data.audit import Table, find_copies, read_labelled
from distilora.data.sources import open_source
from distilora.errors import ConfigError
from distilora.evaluation import label_errors
from distilora.evaluation.label_errors import (
    expert_probabilities,
    judge,
    judge_apart,
    most_suspicious,
    run_probabilities,
)
from distilora.tasks.classification import Classification

WORDS = {0: ["awful", "dull"], 1: ["okay", "decent"], 2: ["superb", "moving"]}
PLAIN = "the a film movie actor plot story scene music very".split()


def three_classes(count: int) -> tuple[list[str], np.ndarray]:
    rng = random.Random(0)
    targets = [rng.randrange(3) for _ in range(count)]
    texts = [" ".join([*rng.choices(PLAIN, k=8), rng.choice(WORDS[t]), str(i)]) for i, t in enumerate(targets)]
    return texts, np.asarray(targets)


@pytest.fixture(scope="module")
def planted() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Texts of three classes, their labels, and the labels with ten changed, [0] to [9]."""
    texts, targets = three_classes(300)
    labels = targets.copy()
    labels[:10] = (targets[:10] + 1) % 3
    return texts, targets, labels


def test_planted_errors_are_found(planted: tuple[list[str], np.ndarray, np.ndarray]) -> None:
    texts, targets, labels = planted
    everything = np.ones(len(texts), bool)
    probabilities = expert_probabilities(texts, labels, 3, np.arange(len(texts)), everything)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    judged = judge(labels, probabilities)
    assert judged.wrong[:10].sum() >= 9
    assert judged.wrong[10:].sum() <= 2
    assert judged.likeliest[:10].tolist() == targets[:10].tolist()
    assert judged.score[:10].max() < 0.2
    assert set(most_suspicious(labels, probabilities, 9)) <= set(range(10))


def test_labels_of_a_test_split_are_judged_and_not_learnt(planted: tuple[list[str], np.ndarray, np.ndarray]) -> None:
    texts, _, labels = planted
    fitted = np.arange(len(texts)) >= 60
    clusters = np.arange(len(texts))
    before = expert_probabilities(texts, labels, 3, clusters, fitted)
    changed = np.where(fitted, labels, (labels + 1) % 3)
    np.testing.assert_array_equal(expert_probabilities(texts, changed, 3, clusters, fitted), before)
    judged = judge_apart(labels, before, fitted)
    assert set(np.flatnonzero(judged.wrong[:60])) == set(range(10))


def test_a_copy_of_a_test_row_does_not_judge_it() -> None:
    texts, targets = three_classes(120)
    texts, labels = [*texts, "zebra", "zebra"], np.asarray([*targets, 2, 2])
    fitted = np.arange(122) < 121
    alone = expert_probabilities(texts, labels, 3, np.arange(122), fitted)[121]
    apart = expert_probabilities(texts, labels, 3, np.asarray([*range(121), 120]), fitted)[121]
    assert alone[2] > apart[2]


def test_one_class_has_nothing_wrong() -> None:
    judged = judge(np.ones(3, np.int64), np.asarray([[0.9, 0.1]] * 3))
    assert not judged.wrong.any()
    assert judge(np.zeros(0, np.int64), np.zeros((0, 2))).score.shape == (0,)


def test_blank_rows_have_no_score() -> None:
    judged = judge(np.asarray([0, 1]), np.asarray([[0.9, 0.1], [0.8, 0.2]])).spread(
        np.asarray([0, 2]), np.asarray([0, 1, 1])
    )
    assert judged.score[[0, 2]].tolist() == pytest.approx([0.9, 0.2])
    assert np.isnan(judged.score[1])
    assert judged.likeliest.tolist() == [0, 1, 0]


def test_too_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_errors, "MOST_ROWS", 2)
    with pytest.raises(ConfigError, match=r"^data\.path: 3 rows, but an audit reads 2 at most"):
        expert_probabilities(["a", "b", "c"], np.asarray([0, 1, 0]), 2, np.arange(3), np.ones(3, bool))


def read(path: Path) -> tuple[Table, tuple[str, ...]]:
    config = DataConfig(path=str(path))
    task = Classification.from_source(config, open_source(config.path))
    return read_labelled(config, task, task.label_column), task.labels


def test_a_run_answers_what_it_has_not_seen(finished: Path, tmp_path: Path) -> None:
    seen, new = tiny_reviews(300)[:20], tiny_reviews(100, 7)
    near = [(f"{text} indeed", label) for text, label in seen[:5]]
    held_out = 300 * 0.1  # of the run's reviews, which it may answer
    table, labels = read(write_csv(tmp_path / "mixed.csv", [*seen, ("", "pos"), *new, *near]))
    copies = find_copies(table)
    probabilities, unseen = run_probabilities(str(finished), table, labels, copies.clusters[table.filled])
    assert unseen[20:120].all()
    assert (~unseen[:20]).sum() >= 20 - held_out
    assert unseen[120:].tolist() == unseen[:5].tolist()  # a copy of a seen text is seen
    assert not probabilities[~unseen].any()
    targets = np.asarray([row.target for row in table.rows if row.cleaned])
    assert np.mean(probabilities[20:120].argmax(axis=1) == targets[20:120]) > 0.7


def test_a_run_on_other_labels(finished: Path, tmp_path: Path) -> None:
    table, labels = read(write_csv(tmp_path / "r.csv", [("a film", "good"), ("a movie", "bad")]))
    with pytest.raises(ConfigError, match=r"^run: .* tells apart neg, pos, but the data hold bad, good"):
        run_probabilities(str(finished), table, labels, np.arange(2))


def test_a_model_that_does_not_tell_what_it_has_seen(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "model", tmp_path / "model")
    table, labels = read(write_csv(tmp_path / "r.csv", tiny_reviews(4)))
    with pytest.raises(ConfigError, match=r"has no seen_texts\.npy"):
        run_probabilities(str(tmp_path / "model"), table, labels, np.arange(4))
