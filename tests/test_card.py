"""The model card: metadata the Hub can parse, and ten lines that do what they say without distilora."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from conftest import tiny_reviews

import distilora
from distilora.artifact import read_artifact
from distilora.card import model_card


def card(finished: Path) -> str:
    return (finished / "README.md").read_text("utf-8")


def test_front_matter(finished: Path, encoder: Path) -> None:
    _, front, body = card(finished).split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "peft",
        "base_model": str(encoder),
        "pipeline_tag": "text-classification",
        "tags": ["distilora", "lora"],
    }
    assert body.startswith("\n# tiny\n")


def test_figures_and_caveats(finished: Path, metrics: dict) -> None:
    text = card(finished)
    heldout, validation = metrics["evaluations"]
    assert f"| metric | heldout (n = {heldout['examples']}) | validation (n = {validation['examples']}) |" in text
    row = next(line for line in text.splitlines() if line.startswith("| Accuracy |"))
    assert f"{heldout['metrics']['accuracy']['value']:.2%} (" in row
    assert f"{validation['metrics']['accuracy']['value']:.2%} (" in row
    for note in metrics["notes"]:
        assert f"- {note}" in text
    assert f"({metrics['data']['train']:,} examples to train on" in text


def test_the_snippet_agrees_without_distilora(finished: Path) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", card(finished), re.DOTALL)
    assert 8 <= len(snippet.splitlines()) <= 14
    texts = [text for text, _ in tiny_reviews(12, 3)] + [
        "superb film " * 100,
        "film",
    ]  # one longer than the model reads
    assert snippet.count('["A text to judge."]') == 1
    code = snippet.replace('["A text to judge."]', json.dumps(texts)).replace("print(", "found = (")
    code += "\nimport json, sys\nassert not any(name.startswith('distilora') for name in sys.modules)\n"
    code += "print(json.dumps(found.tolist()))\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.asarray(json.loads(done.stdout.splitlines()[-1]))
    answers = distilora.load(finished, precision="fp32")(texts)
    wanted = np.asarray([[answer["p_neg"], answer["p_pos"]] for answer in answers])
    assert answers[-2]["truncated"]
    assert wanted.std() > 0.1
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_the_embedded_encoder_is_written_first(finished: Path, metrics: dict) -> None:
    artifact = read_artifact(finished)
    artifact = dataclasses.replace(artifact, encoder=artifact.encoder | {"name": "embedded"})
    text = model_card(
        "runs/x", artifact, ("a'b", 'c"d'), 2, "[PAD]", "left", metrics["evaluations"], ["A note."], metrics["data"]
    )
    assert yaml.safe_load(text.split("---\n")[1])["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert "`distilora encoder embedded --output minilm` writes the encoder first" in text
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    compile(snippet, "card", "exec")  # labels are quoted right
    assert 'from_pretrained("minilm"' in snippet
    assert 'truncation_side="left"' in snippet
