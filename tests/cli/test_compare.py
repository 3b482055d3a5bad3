"""`distilora compare`: what it prints and writes, and what it refuses."""

import json
from pathlib import Path

import pytest
from support.command import failed
from support.measurements import write_evaluation
from support.tiny import write_csv

from distilora.cli.main import main

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    data = write_csv(tmp_path / "r.csv", [(f"film {i}", "pos" if i % 2 else "neg") for i in range(40)])
    sharp = [[0.1, 0.9] if i % 2 else [0.8, 0.2] for i in range(40)]
    blunt = [[0.4, 0.6]] * 40
    return [write_evaluation(tmp_path / name, data, ("neg", "pos"), p) for name, p in (("a", blunt), ("b", sharp))]


def test_it_prints_a_table_and_writes_a_page(pair: list[str], tmp_path: Path, capsys: Captured) -> None:
    page = tmp_path / "c.html"
    assert main(["compare", *pair, "--output", str(page)]) == 0
    out = capsys.readouterr().out
    assert "+50.00 points" in out
    assert "p = 1.9e-06 (20 examples won, 0 lost)" in out
    assert "won: neg (first pos 0.60, now neg 0.80): film 0" in out
    assert out.endswith(f"Written: {page}\n")
    assert page.is_file()
    assert "exists already" in failed(["compare", *pair, "--output", str(page)], capsys)
    assert main(["compare", pair[0], "--output", str(page), "--overwrite", pair[1], "--examples", "1"]) == 0


def test_it_prints_json(pair: list[str], capsys: Captured) -> None:
    assert main(["compare", *pair, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["pairs"][0]["differences"]["accuracy"]["value"] == 0.5


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "the following arguments are required: RUN"),
        (["RUN"], "RUN: one given, two or more are compared"),
        (["RUN", "nowhere"], "nowhere: no such run"),
        (["RUN", "RUN"], "RUN: "),
        (["RUN", "nowhere", "--resamples", "5"], "--resamples: 5 given, at least 100 wanted"),
        (["RUN", "nowhere", "--json", "--output", "c.html"], "--json: prints, --output writes"),
        (["RUN", "nowhere", "--output", "c.pdf"], "--output: c.pdf given, a file ending in .html or .json wanted"),
        (["RUN", "nowhere", "--spilt", "x"], "--spilt: distilora compare has no such option; did you mean --split?"),
    ],
)
def test_compare_refuses(pair: list[str], words: list[str], named: str, capsys: Captured) -> None:
    said = failed(["compare", *(pair[0] if word == "RUN" else word for word in words)], capsys)
    assert said.startswith(named)
