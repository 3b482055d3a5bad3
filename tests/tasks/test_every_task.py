"""Each built-in task that reads one text, from training to scoring, by commands; what differs between tasks is in its own test."""

import csv
import dataclasses
import json
import random
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.stopping import write_recipe
from support.tiny import BAD, GOOD, PLAIN, tiny_config

from distilora.cli.main import main
from distilora.errors import DataError
from distilora.inference.predictor import load
from distilora.tasks.metrics.names import metric_name


class Kind(NamedTuple):
    """A task with the column of its target, and what a tiny run must reach of its first metric."""

    task: str
    column: str
    metric: str
    reached: float
    answer: str


KINDS = [
    Kind("ordinal", "stars", "accuracy", 0.55, "label"),
    Kind("regression", "score", "spearman", 0.6, "value"),
    Kind("multilabel", "tags", "micro_f1", 0.8, "labels"),
]


def write(path: Path, count: int, seed: int) -> str:
    """Texts of four words of sentiment, all bad, half good or all good: as stars 1, 3 and 5, as a score, and as tags."""
    rng = random.Random(seed)
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "stars", "score", "tags"))
        for i in range(count):
            good = rng.choice([0, 2, 4])
            words = rng.choices(PLAIN, k=rng.randint(4, 12)) + rng.choices(GOOD, k=good) + rng.choices(BAD, k=4 - good)
            rng.shuffle(words)
            tags = ", ".join(name for name, found in (("praise", good > 0), ("blame", good < 4)) if found)
            writer.writerow((" ".join(words) + f" {seed * 100000 + i}.", good + 1, (good - 2) * 1.5, tags))
    return str(path)


@pytest.fixture(scope="module", params=KINDS, ids=[kind.task for kind in KINDS])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Any:
    kind: Kind = request.param
    base = tmp_path_factory.mktemp(kind.task)
    data = write(base / "train.csv", 400, 1)
    config = tiny_config(base / "run", Path(data), encoder, data__label_column=kind.column, training__epochs=10)
    recipe = write_recipe(base / "recipe.yaml", dataclasses.replace(config, task=kind.task))
    assert main(["train", recipe]) == 0
    return kind, base


def test_it_learns_and_measures_with_intervals(trained: Any) -> None:
    kind, base = trained
    metrics = json.loads((base / "run" / "metrics.json").read_text("utf-8"))
    test = metrics["evaluations"][0]
    first, *_ = test["metrics"]
    assert first == kind.metric
    assert test["metrics"][first]["value"] > kind.reached
    assert test["metrics"][first]["low"] <= test["metrics"][first]["value"] <= test["metrics"][first]["high"]
    assert metrics["round_trip"]["texts"] > 0
    assert kind.metric.replace("_", " ").split()[0] in (base / "run" / "report.html").read_text("utf-8").lower()


def test_answers_of_every_form_agree(trained: Any, tmp_path: Path) -> None:
    kind, base = trained
    run = str(base / "run")
    test = write(tmp_path / "test.csv", 60, 2)
    assert main(["evaluate", run, "--data.path", test]) == 0
    with open(test, encoding="utf-8") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    own = load(run, "fp32")(texts)
    assert kind.answer in own[0]
    for form in ("merged", "onnx"):
        folder = str(tmp_path / form)
        assert main(["export", run, "--to", form, "--output", folder]) == 0
        for ours, theirs in zip(own, load(folder, "fp32")(texts), strict=True):
            for name, value in ours.items():
                assert theirs[name] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value)
    assert main(["score", run, test, "--output", str(tmp_path / "scored"), "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "scored" / "shard-00000.jsonl").read_text().splitlines()]
    assert len(rows) == 60
    assert kind.answer in rows[0]


def test_what_has_no_score_cannot_abstain(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    kind, base = trained
    code = main(["predict", str(base / "run"), "superb", "--abstain-below", "0.5"])
    assert code == (0 if kind.task == "ordinal" else 2)
    if code:
        assert f"answers of task {kind.task} have no score" in capsys.readouterr().err


def test_the_card_says_how_others_load_it(trained: Any) -> None:
    kind, base = trained
    card = (base / "run" / "README.md").read_text("utf-8")
    if kind.task == "ordinal":
        assert "```python" not in card
        return
    code = card.split("```python\n")[1].split("```")[0].replace("print(", "answers.append(")
    texts = ["a dull film with superb music", "superb and moving"]
    answers: list[Any] = []
    exec(code.replace('["A text to judge."]', repr(texts)), {"answers": answers})
    for own, theirs in zip(load(base / "run", "fp32")(texts), answers[0].tolist(), strict=True):
        numbers = [own["value"]] if kind.task == "regression" else [v for k, v in own.items() if k.startswith("p_")]
        assert theirs == pytest.approx(numbers, abs=1e-4)


def test_a_target_that_cannot_be_read_is_told_before_anything_heavy(tmp_path: Path, encoder: Path) -> None:
    from distilora.runs.preflight import check_run

    data = write(tmp_path / "train.csv", 40, 1)
    with open(data, "a", encoding="utf-8") as stream:
        stream.write("a plot,1,none,praise\n")
    config = tiny_config(tmp_path / "run", Path(data), encoder, data__label_column="score")
    with pytest.raises(DataError, match=r"train\.csv: row 41: data\.label_column: 'score' holds 'none', not a number"):
        check_run(dataclasses.replace(config, task="regression"))


def test_words_explain_the_answer(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    kind, base = trained
    text = "the film was superb and the plot superb but dull superb"
    for method in ("leave-one-out", "integrated-gradients"):
        assert main(["explain", str(base / "run"), text, "--method", method, "--json"]) == 0
        explanation = json.loads(capsys.readouterr().out)
        weights = [part["weight"] for part in explanation["parts"]]
        assert len(weights) == len(text.split())
        assert any(abs(weight) > 1e-6 for weight in weights)
        if kind.task == "regression":
            assert explanation["label"] == explanation["measure"] == "value"
            assert "value" in explanation


def test_a_model_that_is_compared_with_itself_does_not_differ(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    kind, base = trained
    shutil.copytree(base / "run", base / "again")
    assert main(["compare", str(base / "run"), str(base / "again")]) == 0
    assert f"{metric_name(kind.metric)}" in capsys.readouterr().out
