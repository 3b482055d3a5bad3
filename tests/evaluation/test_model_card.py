"""The model card: metadata the Hub can parse, figures with their caveats, and lines of Python that suit the method."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from support.cards import card, snippet

from distilora.artifact.format import read_artifact
from distilora.evaluation.model_card import model_card
from distilora.model.adapters.methods import METHODS
from distilora.tasks.classification import Classification


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
    assert f"({metrics['data']['train']:,} training examples" in text


@pytest.mark.parametrize("method", METHODS)
def test_the_card_names_its_method(method: str, runs: dict[str, Path]) -> None:
    text = card(runs[method])
    peft = METHODS[method].saved == "peft"
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["library_name"] == ("peft" if peft else "transformers")
    assert front["tags"] == ["distilora", method]
    assert f"; method: {METHODS[method].phrase}.\n" in text
    assert ("With Transformers and PEFT alone" in text) == peft
    assert ("peft" in snippet(runs[method], [])) == peft
    on_full_precision = " (on the full-precision encoder; training kept it in 4 bits):"
    assert (on_full_precision in text) == (method == "qlora")


def test_the_embedded_encoder_is_written_first(finished: Path, metrics: dict) -> None:
    artifact = read_artifact(finished)
    artifact = dataclasses.replace(artifact, encoder=artifact.encoder | {"name": "embedded"})
    task = Classification(("a'b", 'c"d'), "text", "label")
    text = model_card("runs/x", artifact, task, "[PAD]", "left", metrics["evaluations"], ["A note."], metrics["data"])
    assert yaml.safe_load(text.split("---\n")[1])["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert "`distilora encoder embedded --output minilm` writes the encoder first" in text
    (lines,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    compile(lines, "card", "exec")  # labels are quoted right
    assert 'from_pretrained("minilm"' in lines
    assert 'truncation_side="left"' in lines
