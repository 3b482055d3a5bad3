"""`distilora encoder`: the folder that it writes, and what it refuses."""

import json
from pathlib import Path

import pytest
from support.command import failed

from distilora.cli.main import main

Captured = pytest.CaptureFixture[str]


def test_encoder_embedded(tmp_path: Path, capsys: Captured) -> None:
    output = tmp_path / "minilm"
    assert main(["encoder", "embedded", "--output", str(output)]) == 0
    assert capsys.readouterr().out.startswith(f"{output}: DistilBERT layout")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in output.iterdir()}
    assert json.loads((output / "config.json").read_text())["model_type"] == "distilbert"
    assert failed(["encoder", "embedded", "--output", str(output)], capsys).endswith(
        "exists already; give another folder"
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "see distilora encoder --help"),
        (["other", "--output", "x"], "name: 'other' given, embedded wanted"),
        (["embedded"], "see distilora encoder --help"),
    ],
)
def test_encoder_refuses(words: list[str], named: str, capsys: Captured) -> None:
    assert named in failed(["encoder", *words], capsys)
