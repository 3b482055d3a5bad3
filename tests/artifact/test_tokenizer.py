"""A run that truncates in the middle does so in training, prediction, exports and explanations alike, and says who cannot."""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.cards import card, snippet
from support.fresh import verify_here
from support.tiny import PLAIN, tiny_config, tiny_reviews, tiny_tokenizer, write_csv
from tokenizers import Tokenizer

import distilora
from distilora.artifact.format import read_artifact
from distilora.artifact.tokenizer import open_tokenizer
from distilora.batching.tokens import tokenise
from distilora.data.examples import Example
from distilora.explanation.explain import explain
from distilora.export import export
from distilora.export import save as saving
from distilora.files.tables import read_table
from distilora.runs.run import train

LENGTH = 24  # 22 beside the special tokens: the first 6 and the last 16
FILLER = " ".join(PLAIN[:20])
LONG = [f"superb a film {FILLER} {FILLER} the dull ending", f"{FILLER} superb superb {FILLER}"]


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Verifies in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "verify", verify_here)
        patch.setattr(saving, "verify", verify_here)
        yield


@pytest.fixture(scope="module")
def middle(quick: None, tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Path:
    """Folder of a run on reviews half of which are longer than what it reads."""
    folder = tmp_path_factory.mktemp("middle")
    rows = [(f"{text} {FILLER}" if n % 4 < 2 else text, label) for n, (text, label) in enumerate(tiny_reviews(200, 3))]
    config = tiny_config(
        folder / "run", write_csv(folder / "r.csv", rows), encoder, data__max_length=LENGTH, training__epochs=2,
        data__truncation_side="middle",
    )  # fmt: skip
    train(config)
    return folder / "run"


@pytest.fixture(scope="module")
def exported(middle: Path) -> dict[str, tuple[Path, str]]:
    """The run as a merged model and as a graph, and what was said."""
    found = {}
    for form in ("merged", "onnx"):
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            distilora.export_run(middle, form, middle.parent / form)
        found[form] = (middle.parent / form, said.getvalue())
    return found


def wanted(text: str) -> list[str]:
    tokens = tiny_tokenizer().encode(text, add_special_tokens=False).tokens
    return ["[CLS]", *(tokens if len(tokens) <= 22 else tokens[:6] + tokens[-16:]), "[SEP]"]


def test_the_artifact_s_tokenizer_cuts_as_recorded(middle: Path, finished: Path) -> None:
    artifact = read_artifact(middle)
    assert (artifact.truncation_side, artifact.max_length) == ("middle", LENGTH)
    assert Tokenizer.from_file(str(artifact.folder / "tokenizer.json")).truncation is None
    tokenizer = open_tokenizer(artifact)
    for text in [*LONG, FILLER, "a film", ""]:
        assert tokenizer.encode(text).tokens == wanted(text)
    usual = read_artifact(finished)
    assert usual.truncation_side == "right"
    assert open_tokenizer(usual).truncation["direction"] == "right"


def test_training_prediction_and_exports_read_the_same(middle: Path, exported: dict[str, tuple[Path, str]]) -> None:
    measured = [record.values for record in read_table(middle / "predictions.parquet")]
    assert 10 < sum(row["truncated"] for row in measured) < len(measured)
    reviews = [record.values["text"] for record in read_table(middle.parent / "r.csv")]
    texts = [reviews[int(row["place"].rsplit(" ", 1)[1]) - 1] for row in measured] + LONG
    predictor = distilora.load(middle, "fp32", "cpu")
    answers = predictor(texts)
    for row, answer in zip(measured, answers, strict=False):
        assert answer["truncated"] == row["truncated"]
        assert answer["p_pos"] == pytest.approx(row["p_pos"], abs=1e-6)
    for folder, _ in exported.values():
        assert read_artifact(folder).truncation_side == "middle"
        for answer, exact in zip(distilora.load(folder, "fp32", device="cpu")(texts), answers, strict=True):
            assert answer["truncated"] == exact["truncated"]
            assert answer["p_pos"] == pytest.approx(exact["p_pos"], abs=1e-5)


def test_words_in_the_middle_have_no_part_in_an_answer(middle: Path) -> None:
    predictor = distilora.load(middle, "fp32", "cpu")
    first, second, third = predictor([LONG[1], LONG[1].replace("superb superb", "dull dull"), f"dull {LONG[1][4:]}"])
    assert first["p_pos"] == second["p_pos"] != third["p_pos"]
    for method in ("leave-one-out", "integrated-gradients"):
        explanation = explain(predictor, LONG[0], method)
        words = LONG[0].split()
        assert [part.word for part in explanation.parts] == words
        kept = [part.weight is not None for part in explanation.parts]
        assert kept == [n < 6 or n >= len(words) - 16 for n in range(len(words))]
        assert explanation.cut == len(words) - 22
        assert explain(predictor, FILLER, method).cut == 0


def test_a_part_is_read_if_either_end_of_the_cut_lies_in_it(middle: Path) -> None:
    text = "a film . the plot and the story is very dull and the music . it is really quite the scene with a superb ending . film ."
    tokens = tiny_tokenizer().encode(text, add_special_tokens=False).tokens
    assert len(tokens) == 28  # 6 to 11 are cut out: all within the second sentence
    parts = explain(distilora.load(middle, "fp32", "cpu"), text, level="sentence").parts
    assert [part.weight is None for part in parts] == [False] * len(parts)


def test_who_cannot_is_told(middle: Path, finished: Path, exported: dict[str, tuple[Path, str]]) -> None:
    text = card(middle)
    assert "**These lines read otherwise than distilora.**" in text
    assert f"truncated to {LENGTH} tokens by cutting out their middle" in text
    assert 'truncation_side="right"' in snippet(middle, [])
    assert "otherwise than distilora" not in card(finished)
    assert (
        "warning: the middle of a longer text is cut out, in this export only if distilora reads it"
        in exported["onnx"][1]
    )
    assert "its tokenizer.json cuts nothing" in exported["onnx"][1]
    assert "Transformers reads the beginning alone" in exported["merged"][1]


def test_a_merged_model_is_cut_at_its_end_by_transformers(exported: dict[str, tuple[Path, str]]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(exported["merged"][0])
    ids = tokenizer(LONG[0], truncation=True)["input_ids"]
    expected = tiny_tokenizer().encode(LONG[0], add_special_tokens=False).tokens[: LENGTH - 2]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", *expected, "[SEP]"]


def test_check_texts_are_cut_in_the_middle(middle: Path) -> None:
    from distilora.artifact.check import read_check

    artifact = read_artifact(middle)
    check = read_check(artifact.folder)
    tokens = tokenise(open_tokenizer(artifact), check.examples)
    assert np.any(tokens.truncated)
    assert tokens.rows.lengths.max() == LENGTH
    assert json.loads((middle / "metrics.json").read_text())["round_trip"]["run_precision"]["largest_difference"] == 0
    assert tokenise(open_tokenizer(artifact), [Example((LONG[0],))]).rows.lengths.tolist() == [LENGTH]
