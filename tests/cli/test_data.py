"""`distilora data` says what a run would train on, and writes nothing."""

import json
from pathlib import Path

import pytest
from support.tiny import tiny_reviews, write_csv

from distilora.cli.main import main


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    rows = [(text, label) for i, (text, label) in enumerate(tiny_reviews(400, 3)) if label == "neg" or i % 20 == 1]
    return write_csv(tmp_path / "uneven.csv", [*rows, rows[0], ("", "neg"), ("word " * 3000, "neg")])


def test_parts_classes_lengths_and_oddities(uneven: Path, encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "--data.path", str(uneven), "--encoder.name", str(encoder), "--data.max_length", "64"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "1 blank, 1 exact copies dropped" in out
    assert "train       " in out
    assert "neg" in out
    assert "far longer than the others" in out
    assert "neg is" in out
    assert "--training.class_weights" in out
    assert main([*words, "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["tokens"]["longer"] == 1
    assert sum(part["examples"] for part in described["parts"]) < described["read"]
    assert sorted(path.name for path in uneven.parent.iterdir()) == ["uneven.csv"]


def test_an_encoder_that_is_not_there_costs_the_tokens_alone(uneven: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--data.path", str(uneven), "--encoder.name", str(uneven.parent / "none"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] is None
