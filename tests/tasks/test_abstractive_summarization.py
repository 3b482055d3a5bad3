"""Abstractive summarisation, on tiny random encoder-decoders: nothing is claimed of what they write but that it is reproduced."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.stopping import write_recipe
from support.tiny import tiny_config
from support.writers import config_of, write_model
from tokenizers import Tokenizer

from distilora.artifact.format import read_artifact
from distilora.cli.main import main
from distilora.config.schema import AdapterConfig
from distilora.errors import ConfigError
from distilora.inference.predictor import load
from distilora.model.build import new_network
from distilora.model.encoders.find import find_encoder, load_tokenizer
from distilora.runs.run import Run, train
from distilora.tasks.abstractive_summarization import AbstractiveSummarization

pytest.importorskip("rouge_score")
FAMILIES = ("t5", "bart")


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp(request.param)
    config = config_of(
        base,
        write_model(base / "model", request.param, 0.2),
        training__epochs=25,
        training__learning_rate=0.01,
        adapter__r=16,
    )
    assert main(["train", write_recipe(base / "recipe.yaml", config)]) == 0
    return base


def test_a_dry_run_measures_updates(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--task", "abstractive_summarization", "--encoder.name", str(trained / "model"), "--dry-run"]
    settings += ["--data.max_length", "64"]
    source = ["--data.path", str(trained / "data.jsonl"), "--output", str(trained / "dry")]
    assert main(["train", *settings, *source]) == 0
    assert "tokens/s in updates" in capsys.readouterr().out


def test_a_run_from_training_to_scoring(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(trained / "run")
    metrics = json.loads((trained / "run" / "metrics.json").read_text("utf-8"))
    assert metrics["round_trip"]["run_precision"]["largest_difference"] == 0
    assert set(metrics["evaluations"][0]["metrics"]) == {"rouge1", "rouge2", "rougeL", "rougeLsum"}
    texts = [json.loads(line)["text"] for line in (trained / "data.jsonl").read_text().splitlines()[:12]]
    together = load(run, "fp32")(texts)
    assert any(answer["summary"] for answer in together)
    assert together == [load(run, "fp32")(text) for text in texts]  # a batch writes as each alone
    merged = str(tmp_path / "merged")
    assert main(["export", run, "--to", "merged", "--output", merged]) == 0
    assert load(merged, "fp32")(texts) == together
    assert (
        main(["score", run, str(trained / "data.jsonl"), "--output", str(tmp_path / "out"), "--format", "jsonl"]) == 0
    )
    for form in ("onnx", "openvino"):
        assert main(["export", run, "--to", form, "--output", str(tmp_path / form)]) == 2
        assert f"--to: {form} given, but a graph cannot compute the answers of task" in capsys.readouterr().err


def test_peft_alone_loads_the_adapter_and_writes_the_same(trained: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSeq2SeqLM

    artifact = read_artifact(trained / "run")
    text = json.loads((trained / "data.jsonl").read_text().splitlines()[0])["text"]
    tokenizer = Tokenizer.from_file(str(artifact.folder / "tokenizer.json"))
    base = AutoModelForSeq2SeqLM.from_pretrained(trained / "model")
    model = PeftModel.from_pretrained(base, artifact.folder / "adapter").eval()
    settings = artifact.task["settings"]["generation"]
    ids = torch.tensor([tokenizer.encode(text).ids])
    for cache in (True, False):  # and with the cache of keys and values as without
        written = model.generate(input_ids=ids, do_sample=False, use_cache=cache, **settings)
        summary = tokenizer.decode(written[0].tolist(), skip_special_tokens=True).strip()
        assert summary == load(trained / "run", "fp32")(text)["summary"]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_writing_is_the_same_each_time(family: str, beams: int, tmp_path: Path) -> None:
    encoder = find_encoder(str(write_model(tmp_path / "model", family)))
    task = AbstractiveSummarization(generation={"num_beams": beams, "max_new_tokens": 6})
    network = new_network(
        encoder, task, AdapterConfig(), precision="fp32", device=torch.device("cpu"), attention="eager"
    ).eval()
    from distilora.data.examples import Example

    rows = task.tokenise(load_tokenizer(encoder), [Example(("the film was",)), Example(("a plot and music",))]).rows
    with torch.inference_mode():
        first, second = network(rows), network(rows)
    assert torch.equal(first, second)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_eight_texts_by_heart(family: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", family)
    config = config_of(
        tmp_path, model, 20, training__epochs=150, training__learning_rate=0.003, adapter__method="full",
        data__train_size=8, training__update_size=8, training__validations=1, data__heldout=0.0, data__test_split="none",
        data__validation_size=4,
    )  # fmt: skip
    with Run(config) as run:
        run.read()
        run.build()
        run.fit()
        written = run.task.decode(run.outputs(run.train_tokens, ""), run.parts.train.items, run.tokenizer)
    right = [answer["summary"] == item.target[0] for answer, item in zip(written, run.parts.train.items, strict=True)]
    assert np.mean(right) >= 0.8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter__method": "head"}, "encoder-decoders are trained in all blocks"),
        ({"adapter__last_blocks": 1}, "encoder-decoders are trained in all blocks"),
    ],
)
def test_what_does_not_suit_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Run(config_of(tmp_path, write_model(tmp_path / "model", "t5"), **changes))


def test_the_default_encoder_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--task", "abstractive_summarization", "--data.path", "x.csv", "--output", str(tmp_path / "run")]
    assert main(["train", *words]) == 2
    assert "encoder.name: task abstractive_summarization needs an encoder-decoder; name one" in capsys.readouterr().err


def test_a_task_and_a_family_must_fit(tmp_path: Path, encoder: Path, reviews: Path) -> None:
    with pytest.raises(ConfigError, match="task abstractive_summarization needs an encoder-decoder"):
        Run(config_of(tmp_path, encoder))
    with pytest.raises(ConfigError, match="task classification needs an encoder alone"):
        Run(tiny_config(tmp_path / "run", reviews, write_model(tmp_path / "model", "bart")))


def test_sentences_stand_on_lines() -> None:
    assert AbstractiveSummarization().as_lines("It was long. But fine! Really") == "It was long.\nBut fine!\nReally"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_from_nothing_learns_to_copy(family: str, tmp_path: Path) -> None:
    """Three words of eight, of documents that it has not seen: attention to the document is learnt, or nothing is."""
    config = config_of(
        tmp_path, write_model(tmp_path / "model", family, 0.05), 4000, training__epochs=12, training__learning_rate=0.003,
        adapter__method="full", training__update_size=32, training__validations=2, data__validation_size=100,
        data__train_size=None,
    )  # fmt: skip
    train(config)
    (split,) = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))["evaluations"][:1]
    assert split["examples"] >= 100
    assert split["metrics"]["rouge2"]["value"] > 0.9
