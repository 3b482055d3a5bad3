"""Label Studio's files: the tasks fit the labelling config, corrections lead back to their rows, damaged exports are refused."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from distilora.data.audit import Row
from distilora.errors import DataError
from distilora.evaluation.label_studio import Correction, labelling_config, read_corrections, task_record

ROW = Row("train", 7, "r.csv: row 7", ("a <b>fine</b> film",), "a fine film", 0, "d1")


def annotated(*labels: str | None, **changes: Any) -> dict[str, Any]:
    """The task of ROW with an annotation for each label; None is a skipped one."""
    task = task_record(ROW, "neg", "pos", 0.98, "label", "")
    annotations = []
    for label in labels:
        result = {**task["predictions"][0]["result"][0], "value": {"choices": [label]}}
        annotations.append({"was_cancelled": label is None, "result": [result]})
    return {"id": 3, **task, "annotations": annotations, **changes}


def export(path: Path, tasks: Any) -> Path:
    path.write_text(json.dumps(tasks), "utf-8")
    return path


def test_a_task_fits_the_config() -> None:
    labels = ["pos", 'so "so" & <so>']
    config = ElementTree.fromstring(labelling_config(labels))
    choices = config.find("Choices")
    assert choices is not None
    assert [choice.get("value") for choice in choices] == labels
    task = task_record(ROW, "neg", "pos", 0.98, "label", "")
    (prediction,) = task["predictions"]
    (result,) = prediction["result"]
    text = config.find("Text")
    assert text is not None
    assert (result["from_name"], result["to_name"]) == (choices.get("name"), text.get("name"))
    assert choices.get("toName") == text.get("name")
    assert str(text.get("value")).removeprefix("$") in task["data"]
    assert (result["type"], result["value"], prediction["score"]) == ("choices", {"choices": ["pos"]}, 0.98)
    assert task["data"]["text"] == "a fine film"


@pytest.mark.parametrize(
    ("labels", "chosen"),
    [(["pos"], "pos"), (["pos", "pos"], "pos"), ([None, "neg"], "neg"), ([None], None), ([], None)],
)
def test_a_correction_leads_back(labels: list[str | None], chosen: str | None, tmp_path: Path) -> None:
    path = export(tmp_path / "c.json", [annotated(*labels)])
    assert read_corrections(path) == [Correction("train", 7, "d1", "neg", chosen)]


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([annotated("pos", "neg")], "task 1: its annotations differ (pos, neg)"),
        ([annotated("pos"), annotated("pos")], "task 2: row 7 of train stands there twice"),
        ([annotated("pos", data={"text": "a film"})], "task 1: lacks split, row, digest and label"),
        ([annotated("pos", annotations=[{"result": 3}])], "task 1: its annotations are damaged"),
        ([{"text": "a film", "label": "pos"}], "task 1: has no annotations; export as JSON (not JSON-MIN or CSV)"),
        ({"tasks": []}, "holds no list of tasks"),
        ([], "holds no list of tasks"),
    ],
)
def test_exports_that_are_refused(tasks: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_corrections(export(tmp_path / "c.json", tasks))
    assert str(caught.value).startswith(f"apply: {tmp_path / 'c.json'}")
    assert said in str(caught.value)


def test_what_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("id,label\n", "utf-8")
    with pytest.raises(DataError, match="is not JSON"):
        read_corrections(tmp_path / "c.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_corrections(tmp_path / "nowhere.json")
