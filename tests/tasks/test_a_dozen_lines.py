"""Every task learns from a csv of a dozen lines by every method, and answers; what a newcomer tries first."""

import csv
import json
from pathlib import Path
from typing import NamedTuple

import pytest

from distilora.cli.main import main
from distilora.export import save as saving
from distilora.model.adapters.methods import METHODS


class Kind(NamedTuple):
    """A task, the columns of its table, how a line is made of its number, and words that ask for an answer."""

    task: str
    columns: tuple[str, ...]
    word: str
    asked: tuple[str, ...]
    answer: str


TEXT = ("the plot was dull and the music superb",)
KINDS = [
    Kind("classification", ("text", "label"), "good", TEXT, "label"),
    Kind("ordinal", ("text", "stars"), "3", TEXT, "label"),
    Kind("regression", ("text", "rating"), "2.5", TEXT, "value"),
    Kind("multilabel", ("text", "tags"), "music; plot", TEXT, "labels"),
    Kind(
        "question_answering", ("question", "context", "answer"), "", ("--question", "which plot", "--context"), "answer"
    ),
    Kind("summarization", ("document", "summary"), "", TEXT, "summary"),
]


def write(path: Path, kind: Kind) -> str:
    other = {"good": "bad", "3": "1", "2.5": "-1", "music; plot": ""}.get(kind.word, "")
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(kind.columns)
        for i in range(12):
            if kind.task == "question_answering":
                writer.writerow(
                    (f"what is number {i}", f"the plot is number {i} and it was long", f"number {i}" if i % 3 else "")
                )
            elif kind.task == "summarization":
                writer.writerow((f"The film was number {i}. A dull plot. The end was superb {i}.", f"superb {i}"))
            else:
                writer.writerow((f"the film was number {i}", kind.word if i % 2 else other))
    return str(path)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS, ids=[kind.task for kind in KINDS])
def test_a_dozen_lines(
    kind: Kind,
    method: str,
    encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from support.fresh import verify_here

    if kind.task == "summarization":
        pytest.importorskip("rouge_score")
    monkeypatch.setattr(saving, "verify", verify_here)
    run = str(tmp_path / "run")
    words = ["--task", kind.task, "--data.path", write(tmp_path / "lines.csv", kind), "--encoder.name", str(encoder)]
    assert main(["train", *words, "--adapter.method", method, "--data.max_length", "32", "--output", run]) == 0
    assert (tmp_path / "run" / "report.html").is_file()
    capsys.readouterr()
    asked = [*kind.asked]
    if asked[-1] == "--context":
        (tmp_path / "context.txt").write_text("the plot is number 7")
        asked.append(str(tmp_path / "context.txt"))
    assert main(["predict", run, *asked, "--json"]) == 0
    assert kind.answer in json.loads(capsys.readouterr().out)
