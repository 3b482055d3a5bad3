"""Question answering: answers are spans of the context as it was given, windows share one softmax, no answer is one, too."""

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
from distilora.data.cleaning import cleaning
from distilora.data.examples import Example
from distilora.errors import DataError
from distilora.inference.predictor import load
from distilora.tasks.question_answering import QuestionAnswering

TASK = QuestionAnswering(overlap=4)
CONTEXT = "the music was superb and the plot dull"


def answers(*pairs: tuple[str, int]) -> dict[str, list[Any]]:
    return {"text": [text for text, _ in pairs], "answer_start": [start for _, start in pairs]}


def read(context: str = CONTEXT, value: Any = None, question: str = "the music") -> Example:
    return TASK.cleaned(TASK.read({"question": question, "context": context, "answers": value}), cleaning("html"))


def tokenizer(length: int = 24) -> Any:
    made = tiny_tokenizer()
    made.enable_truncation(length)
    return made


@pytest.mark.parametrize(
    "value",
    [
        answers(("superb", 14)),
        json.dumps(answers(("superb", 14))),
        [{"text": "superb", "answer_start": 14}],
        "superb",
        ["superb"],
        '["superb"]',
    ],
)
def test_answers_are_read_as_squad_has_them(value: Any) -> None:
    assert [tuple(truth) for truth in read(value=value).target] == [("superb", 14, 20)]


@pytest.mark.parametrize("value", [None, "", float("nan"), {"text": [], "answer_start": []}, []])
def test_a_question_may_have_no_answer(value: Any) -> None:
    assert read(value=value).target == ()


@pytest.mark.parametrize(
    "value",
    [
        answers(("the", 1)),
        answers(("boring", 4)),
        {"text": ["a"]},
        "{",
        [{"text": "superb"}],
        7,
        "the",
        "boring",
        ["boring"],
    ],
)
def test_an_answer_that_is_not_there_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match=r"data\.label_column: "):
        read(value=value)


def test_an_offset_that_is_wrong_is_mended_where_only_one_can_be_right() -> None:
    assert [tuple(truth) for truth in read(value=answers(("superb", 3))).target] == [("superb", 14, 20)]


def test_answers_move_with_cleaning_and_back() -> None:
    context = "<p>the  music</p> was&nbsp;superb"
    example = read(context, answers(("superb", context.index("superb"))))
    assert example.texts[1] == "the music was superb"
    (truth,) = example.target
    assert example.texts[1][truth.start : truth.end] == "superb"
    (goal,) = TASK.targets([example], tokenizer())
    logits = np.full((1, len(goal.encoded.window), 2), -5, np.float32)
    logits[0, goal.starts[0], 0] = logits[0, goal.ends[0], 1] = 5
    (answer,) = TASK.decode(logits, [example], tokenizer())
    assert answer["answer"] == "superb"
    assert context[answer["start"] : answer["end"]] == "superb"


def test_an_answer_with_markup_is_read_without_it() -> None:
    context = "<p>the <b>very</b> superb   music</p>"
    example = read(context, answers(("very</b> superb   music", context.index("very"))))
    (truth,) = example.target
    assert (truth.text, example.texts[1][truth.start : truth.end]) == ("very superb music",) * 2
    (goal,) = TASK.targets([example], tokenizer())
    logits = np.full((1, len(goal.encoded.window), 2), -5, np.float32)
    logits[0, goal.starts[0], 0] = logits[0, goal.ends[0], 1] = 5
    (answer,) = TASK.decode(logits, [example], tokenizer())
    assert answer["answer"] == "very superb music"
    assert context[answer["start"] : answer["end"]] == "very</b> superb   music"


def test_answers_are_written_for_readers() -> None:
    assert TASK.target_text(json.dumps(["superb", "dull"])) == "superb | dull"
    assert TASK.target_text("[]") == "(no answer)"
    assert TASK.answer_text({"answer": "superb", "score": 0.52}) == "superb 0.52"
    assert TASK.answer_text({"answer": None, "score": 0.9}) == "(no answer) 0.90"


def test_the_loss_is_one_softmax_over_all_windows() -> None:
    context = " ".join([*PLAIN, "superb", *PLAIN])
    example = read(context, answers(("superb", context.index("superb"))))
    (goal,) = TASK.targets([example], tokenizer())
    assert len(goal.encoded.firsts) > 2
    z = torch.randn(1, len(goal.encoded.window) + 3, 2, generator=torch.Generator().manual_seed(0))  # 3 of no token
    z[0, -3:] = -1e4
    z.requires_grad_()
    loss = TASK.loss(z, [goal])
    expected = 0.0
    for column, true in ((0, goal.starts), (1, goal.ends)):
        values = z.detach()[0, :, column].double().numpy()
        nothing = values[goal.encoded.firsts].min()
        total = np.exp(nothing) + np.exp(values[: len(goal.encoded.window)][goal.encoded.inside]).sum()
        expected -= np.log(np.exp(values[list(true)]).sum() / total) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    loss.sum().backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_the_loss_without_an_answer_is_that_of_the_first_tokens() -> None:
    goals = TASK.targets([read(), read(value=answers(("superb", 14)))], tokenizer())
    z = torch.zeros(2, max(len(goal.encoded.window) for goal in goals), 2, requires_grad=True)
    loss = TASK.loss(z, goals)
    inside = int(goals[0].encoded.inside.sum())
    assert loss.tolist() == pytest.approx([np.log(1 + inside)] * 2)
    loss.sum().backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    assert (z.grad[0, 0] < 0).all()


