"""Checks of saved models, through the command: what is written, on which backend, and for which labels."""

import json
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from support.command import failed
from support.fresh import verify_here
from support.tiny import BAD, GOOD, PLAIN, tiny_config, tiny_reviews, write_csv

from distilora.cli.evaluate import as_settings
from distilora.cli.main import main
from distilora.config.measuring import MeasureConfig
from distilora.config.parse import parse
from distilora.evaluation.checks.evaluate import answer_of
from distilora.inference.predictor import load

Captured = pytest.CaptureFixture[str]
OWN = """
slots:
  good: [superb, moving, warm]
  bad: [dull, awful, boring]
checks:
  - {name: praise, kind: mft, expect: pos, templates: ["the film and the story was {good1} {good2} {good3} with this music"]}
  - {name: blame, kind: mft, expect: neg, templates: ["the film and the story was {bad1} {bad2} {bad3} with this music"]}
  - {name: wrong on purpose, kind: mft, expect: neg, templates: ["the story and the film was {good} {good2} {good3}"]}
  - {name: capitals, kind: inv, within: 0.01, perturb: upper_case, templates: ["{good}", "{bad}"]}
  - {name: blame added, kind: dir, moves: {neg: up}, perturb: {append: bad}, data: true}
"""
NO_TORCH = """
import sys
sys.modules |= dict.fromkeys(("torch", "transformers", "peft", "accelerate", "sklearn", "scipy", "jinja2", "matplotlib"))
from distilora.cli.main import main
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.yaml").write_text(OWN, "utf-8")
    return str(tmp_path / "own.yaml")


def test_own_checks_are_measured_shown_and_written(finished: Path, own: str, tmp_path: Path, capsys: Captured) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    assert main(["evaluate", str(run), "--checks", own, "--precision", "fp32"]) == 0
    out = capsys.readouterr().out
    folder = run / "evaluations" / "checks-own-fp32"
    assert sorted(path.name for path in folder.iterdir()) == ["cases.jsonl", "metrics.json", "report.html"]
    checks = json.loads((folder / "metrics.json").read_text())["checks"]
    shares = {check["name"]: check["share"] for check in checks["checks"]}
    assert shares == {"praise": 1, "blame": 1, "wrong on purpose": 0, "capitals": 1, "blame added": None}
    assert checks["checks_passed_share"] == 18 / 24
    assert f"checks own passed: {18 / 24:.1%}" in out
    assert "wrong on purpose: 6 of 6 failed (the answer is neg)" in out
    assert re.search(
        r"^  the story and the film was (\w+ ?){3}  -> pos \(neg 0\.\d{3}, pos 0\.\d{3}\)$", out, re.MULTILINE
    )
    assert "Not run, because no texts of yours are given (--data.path): blame added." in out
    page = (folder / "report.html").read_text("utf-8")
    assert "<h2>Checks: own</h2>" in page
    assert checks["checks"][2]["failures"][4]["text"] in page
    cases = [json.loads(line) for line in (folder / "cases.jsonl").read_text("utf-8").splitlines()]
    assert sum(case["passed"] for case in cases) == 18
    assert len(cases) == 24


def test_checks_beside_an_evaluation_perturb_its_texts(
    finished: Path, own: str, tmp_path: Path, capsys: Captured
) -> None:
    data = write_csv(tmp_path / "other.csv", tiny_reviews(30, 5))
    words = ["evaluate", str(finished), "--data.path", str(data), "--checks", own, "--output", str(tmp_path / "out")]
    assert main([*words, "--evaluation.bootstrap", "100"]) == 0
    out = capsys.readouterr().out
    measured = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert measured["evaluation"]["examples"] == 30
    assert measured["checks"]["own"]["cases"] == 24
    assert measured["checks"]["data"]["cases"] == 20
    assert measured["checks"]["data_passed_share"] > 0.5
    assert "Accuracy" in out
    assert "on your texts: " in out
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.index("Confusion matrix") < page.index("<h2>Checks: own</h2>") < page.index("<h2>The run</h2>")
    assert main([*words, "--evaluation.bootstrap", "100", "--checks.seed", "1"]) == 2  # it is another evaluation
    assert "holds another evaluation (other checks)" in capsys.readouterr().err


def test_an_exported_model_needs_no_torch(graphs: Path, own: str, tmp_path: Path) -> None:
    words = ["evaluate", str(graphs), "--checks", own, "--output", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", NO_TORCH, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "note: report.html is not written: jinja2 is not installed" in done.stderr
    assert "checks own passed: 75.0%" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cases.jsonl", "metrics.json"]


def test_three_classes_of_a_csv(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    from distilora.export import save as saving
    from distilora.runs.run import train

    monkeypatch.setattr(saving, "verify", verify_here)
    praise = [f"the film and {a} {b} {a} with this music 7." for a, b in pairwise(GOOD)]
    plain = [(f"{' '.join(PLAIN[i % 20 :][:6])} {i}.", "mixed") for i in range(80)]
    data = write_csv(tmp_path / "three.csv", [*tiny_reviews(160), *plain])
    train(tiny_config(tmp_path / "run", data, encoder, training__epochs=8))
    (tmp_path / "own.yaml").write_text(
        "checks:\n"
        f"  - {{name: praise, kind: mft, expect: pos, templates: [{', '.join(praise)}]}}\n"
        "  - {name: plain, kind: mft, expect: [mixed], templates: [the film, a story and its music]}\n"
        f"  - {{name: worse, kind: dir, moves: {{neg: up, pos: down}}, templates: [{{from: the film, to: the {BAD[0]} film}}]}}\n",
        "utf-8",
    )
    assert main(["evaluate", str(tmp_path / "run"), "--checks", str(tmp_path / "own.yaml"), "--precision", "fp32"]) == 0
    out = capsys.readouterr().out
    assert "of 10 cases" in out
    checks = json.loads((tmp_path / "run/evaluations/checks-own-fp32/metrics.json").read_text())["checks"]
    assert list(checks["labels"]) == ["mixed", "neg", "pos"]
    answers = load(tmp_path / "run", "fp32")(praise)
    assert checks["checks"][0]["passed"] == sum(answer["label"] == "pos" for answer in answers) > 0
    assert main(["evaluate", str(tmp_path / "run"), "--checks", "--precision", "fp32"]) == 0
    assert "Labels are read as neutral: mixed; negative: neg; positive: pos." in capsys.readouterr().out


def test_probabilities_are_the_predictors(finished: Path) -> None:
    predictor = load(finished, "fp32", "cpu")
    texts = ["superb film", "dull film"]
    expected = [[answer["p_neg"], answer["p_pos"]] for answer in predictor(texts)]
    assert answer_of(predictor)(texts).tolist() == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--checks", "missing.yaml"],
            "checks: cannot read missing.yaml (No such file or directory); give a YAML file",
        ),
        (["--checks", "--checks.positive", "[good]"], "checks.positive: 'good' is no label of the model (neg, pos)"),
        (["--checks.positive", "[pos]"], "checks.positive: given without checks; add --checks, or drop it"),
        (
            ["--checks", "--checks.positiv", "x"],
            "--checks.positiv: there is no such setting; did you mean --checks.positive?",
        ),
        (["--checks", "--checks.seed", "x"], "checks.seed: x given, a whole number wanted"),
    ],
)
def test_what_is_wrong_is_one_line(finished: Path, words: list[str], said: str, capsys: Captured) -> None:
    before = sorted(finished.rglob("*"))
    assert failed(["evaluate", str(finished), *words], capsys).startswith(said)
    assert sorted(finished.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "suite", "positive", "negative"),
    [
        (["--checks"], "sentiment", None, None),
        (["--checks", "--device", "cpu"], "sentiment", None, None),
        (["--checks", "my own.yaml"], "my own.yaml", None, None),
        (
            ["--checks=x.yaml", "--checks.positive", "very good", "--checks.negative=1"],
            "x.yaml",
            ("very good",),
            ("1",),
        ),
        (["--checks.positive", "[a,2]", "--checks.suite", "x.yaml"], "x.yaml", ("a", 2), None),
    ],
)
def test_checks_are_short_for_settings(words: list[str], suite: str, positive: object, negative: object) -> None:
    checks = parse(MeasureConfig, as_settings(words)).checks
    assert (checks.suite, checks.positive, checks.negative) == (suite, positive, negative)
