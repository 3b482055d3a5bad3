"""What the terminal shows of an evaluation."""

from distilora.cli.console import metric_rows
from distilora.tasks.classes import class_lines

BASELINE = {"label": "c0", "of": "training", "accuracy": 0.5, "macro_f1": 1 / 3}


def classes(count: int) -> list[dict[str, object]]:
    return [
        {"label": f"c{i}", "precision": None, "recall": 0.5, "f1": 1 - i / 100, "support": 1000, "predicted": 0}
        for i in range(count)
    ]


def test_every_class_and_the_baseline() -> None:
    blank, head, *rows, last = class_lines({"classes": classes(2), "baseline": BASELINE})
    assert blank == ""
    assert head.split() == ["class", "precision", "recall", "F1", "examples"]
    assert [row.split() for row in rows] == [
        ["c0", "–", "50.0%", "100.0%", "1,000"],
        ["c1", "–", "50.0%", "99.0%", "1,000"],
    ]
    assert len({len(line) for line in (head, *rows)}) == 1
    assert last == "  always 'c0', the most frequent of training: accuracy 50.00%, macro F1 33.33%"


def test_of_many_the_weakest() -> None:
    lines = class_lines({"classes": classes(40), "baseline": BASELINE})
    assert [line.split()[0] for line in lines[2:14]] == [f"c{i}" for i in range(39, 27, -1)]
    assert lines[14] == "  (12 of 40 classes, those with the lowest F1; the report has all)"
    assert len(lines) == 16


def test_a_task_without_classes() -> None:
    evaluation = {"metrics": {"mean_error": {"value": 0.25, "low": None, "high": None}}}
    assert metric_rows(evaluation) == [("mean_error", "0.25")]
    assert class_lines(evaluation) == []