def test_the_threshold_is_that_of_the_best_f1() -> None:
    example = read(value=answers(("superb", 14)))
    goals = TASK.targets([example, read()], tokenizer())
    logits = np.full((2, len(goals[0].encoded.window), 2), -5, np.float32)
    for row, nothing in ((0, 4.0), (1, 6.0)):  # by itself the model answers neither
        logits[row, goals[0].starts[0], 0] = logits[row, goals[0].ends[0], 1] = 3
        logits[row, 0] = nothing
    assert TASK.metrics(logits, goals)["f1"]["value"] == 0.5
    decided = TASK.decided(logits, goals)
    assert 2 < decided.settings["threshold"] < 6
    assert decided.metrics(logits, goals)["f1"]["value"] == 1.0


def test_a_context_in_windows_is_answered_once() -> None:
    context = " ".join([*PLAIN, "superb", *PLAIN])
    example = read(context)
    (goal,) = TASK.targets([example], tokenizer())
    logits = np.full((1, len(goal.encoded.window), 2), -5, np.float32)
    place = np.flatnonzero(goal.encoded.spans[:, 0] == context.index("superb"))
    logits[0, place] = 5
    (answer,) = TASK.decode(logits, [example], tokenizer())
    assert (answer["answer"], answer["start"]) == ("superb", context.index("superb"))


def write(path: Path, count: int, seed: int) -> str:
    """Contexts of two aspects, each with its word; the question names an aspect, or one that is not there."""
    rng, rows = random.Random(seed), []
    for _ in range(count):
        aspects = rng.sample(["plot", "music", "actor", "ending"], 3)
        words = [rng.choice(GOOD + BAD) for _ in range(2)]
        context = f"the {aspects[0]} was {words[0]} and the {aspects[1]} was {words[1]} {rng.randrange(10**6)} ."
        asked = rng.randrange(3)
        found = () if asked == 2 else ((words[asked], context.index(words[asked], context.index(aspects[asked]))),)
        rows.append({"question": f"the {aspects[asked]}", "context": context, "answers": answers(*found)})
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.mark.slow
def test_from_training_to_scoring(encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import dataclasses

    run, test = str(tmp_path / "run"), write(tmp_path / "test.jsonl", 60, 2)
    data = Path(write(tmp_path / "train.jsonl", 500, 1))
    config = tiny_config(tmp_path / "run", data, encoder, training__epochs=12)
    recipe = write_recipe(tmp_path / "recipe.yaml", dataclasses.replace(config, task="question_answering"))
    assert main(["train", recipe]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))["evaluations"][0]
    assert metrics["metrics"]["f1"]["value"] > metrics["baseline"]["f1"]
    assert main(["evaluate", run, "--data.path", test]) == 0
    assert main(["predict", run, "a plot"]) == 2
    assert "answers --question TEXT from --context FILE; give both" in capsys.readouterr().err
    rows = [json.loads(line) for line in Path(test).read_text().splitlines()]
    own = load(run, "fp32")([{"question": row["question"], "context": row["context"]} for row in rows])
    for row, answer in zip(rows, own, strict=True):
        if answer["answer"]:
            assert row["context"][answer["start"] : answer["end"]] == answer["answer"]
    for form in ("merged", "onnx"):
        assert main(["export", run, "--to", form, "--output", f"{run}-{form}"]) == 0
        exported = load(f"{run}-{form}", "fp32")(
            [{"question": row["question"], "context": row["context"]} for row in rows]
        )
        assert [answer["answer"] for answer in exported] == [answer["answer"] for answer in own]
    assert main(["score", run, test, "--output", f"{run}-out", "--format", "jsonl"]) == 0
    capsys.readouterr()
    (tmp_path / "context.txt").write_text(rows[0]["context"])
    words = ["--question", rows[0]["question"], "--context", str(tmp_path / "context.txt")]
    assert main(["predict", run, *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == own[0]["answer"]
    words = ["--question", rows[0]["question"], rows[0]["context"], "--json"]
    assert main(["explain", run, *words]) == 0
    assert len(json.loads(capsys.readouterr().out)["parts"]) == len(rows[0]["context"].split())
    assert main(["explain", run, *words, "--method", "integrated-gradients"]) == 2
    assert "leave-one-out" in capsys.readouterr().err
