"""Extractive summarisation: sentences keep their places, one logit each, and the summary repeats nothing."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.stopping import write_recipe
from support.tiny import BAD, GOOD, PLAIN, tiny_config, tiny_tokenizer

from distilora.cli.main import main
from distilora.config.parse import parse
from distilora.config.schema import RunConfig
from distilora.data.cleaning import cleaning
from distilora.data.examples import Example, Examples
from distilora.errors import ConfigError, DataError
from distilora.inference.predictor import load
from distilora.tasks.metrics.rouge import oracle, rouge
from distilora.tasks.selection import choose
from distilora.tasks.summarization import Summarization

pytest.importorskip("rouge_score")
TASK = Summarization(sentences=2)
HTML = cleaning("html")


def tokenizer(length: int = 24) -> Any:
    made = tiny_tokenizer()
    made.enable_truncation(length)
    return made


def read(document: Any, summaries: Any = "a plot") -> Example:
    return TASK.cleaned(TASK.read({"text": document, "summaries": summaries}), HTML)


def test_a_text_is_cut_into_sentences_that_know_their_places() -> None:
    text = "<p>The  film was dull.</p> It ended! &amp; nobody minded."
    example = read(text)
    assert example.texts == ("The film was dull.", "It ended!", "& nobody minded.")
    assert [text[start:end] for start, end in example.origin] == [
        "The  film was dull.",
        "It ended!",
        "&amp; nobody minded.",
    ]


@pytest.mark.parametrize("document", [["a plot.", " ", "the music."], '["a plot.", " ", "the music."]'])
def test_sentences_may_be_given(document: Any) -> None:
    example = read(document, ["first", "second"])
    assert example.texts == ("a plot.", "the music.")
    assert example.origin == ((0, 7), (10, 20))
    assert example.target == ("first", "second")


@pytest.mark.parametrize("document", [None, "", [], "[]", ["", " "]])
def test_a_document_may_be_empty(document: Any) -> None:
    assert not any(text.strip() for text in read(document).texts)


@pytest.mark.parametrize("summaries", [None, "", [], [" "], 7, ["a", 7]])
def test_a_document_without_a_summary_is_refused(summaries: Any) -> None:
    with pytest.raises(DataError, match=r"data\.label_column: .* a summary or a list of them is wanted"):
        read("a plot.", summaries)


def test_every_sentence_has_a_place_in_windows_of_whole_sentences() -> None:
    sentences = [" ".join(PLAIN[i : i + 6]) for i in range(8)]
    tokens = TASK.tokenise(tokenizer(), [Example(tuple(sentences)), Example(("the film", "[SEP] a plot"))])
    rows = tokens.rows
    assert rows.groups == 2
    assert len(rows) == 4
    assert rows.lengths.max() <= 24
    assert not tokens.truncated.any()
    places = TASK.places(rows)
    assert np.bincount(places.group).tolist() == [8, 2]
    assert places.number.tolist() == [*range(8), 0, 1]
    assert {tokenizer().id_to_token(int(rows.ids[token])) for token in places.token} == {"[SEP]"}


def test_a_sentence_longer_than_a_window_is_cut_and_told() -> None:
    tokens = TASK.tokenise(tokenizer(), [Example((" ".join(PLAIN * 3), "the film"))])
    assert tokens.rows.lengths.max() <= 24
    assert tokens.truncated.tolist() == [True]
    assert len(TASK.places(tokens.rows).token) == 2


def test_graph_and_network_collect_alike() -> None:
    rows = TASK.tokenise(tokenizer(), [Example(("a plot", "the film was")), Example(("music",))]).rows
    logits = torch.randn(len(rows.ids), 1)
    from types import SimpleNamespace

    states = SimpleNamespace(tokens=lambda: logits, head=lambda vectors: vectors)
    np.testing.assert_array_equal(TASK.head(states, rows).numpy(), TASK.collect(logits.numpy(), rows))  # type: ignore[arg-type]


def test_summaries_are_written_for_readers() -> None:
    task = Summarization()
    assert task.target_text(json.dumps(["One.", "Two."])) == "One. | Two."
    assert task.answer_text({"summary": "A film.\nA plot.", "sentences": "[0, 1]"}) == "A film. A plot."


def test_the_oracle_is_greedy() -> None:
    sentences = ["the film was long", "superb music and a warm plot", "dull ending", "warm plot"]
    assert oracle(sentences, "superb music, warm plot") == [1]
    assert oracle(sentences, "a long film with a dull ending") == [0, 2]
    assert oracle(sentences, "nothing of that") == []


def test_measures_are_of_the_reference_with_the_best_rouge_1() -> None:
    scores = rouge("the cat sat on the mat", ["a dog", "the cat sat", "the mat on sat the cat"])
    assert scores["rouge1"] == 1.0
    assert scores["rouge2"] < 0.5  # that of "the cat sat" is greater


def test_repetition_is_passed_over_and_lengths_are_kept() -> None:
    sentences = ("a warm and superb plot", "a warm and superb ending", "dull music", "the film was very long")
    logits = np.asarray([[5.0], [4.0], [3.0], [2.0]], np.float32)
    assert TASK.choose(logits, sentences) == [0, 2]
    assert Summarization(sentences=2, redundancy="none").choose(logits, sentences) == [0, 1]
    assert TASK.with_length(words=7).choose(logits, sentences) == [0, 2]
    assert TASK.with_length(words=1).choose(logits, sentences) == [0]
    assert TASK.with_length(sentences=9).choose(logits, sentences) == [0, 2, 3]
    by_words = Summarization(words=7, redundancy="mmr")
    assert Summarization(sentences=2, redundancy="mmr").choose(logits, sentences) == [0, 2]
    assert Summarization(sentences=4, redundancy="mmr").choose(logits, sentences) == [0, 1, 2, 3]
    assert by_words.choose(logits, sentences) == [0, 2]
    with pytest.raises(ConfigError, match="sentences: 0 given"):
        TASK.with_length(sentences=0)


def test_the_loss_is_a_mean_over_the_documents_own_sentences() -> None:
    goals = TASK.targets([read("superb music. dull film.", "superb music"), read("a plot.", "a plot")], tokenizer())
    outputs = torch.tensor([[[2.0], [-1.0]], [[0.5], [-1e4]]], requires_grad=True)
    expected = [(np.log1p(np.exp(-2)) + np.log1p(np.exp(-1))) / 2, np.log1p(np.exp(-0.5))]
    loss = TASK.loss(outputs, goals)
    assert loss.tolist() == pytest.approx(expected, rel=1e-5)
    loss.sum().backward()
    assert outputs.grad is not None
    assert float(outputs.grad[1, 1]) == 0


def write(path: Path, count: int, seed: int) -> str:
    """Documents of five plain sentences, one of which judges the film: that is the summary."""
    rng, rows = random.Random(seed), []
    for _ in range(count):
        sentences = [" ".join(rng.choices(PLAIN, k=6)) + f" {rng.randrange(10**6)}." for _ in range(5)]
        judged = " ".join(rng.choices(GOOD + BAD, k=3)) + "."
        sentences[rng.randrange(5)] = judged
        rows.append({"text": " ".join(sentences), "summaries": [judged]})
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.mark.slow
def test_from_training_to_scoring(encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, test = str(tmp_path / "run"), write(tmp_path / "test.jsonl", 50, 2)
    config = tiny_config(tmp_path / "run", Path(write(tmp_path / "train.jsonl", 300, 1)), encoder, training__epochs=6)
    recipe = write_recipe(tmp_path / "recipe.yaml", dataclasses.replace(config, task="summarization"))
    assert main(["train", recipe]) == 0
    split = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))["evaluations"][0]
    assert split["metrics"]["rouge1"]["value"] > split["beside"]["lead"]["rouge1"]
    assert split["metrics"]["rouge1"]["value"] <= split["beside"]["oracle"]["rouge1"] + 1e-9
    assert split["verdict"] == ""
    assert "first sentences would have a ROUGE-1 of" in (tmp_path / "run" / "README.md").read_text("utf-8")
    assert main(["evaluate", run, "--data.path", test]) == 0
    texts = [json.loads(line)["text"] for line in Path(test).read_text().splitlines()]
    own = load(run, "fp32")(texts)
    for text, answer in zip(texts, own, strict=True):
        assert "\n".join(text[start:end] for start, end in json.loads(answer["spans"])) == answer["summary"]
    for form in ("merged", "onnx"):
        assert main(["export", run, "--to", form, "--output", f"{run}-{form}"]) == 0
        exported = load(f"{run}-{form}", "fp32")(texts)
        assert [answer["summary"] for answer in exported] == [answer["summary"] for answer in own]
    assert main(["score", run, test, "--output", f"{run}-out", "--format", "jsonl"]) == 0
    capsys.readouterr()
    assert main(["predict", run, texts[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"] == own[0]["summary"]
    assert main(["predict", run, texts[0], "--json", "--sentences", "3"]) == 0
    assert len(json.loads(json.loads(capsys.readouterr().out)["sentences"])) == 3
    assert main(["predict", run, texts[0], "--json", "--words", "0"]) == 2
    assert capsys.readouterr().err == "distilora: --words: 0 given, at least 1 wanted\n"
    assert main(["predict", run, texts[0], "--question", "why", "--context", str(tmp_path / "recipe.yaml")]) == 2
    capsys.readouterr()
    (tmp_path / "long.txt").write_text(f"{texts[0]}\n{texts[1]}")
    one = load(run, "fp32")(f"{texts[0]}\n{texts[1]}")["summary"]
    assert main(["predict", run, "--input", str(tmp_path / "long.txt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"] == one
    assert main(["predict", run, "--input", str(tmp_path / "long.txt"), "--output", str(tmp_path / "out.csv")]) == 2
    assert "a text file is one document" in capsys.readouterr().err
    assert main(["data", "--task", "summarization", "--data.path", test, "--encoder.name", str(encoder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"]["longest"] < 64
    (tmp_path / "long.txt").write_text(texts[0])
    assert main(["predict", run, "--input", str(tmp_path / "long.txt")]) == 0
    places, sentence = capsys.readouterr().out.strip().split("  ", 1)
    assert texts[0][slice(*map(int, places.split("-")))] == sentence


def test_marginal_relevance_by_hand() -> None:
    """Of two copies and a worse sentence the worse one is next where 0.7 of the lead in probability is less than 0.3 times 1."""
    sentences = ("warm plot", "warm plot", "dull music")
    for second, expected in ((0.9, [0, 2]), (0.97, [0, 2]), (0.2, [0, 2])):
        p = np.asarray([0.99, second, second - 0.1])
        logits = np.log(p / (1 - p)).astype(np.float32)
        assert choose(logits, sentences, 2, redundancy="mmr") == expected
    p = np.asarray([0.99, 0.98, 0.98 - 0.3 / 0.7 - 0.01])  # just too unlikely
    assert choose(np.log(p / (1 - p)).astype(np.float32), sentences, 2, redundancy="mmr") == [0, 1]


def test_a_run_may_set_length_and_redundancy() -> None:
    config = parse(RunConfig, ("--summary.words", "40", "--summary.redundancy", "mmr"))
    assert Summarization().configured(config).settings["words"] == 40
    assert Summarization().configured(config).settings["redundancy"] == "mmr"
    assert Summarization(words=40).learnt_from(Examples("train", [])).settings["sentences"] is None
    with pytest.raises(ConfigError, match=r"^summary\.words: given beside summary\.sentences; drop one of the two$"):
        parse(RunConfig, ("--summary.words", "40", "--summary.sentences", "2"))


def test_lengths_go_with_summaries(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(finished), "a plot", "--sentences", "2"]) == 2
    assert (
        capsys.readouterr().err
        == "distilora: --sentences: given, but task classification chooses no sentences; drop it\n"
    )
