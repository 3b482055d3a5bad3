"""The parity gate on a small real model: the embedded encoder, real reviews, both graphs."""

from itertools import islice
from pathlib import Path

import pytest
from conftest import tiny_config, write_csv
from fresh import verify_here

from distilora import export, saving
from distilora.artifact import read_artifact
from distilora.errors import DataError
from distilora.export import export_run
from distilora.parity import read_held_out
from distilora.run import train
from distilora.sources import open_source
from distilora.tasks import restore


def test_both_graphs_of_a_real_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (saving, export):
        monkeypatch.setattr(module, "verify", verify_here)
    records = islice(open_source("embedded").records("train", "data.split"), 0, None, 18)
    reviews = [(record.values["text"], str(record.values["label"])) for record in records]
    data = write_csv(tmp_path / "train.csv", reviews[::4])
    held_out = write_csv(tmp_path / "others.csv", [review for i, review in enumerate(reviews) if i % 4])
    changes = {
        "data__max_length": 32,
        "adapter__last_blocks": 2,
        "training__epochs": 3,
        "training__learning_rate": 0.001,
    }
    train(tiny_config(tmp_path / "run", data, Path("embedded"), **changes))
    found = export_run(tmp_path / "run", "transformersjs", tmp_path / "js", held_out=str(held_out)).parity
    assert found["texts"] == 1000
    assert found["fp32"] > 0.6
    whole, small = found["candidates"]["onnx fp32"], found["candidates"]["onnx int8"]
    assert whole["passed"]
    assert whole["agreement"] >= 0.999
    assert whole["largest_difference"] < 1e-4
    assert small["agreement"] >= 0.98  # hardly trained, it is of two minds on many texts
    assert abs(small["lost_points"]) <= 1.5
    assert 1e-3 < small["largest_difference"] < 1.0
    assert small["passed"] == (small["agreement"] >= 0.995 and small["lost_points"] <= 0.2 + 1e-9)
    assert found["default"] in [f"onnx {name}" for name, one in (("fp32", whole), ("int8", small)) if one["passed"]]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["text,mood", "a superb film,pos"],
         "no column called label, labels, sentiment, class or alike (columns: text, mood); ADVICE"),
        (["words,label", "a superb film,pos"], "no column called text, review, review_text, reviewtext or alike (columns: words, "
         "label); ADVICE"),
        (["text,label", "a superb film,good"],
         "FILE: row 1: label 'good' was not seen in training (labels: neg, pos); ADVICE"),
        (["text,label", " ,pos"], "train: no example with a text; ADVICE"),
        (["text,label", "a,b,c"], "FILE: row 1: "),
        (None, "no such file or folder: FILE; give a file"),
    ],
)  # fmt: skip
def test_an_error_of_held_out_texts_is_told_of_that_option(
    lines: list[str] | None, said: str, finished: Path, tmp_path: Path
) -> None:
    given = tmp_path / "given.csv"
    if lines:
        given.write_text("\n".join(lines) + "\n")
    artifact = read_artifact(finished)
    with pytest.raises(DataError) as caught:
        read_held_out(artifact, restore(artifact.task["name"], artifact.task["settings"]), str(given))
    message = str(caught.value)
    advice = "give texts in a column 'text' with labels in a column 'label', as in training"
    assert message.startswith("--held-out: " + said.replace("ADVICE", advice).replace("FILE", str(given)))
    assert "data." not in message.replace(str(given), "")
