"""Abstractive summarisation, on tiny random encoder-decoders: nothing is claimed of what they write but that it is reproduced."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.stopping import write_recipe
from support.tiny import PLAIN, tiny_config, tiny_tokenizer
from tokenizers import Tokenizer

from distilora.artifact.format import read_artifact
from distilora.cli.main import main
from distilora.config.schema import AdapterConfig
from distilora.errors import ConfigError
from distilora.inference.predictor import load
from distilora.model.build import new_network
from distilora.model.encoders.find import find_encoder, load_tokenizer
from distilora.runs.run import Run
from distilora.tasks.abstractive_summarization import AbstractiveSummarization

pytest.importorskip("rouge_score")
FAMILIES = ("t5", "bart")


def write_model(folder: Path, family: str, spread: float | None = None) -> Path:
    """A random model; `spread` is the standard deviation of its matrices, where the usual one leaves low-rank updates blind."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

    sizes: dict[str, Any] = {
        "vocab_size": tiny_tokenizer().get_vocab_size(),
        "d_model": 32,
        "pad_token_id": 0,
        "eos_token_id": 3,
    }
    if family == "t5":
        sizes |= {"d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    else:
        sizes |= {
            "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 80, "bos_token_id": 2,
            "decoder_start_token_id": 3, "forced_eos_token_id": None,
        }  # fmt: skip
    torch.manual_seed(1)
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(family, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            if spread and parameter.dim() == 2:
                parameter.normal_(std=spread)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(), unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
    ).save_pretrained(folder)  # fmt: skip
    return folder


def write_data(path: Path, count: int, seed: int = 0) -> Path:
    """Documents of plain words; the summary is the first three."""
    rng, rows = random.Random(seed), []
    for _ in range(count):
        words = rng.sample(PLAIN, 8)
        rows.append({"text": " ".join(words), "summary": " ".join(words[:3])})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def config_of(base: Path, model: Path, count: int = 60, **changes: Any) -> Any:
    data = write_data(base / "data.jsonl", count)
    changes = {"training__epochs": 2, "generation__longest": 8, "data__validation_size": 10, **changes}
    return dataclasses.replace(tiny_config(base / "run", data, model, **changes), task="abstractive_summarization")


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


def test_a_run_from_training_to_scoring(trained: Path, tmp_path: Path) -> None:
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
    assert main(["export", run, "--to", "onnx", "--output", str(tmp_path / "onnx")]) == 2


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


def test_a_task_and_a_family_must_fit(tmp_path: Path, encoder: Path, reviews: Path) -> None:
    with pytest.raises(ConfigError, match="task abstractive_summarization needs an encoder-decoder"):
        Run(config_of(tmp_path, encoder))
    with pytest.raises(ConfigError, match="task classification needs an encoder alone"):
        Run(tiny_config(tmp_path / "run", reviews, write_model(tmp_path / "model", "bart")))


def test_sentences_stand_on_lines() -> None:
    assert AbstractiveSummarization().as_lines("It was long. But fine! Really") == "It was long.\nBut fine!\nReally"
