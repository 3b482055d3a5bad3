"""Explanations as people and programs get them: whole files, escaped text, and the command that writes them."""

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from distilora.cli.main import main
from distilora.errors import ConfigError, OutputError
from distilora.explanation.explain import Explanation, Weight, explain
from distilora.explanation.page import page, table, write_explanation
from distilora.inference.predictor import load

Captured = pytest.CaptureFixture[str]
TEXT = "<script>alert('a&b')</script>  superb {film} dull"
NASTY = Explanation(
    TEXT, "integrated-gradients", "word", "<b>good</b>", 0.75,
    (
        Weight(TEXT[:29], 0, 29, None), Weight("superb", 31, 37, 0.5), Weight("{film}", 38, 44, 0.0),
        Weight("dull", 45, 49, -1.0),
    ),
    8, 0.25, 0.0, 0.75,
)  # fmt: skip


class Read(HTMLParser):
    """Tags in order, the text of the explained text, and what refers to somewhere else."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text, self.elsewhere, self.depth = "", "", 0
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open += [] if tag in ("meta", "br") else [tag]
        self.depth += tag == "div"
        self.elsewhere += "".join(name for name, _ in attributes if name in ("src", "href", "onload"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.depth -= tag == "div"

    def handle_data(self, data: str) -> None:
        self.text += data if self.depth else ""


def test_an_answer_so_sure_that_no_word_changes_it() -> None:
    parts = (Weight("superb", 0, 6, 0.00004), Weight("film", 7, 11, -0.00001), Weight("cut", 12, 15, None))
    sure = Explanation("superb film cut", "leave-one-out", "word", "pos", 1.0, parts)
    assert "so sure that no single word changes it. Its log-odds do change: --method integrated-gradients" in table(
        sure
    )
    assert "so sure" not in table(replace(sure, parts=(*parts[:2], Weight("cut", 12, 15, 0.001))))


def test_a_page_is_whole_and_escaped() -> None:
    html = page(NASTY)
    read = Read(html)
    assert read.open == []
    assert read.text == TEXT
    assert "script" not in read.tags
    assert "b" not in read.tags
    assert read.elsewhere == ""
    assert "http" not in html.replace("http-equiv", "")
    shades = dict(re.findall(r"rgba\(([^)]*)\)\" title=\"([^\"]*)\"", html))
    assert shades == {"37, 99, 166, 0.38": "+0.5000", "194, 65, 12, 0.00": "+0.0000", "194, 65, 12, 0.75": "-1.0000"}
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td></tr>", html)
    assert [word for _, word in rows] == ["dull", "superb", "{film}"]
    assert 'class="cut"' in html
    assert "1 of 4 words were cut off" in html
    assert "completeness error 0.750" in html


def test_a_table_has_the_heaviest_first() -> None:
    title, *lines = table(NASTY).splitlines()
    assert title == "<b>good</b> 75.0%, by integrated-gradients"
    assert [line.split() for line in lines[:3]] == [["-1.0000", "dull"], ["+0.5000", "superb"], ["+0.0000", "{film}"]]


def test_files_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_explanation(NASTY, tmp_path / "a.json")
    record = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert record == NASTY.record()
    assert record["parts"][1] == {"word": "superb", "start": 31, "end": 37, "weight": 0.5}
    assert (record["measure"], record["cut"], record["completeness_error"]) == ("log-odds", 1, 0.75)
    write_explanation(NASTY, tmp_path / "a.HTML")
    assert (tmp_path / "a.HTML").read_text("utf-8") == page(NASTY)
    (tmp_path / "b.html").mkdir()
    for name, said in (("a.txt", "a file ending in"), ("no/a.html", "does not exist"), ("b.html", "is a folder")):
        with pytest.raises(ConfigError, match=f"^--output: .*{said}"):
            write_explanation(NASTY, tmp_path / name)

    def full(*names: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    for name in ("c.html", "c.json"):
        with pytest.raises(
            OutputError, match=r"cannot be written \(No space left on device\); make room, or give another file$"
        ):
            write_explanation(NASTY, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.HTML", "a.json", "b.html"]


def test_the_command_prints_and_writes(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    text = "the film was superb. <script>a dull ending</script>"
    predictor = load(finished, "fp32", "cpu")
    common = ["explain", str(finished), text, "--device", "cpu", "--precision", "fp32"]
    assert main([*common, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == explain(predictor, text).record()
    assert main(common) == 0
    assert capsys.readouterr().out == table(explain(predictor, text)) + "\n"
    output = tmp_path / "why.html"
    words = ["--method", "integrated-gradients", "--steps", "3", "--level", "sentence", "--label", "neg"]
    assert main([*common, *words, "--output", str(output)]) == 0
    explanation = explain(predictor, text, "integrated-gradients", "sentence", "neg", 3)
    assert capsys.readouterr().out == f"{output}: neg {explanation.probability:.1%}, 2 sentences\n"
    assert unescape(output.read_text("utf-8")) == unescape(page(explanation))


def test_the_command_says_what_was_cut(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    output = tmp_path / "why.json"
    for text, cut in (("superb film " * 40, 18), ("superb film", 0)):
        words = ["explain", str(finished), text, "--device", "cpu", "--precision", "fp32"]
        assert main([*words, "--output", str(output), "--overwrite"]) == 0
        line = capsys.readouterr().out
        assert line.endswith(" 80 words, 18 of them cut off unread\n" if cut else " 2 words\n")
        assert json.loads(output.read_text())["cut"] == cut
        assert main(words) == 0
        assert ("18 of 80 words were cut off: the text is longer" in capsys.readouterr().out) == bool(cut)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "the following arguments are required: RUN, TEXT; see distilora explain --help"),
        (["RUN", "great", "film"], "TEXT: 2 given, one is explained at a time; put a text of several words in quotes"),
        (["RUN", "text", "--method", "guess"], "--method: 'guess' given, leave-one-out, integrated-gradients, "),
        (["RUN", "text", "--level", "letter"], "--level: 'letter' given, word, sentence wanted"),
        (["RUN", "text", "--steps", "3"], "--steps: leave-one-out takes none; drop it"),
        (["RUN", "text", "--method", "integrated-gradients", "--steps", "0"], "--steps: 0 given, a whole number"),
        (["RUN", "a b", "--output", "why.txt"], "--output: why.txt given, a file ending in .html or .json wanted"),
        (["RUN", "a b", "--output", "why.html", "--json"], "--json: prints, --output writes; give one of them"),
        (["RUN", "a b", "--label", "good"], "--label: there is no label 'good'; there are neg, pos"),
        (["RUN", "superb"], "explain: one word cannot be left out"),
        (["RUN", "superb film", "--level", "sentence"], "explain: one sentence cannot be left out"),
        (["RUN", " "], "text 1: the text is blank"),
        (["nowhere", "text"], "nowhere: no such run"),
    ],
)
def test_the_command_refuses(finished: Path, words: list[str], named: str, capsys: Captured) -> None:
    assert main(["explain", *(str(finished) if word == "RUN" else word for word in words)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"distilora: {named}")
