"""A task of one's own, from registering it to its report: the share of good words in the sentences of a review.

A run's round trip loads this file in a fresh process, so nothing of pytest or conftest is imported at the top.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from support.good_share import GoodShare

from distilora.tasks.registry import restore

if TYPE_CHECKING:
    pass


def shares(count: int, seed: int) -> list[dict[str, object]]:
    """Reviews of one to four sentences, and the share of good ones among their words of sentiment."""
    import random

    from support.tiny import BAD, GOOD, PLAIN

    rng = random.Random(seed)
    rows: list[dict[str, object]] = []
    for i in range(count):
        words = [[rng.choice(GOOD if rng.random() < i % 5 / 4 else BAD) for _ in range(3)] for _ in range(1 + i % 4)]
        good = [word in GOOD for sentence in words for word in sentence]
        text = " ".join(" ".join(rng.sample([*sentence, rng.choice(PLAIN)], 4)) + "." for sentence in words)
        rows.append({"review": f"{seed}{i} {text}", "share": sum(good) / len(good)})
    return rows


def test_a_task_of_one_s_own(encoder: Path, tmp_path: Path) -> None:
    import pytest
    from support.tiny import tiny_config

    from distilora import MeasureConfig, evaluate, load, parse, train
    from distilora.files.tables import read_table, write_table
    from distilora.inference.table import predict_table

    write_table(tmp_path / "train.jsonl", shares(240, 1))
    write_table(tmp_path / "test.jsonl", shares(60, 2))
    output = tmp_path / "run"
    config = tiny_config(
        output, tmp_path / "train.jsonl", encoder, data__test_path=str(tmp_path / "test.jsonl"), training__epochs=6
    )
    summary = train(config, GoodShare(scale=100.0))
    test, validation = summary["evaluations"]
    guess = np.abs(np.asarray([row["share"] for row in shares(60, 2)], float) - 0.5).mean()
    assert test["metrics"]["mean_error"]["value"] < 0.7 * guess
    assert test["examples"] == 60
    assert "before_temperature" not in test
    assert "classes" not in validation
    assert validation["slices"] == []  # all are short, read whole and without a negation
    assert summary["round_trip"]["run_precision"]["largest_difference"] == 0

    artifact = json.loads((output / "model" / "artifact.json").read_text())
    assert artifact["task"] == {"name": "good-share", "settings": {"text": "review", "share": "share", "scale": 100.0}}
    assert artifact["temperature"] == 1.0
    predictions = [r.values for r in read_table(output / "predictions.parquet") if r.values["split"] == "test"]
    assert len(predictions) == 60
    assert "mean error" in (output / "report.html").read_text()
    assert "mean_error" in (output / "README.md").read_text()

    predictor = load(output, precision="fp32")
    assert type(predictor.task) is GoodShare
    write_table(tmp_path / "new.jsonl", [{"review": row["review"], "id": i} for i, row in enumerate(shares(60, 2))])
    counts = predict_table(predictor, str(tmp_path / "new.jsonl"), str(tmp_path / "out.jsonl"))
    assert counts == {"rows": 60, "blank": 0}
    answers = [dict(record.values) for record in read_table(tmp_path / "out.jsonl")]
    assert [answer["sentences"] for answer in answers[:5]] == [1, 2, 3, 4, 1]
    assert [a["share"] for a in answers] == pytest.approx([p["share"] for p in predictions], abs=1e-2)
    examples = [predictor.task.read(row) for row in shares(60, 2)]
    assert [a["share"] for a in predictor.answer(examples)] == pytest.approx([a["share"] for a in answers], abs=1e-3)

    settings = parse(MeasureConfig, ["--data.path", str(tmp_path / "test.jsonl"), "--precision", "fp32"])
    again, folder = evaluate(output, settings)
    assert again["evaluation"]["metrics"]["mean_error"]["value"] == pytest.approx(
        test["metrics"]["mean_error"]["value"], abs=1e-4
    )
    assert (folder / "report.html").is_file()


def test_a_task_nobody_registered() -> None:
    import pytest

    from distilora.errors import ArtifactError

    with pytest.raises(ArtifactError, match="no task called 'nobody-s' is registered"):
        restore("nobody-s", {})
    assert restore("good-share", GoodShare(scale=2.0).settings).settings == GoodShare(scale=2.0).settings
