"""Comparison: differences against the metrics and a bootstrap of their own, matching by content, texts, refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.measurements import write_evaluation
from support.tiny import tiny_config, write_csv

from distilora import compare
from distilora.data.examples import text_digest
from distilora.errors import ArtifactError, ConfigError, DataError
from distilora.files.tables import read_table, write_table
from distilora.tasks.classification import Classification
from distilora.tasks.metrics.bootstrap import resampled, resampled_mean
from distilora.tasks.metrics.paired import paired_difference

LABELS = ("bad", "fair", "good")
COUNT = 90


def probabilities(seed: int, skill: float, targets: list[int]) -> list[list[float]]:
    logits = np.random.default_rng(seed).normal(size=(len(targets), 3)) + skill * np.eye(3)[targets]
    return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).tolist()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [(f"a <b>{LABELS[i % 3]}</b> film, number {i}", LABELS[i % 3]) for i in range(COUNT)]
    return write_csv(tmp_path / "films.csv", rows)


@pytest.fixture
def pair(tmp_path: Path, data: Path) -> tuple[str, str]:
    targets = [i % 3 for i in range(COUNT)]
    first = write_evaluation(tmp_path / "first", data, LABELS, probabilities(0, 0.5, targets))
    return first, write_evaluation(tmp_path / "other", data, LABELS, probabilities(1, 2.0, targets))


def rows_of(folder: str) -> list[Any]:
    return [dict(record.values) for record in read_table(Path(folder) / "predictions.parquet")]


def rewrite(folder: str, rows: list[Any]) -> None:
    write_table(Path(folder) / "predictions.parquet", rows)


def hits(folder: str) -> list[bool]:
    return [row["label"] == row["target"] for row in rows_of(folder)]


def test_differences_of_three_classes(pair: tuple[str, str]) -> None:
    comparison = compare(pair, resamples=2000, examples=COUNT)
    (versus,) = comparison.pairs
    first, other = (comparison.metrics[name] for name in pair)
    assert list(versus.differences)[:2] == ["accuracy", "macro_f1"]
    assert {"log_loss", "brier", "mcc", "auroc", "ece"} <= set(versus.differences)
    for name, difference in versus.differences.items():
        assert difference["value"] == pytest.approx(other[name]["value"] - first[name]["value"])
        assert (difference["low"] is None) == (name == "ece")
    accuracy = versus.differences["accuracy"]
    expected = paired_difference(hits(pair[1]), hits(pair[0]), 2000)
    assert accuracy["value"] == pytest.approx(expected["value"])
    assert [accuracy["low"], accuracy["high"]] == pytest.approx([expected["low"], expected["high"]], abs=0.025)
    # the loss of each example, resampled with the same counts: the paired interval is that of its mean
    losses = [[-np.log(row[f"p_{row['target']}"]) for row in rows_of(folder)] for folder in pair]
    means = resampled_mean(np.subtract(losses[1], losses[0]), 2000)
    loss = versus.differences["log_loss"]
    assert [loss["low"], loss["high"]] == pytest.approx(np.quantile(means, (0.025, 0.975)).tolist())


def test_wins_and_losses_have_their_texts(pair: tuple[str, str]) -> None:
    (versus,) = compare(pair, examples=COUNT).pairs
    before, after = map(np.asarray, map(hits, pair))
    rows = rows_of(pair[0])
    assert versus.mcnemar is not None
    assert versus.mcnemar["a_only"] == len(versus.wins) == (after & ~before).sum() > 0
    assert versus.mcnemar["b_only"] == len(versus.losses) == (before & ~after).sum() > 0
    assert {won.place for won in versus.wins} == {rows[i]["place"] for i in np.flatnonzero(after & ~before)}
    for changed in (*versus.wins, *versus.losses):
        number = int(changed.place.split()[-1]) - 1
        assert changed.text == f"a {LABELS[number % 3]} film, number {number}"  # as the model read it: without mark-up
    gains = [won.other[f"p_{won.target}"] - won.first[f"p_{won.target}"] for won in versus.wins]
    assert gains == sorted(gains, reverse=True)
    assert all(won.other["label"] == won.target != won.first["label"] for won in versus.wins)
    assert "tokens" not in versus.wins[0].first
    (fewer,) = compare(pair, examples=2).pairs
    assert (fewer.wins, fewer.losses) == (versus.wins[:2], versus.losses[:2])


def test_examples_are_matched_by_content(pair: tuple[str, str]) -> None:
    before = compare(pair)
    rows = rows_of(pair[1])[::-1]
    for row in rows:
        row["place"] = f"moved: {row['place']}"
    rewrite(pair[1], rows)
    assert compare(pair).record() == before.record()


def test_labels_in_another_order_are_the_same(tmp_path: Path, data: Path, pair: tuple[str, str]) -> None:
    turned = [[row[f"p_{label}"] for label in LABELS[::-1]] for row in rows_of(pair[1])]
    other = write_evaluation(tmp_path / "turned", data, LABELS[::-1], turned)
    assert compare([pair[0], other]).pairs[0].differences == compare(pair).pairs[0].differences


def test_a_text_that_has_changed_is_not_shown(data: Path, pair: tuple[str, str]) -> None:
    (versus,) = compare(pair, examples=COUNT).pairs
    number = int(versus.wins[0].place.split()[-1]) - 1
    data.write_text(data.read_text().replace(f'number {number}"', 'another"'))
    changed = compare(pair, examples=COUNT)
    assert changed.pairs[0].wins[0].text is None
    assert changed.pairs[0].wins[1].text == versus.wins[1].text
    assert changed.notes[-1].startswith("1 of ")
    data.unlink()
    gone = compare(pair, examples=1)
    assert "2 of 2 texts cannot be shown, only their places: data.path: no such file" in gone.notes[-1]
    assert gone.pairs[0].differences == versus.differences


def test_three_runs_are_held_against_a_stricter_p(tmp_path: Path, data: Path, pair: tuple[str, str]) -> None:
    third = write_evaluation(
        tmp_path / "third", data, LABELS, probabilities(0, 0.5, [i % 3 for i in range(COUNT)]), notes=["Seen before."]
    )
    comparison = compare([*pair, third])
    assert [versus.other for versus in comparison.pairs] == [pair[1], third]
    assert "2 comparisons are made" in comparison.notes[0]
    assert comparison.notes[1] == f"{third}: Seen before."
    same = comparison.pairs[1]  # the first once more
    assert same.differences["accuracy"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert same.mcnemar == {"a_only": 0, "b_only": 0, "p": 1.0}
    assert "may be equally accurate (p = 1)" in same.verdict
    assert comparison.pairs[0].verdict.startswith(f"{pair[1]} is more accurate than {pair[0]}")


def test_other_examples_are_refused(tmp_path: Path, pair: tuple[str, str], data: Path) -> None:
    rows = [(f"a film, number {i}", LABELS[i % 3]) for i in range(COUNT)]
    rows[:10] = [(record.values["text"], record.values["label"]) for record in read_table(data)][:10]
    others = write_csv(tmp_path / "others.csv", rows)
    other = write_evaluation(tmp_path / "o", others, LABELS, probabilities(1, 2.0, [i % 3 for i in range(COUNT)]))
    with pytest.raises(DataError) as error:
        compare([pair[0], other])
    assert str(error.value) == (
        f"{other}: measured on 90 examples, of which 10 are among the 90 of {pair[0]} (data.path {others}, there {data}; split "
        "others, there films); measure both on one file with distilora evaluate"
    )
    rewrite(pair[1], rows_of(pair[1])[1:])
    with pytest.raises(
        DataError, match=r"measured on 89 examples, of which 89 are among the 90.*data must have changed"
    ):
        compare(pair)


def test_other_targets_labels_and_tasks_are_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    rows = rows_of(pair[1])
    rows[4]["target"] = "bad"
    rewrite(pair[1], rows)
    with pytest.raises(DataError, match=r"same texts as .*first, but other targets: .*row 5 has 'bad', there 'fair'; "):
        compare(pair)
    summary = json.loads((tmp_path / "other" / "metrics.json").read_text())
    summary["evaluation"]["labels"] = ["bad", "good"]
    (tmp_path / "other" / "metrics.json").write_text(json.dumps(summary))
    with pytest.raises(DataError, match=r"other: its labels are bad, good, those of .*first bad, fair, good; "):
        compare(pair)


def test_what_cannot_be_compared_is_refused(pair: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^RUN: 1 given, two or more are compared"):
        compare(pair[:1])
    with pytest.raises(ConfigError, match=r"^RUN: .*other/ is given twice; name another"):
        compare([*pair, f"{pair[1]}/"])
    with pytest.raises(ConfigError, match=r"^resamples: 10 given, at least 100 wanted"):
        compare(pair, resamples=10)
    with pytest.raises(ArtifactError, match="no such run"):
        compare([pair[0], tmp_path / "nowhere"])
    rewrite(pair[1], [{name: value for name, value in row.items() if name != "digest"} for row in rows_of(pair[1])])
    with pytest.raises(DataError, match="an earlier release wrote it, without the digests"):
        compare(pair)
    (tmp_path / "other" / "metrics.json").write_text('{"evaluations": []}')
    with pytest.raises(ArtifactError, match=r"metrics.json: damaged \(its splits\)"):
        compare(pair)
    (tmp_path / "other" / "metrics.json").write_text("{}")
    with pytest.raises(ArtifactError, match="not that of a run or an evaluation"):
        compare(pair)


def test_a_task_may_say_what_is_correct() -> None:
    class Grown(Classification):  # measures as any task does that defines nothing
        remeasure = Classification.__mro__[1].remeasure  # type: ignore[attr-defined]

    task = Grown(LABELS, "text", "label")
    rows = [{"target": "bad", "label": "bad"}, {"target": "bad", "label": "good"}]
    measured = task.remeasure(rows, 100)
    assert measured.metrics == {"accuracy": 0.5}
    assert measured.correct is not None
    assert measured.correct.tolist() == [True, False]
    assert measured.resampled["accuracy"].shape == (100,)
    with pytest.raises(DataError, match="does not tell which answers are correct; give it the member `correct`"):
        task.remeasure([{"target": 0.5, "share": 0.4}], 100)


def test_resamples_are_the_same_for_every_metric() -> None:
    targets = np.arange(60) % 3
    answers = np.asarray(probabilities(3, 1.0, targets.tolist()))
    correct = (answers.argmax(1) == targets).astype(float)
    np.testing.assert_allclose(resampled(answers, targets, 50)["accuracy"], resampled_mean(correct, 50))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, reviews: Path, encoder: Path) -> Path:
    """The finished run once more, with another seed of training."""
    from support.fresh import verify_here

    from distilora.export import save as saving
    from distilora.runs.run import train

    folder = tmp_path_factory.mktemp("second") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "verify", verify_here)
        train(tiny_config(folder, reviews, encoder, training__seed=1, training__epochs=2))
    return folder


def test_runs_are_compared_on_their_test_or_validation(finished: Path, second: Path, reviews: Path) -> None:
    texts = {text_digest([record.values["text"]]): record.values["text"] for record in read_table(reviews)}
    for split, count in ((None, 30), ("validation", 40)):
        comparison = compare([finished / "model", second], split=split, resamples=100)
        assert (comparison.split, comparison.examples) == (split or "heldout", count)
        for folder, figures in zip((finished, second), comparison.metrics.values(), strict=True):
            evaluations = json.loads((folder / "metrics.json").read_text())["evaluations"]
            measured = next(each["metrics"] for each in evaluations if each["split"] == comparison.split)
            for name in ("accuracy", "macro_f1", "log_loss", "brier", "ece"):
                assert figures[name]["value"] == pytest.approx(measured[name]["value"])
            assert figures["accuracy"] == pytest.approx(measured["accuracy"])  # the report's own interval
        (versus,) = comparison.pairs
        assert versus.wins or versus.losses
        assert all(changed.text == texts[changed.digest] for changed in (*versus.wins, *versus.losses))
    assert any("--split validation" in note for note in compare([finished, second], resamples=100).notes)


def test_a_run_of_another_split_seed_is_refused(finished: Path, second: Path, tmp_path: Path) -> None:
    other = shutil.copytree(second, tmp_path / "run")
    settings = (other / "run.yaml").read_text()
    assert "  deduplicate: true\n  strict: false\n  seed: 0\n" in settings
    (other / "run.yaml").write_text(settings.replace("strict: false\n  seed: 0\n", "strict: false\n  seed: 5\n"))
    rows = rows_of(str(other))
    for row in rows[:3]:
        row["digest"] = "0" * 32
    rewrite(str(other), rows)
    with pytest.raises(DataError, match=r"of which 27 are among the 30 of .* \(data.seed 5, there 0\); measure both"):
        compare([finished, other])
    with pytest.raises(DataError, match=r"run: was not measured on the split 'test' \(it has heldout, validation\)"):
        compare([other, finished], split="test")
    (other / "metrics.json").unlink()
    with pytest.raises(ArtifactError, match=r"holds no measurement \(metrics.json\); finish it with: .*--resume"):
        compare([finished, other])
