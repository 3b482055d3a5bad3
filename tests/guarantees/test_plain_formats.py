"""Plain formats. A PEFT adapter in safetensors, `tokenizer.json`, parquet. `peft` and `transformers` load it without us."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from safetensors.numpy import load_file
from support.cards import snippet
from support.fresh import Fresh
from support.tiny import tiny_reviews
from tokenizers import Tokenizer

import distilora
from distilora.artifact.format import read_artifact
from distilora.model.adapters.methods import METHODS
from distilora.runs.folder import MARK

PLAIN = {".json", ".yaml", ".md", ".html", ".parquet", ".safetensors", ".npy", ".npz"}


@pytest.mark.parametrize("method", METHODS)
def test_every_file_is_in_a_plain_format(method: str, runs: dict[str, Path]) -> None:
    files = [path for path in runs[method].rglob("*") if path.is_file() and path.name != MARK]
    assert {path.suffix for path in files if runs[method] / "events" not in path.parents} == PLAIN  # TensorBoard's own
    for path in files:
        if path.suffix == ".json":
            assert isinstance(json.loads(path.read_text("utf-8")), dict)
        elif path.suffix == ".safetensors":
            assert load_file(path)
        elif path.suffix in (".npy", ".npz"):
            arrays = np.load(path, allow_pickle=False)
            assert all(len(array) for array in (arrays.values() if path.suffix == ".npz" else [arrays]))


def test_tokenizers_and_pyarrow_read_them(finished: Path, metrics: dict) -> None:
    tokenizer = Tokenizer.from_file(str(finished / "model" / "tokenizer.json"))
    assert tokenizer.encode("a superb film").tokens == ["[CLS]", "a", "superb", "film", "[SEP]"]
    answers = parquet.read_table(finished / "predictions.parquet").to_pylist()
    for evaluation in metrics["evaluations"]:
        right = [row["target"] == row["label"] for row in answers if row["split"] == evaluation["split"]]
        assert len(right) == evaluation["examples"]
        assert np.mean(right) == pytest.approx(evaluation["metrics"]["accuracy"]["value"])


def test_peft_puts_the_adapter_on_the_plain_encoder(finished: Path, encoder: Path, fresh: Fresh) -> None:
    """The whole of what another program does, and distilora cannot be imported."""
    texts = [text for text, _ in tiny_reviews(12, 3)]
    done = fresh(encoder, finished / "model", *texts, code=PEFT_ALONE, without=["distilora"])
    assert done.code == 0, done.err
    predictor = distilora.load(finished, precision="fp32", device="cpu")
    logits = np.asarray(json.loads(done.out)) / read_artifact(finished).temperature
    expected = [answer["p_pos"] for answer in predictor(texts)]
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(1 / (1 + np.exp(logits[:, 0] - logits[:, 1])), expected, rtol=0, atol=1e-5)


PEFT_ALONE = """
import json, torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

_, encoder, folder, *texts = sys.argv
model = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(encoder), folder + "/adapter").eval()
tokenizer = PreTrainedTokenizerFast(tokenizer_file=folder + "/tokenizer.json", pad_token="[PAD]")
batch = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
with torch.no_grad():
    print(json.dumps(model(**batch).logits.tolist()))
"""


def test_the_snippets_agree_without_distilora(runs: dict[str, Path], fresh: Fresh) -> None:
    texts = [
        *(text for text, _ in tiny_reviews(12, 3)),
        "superb film " * 100,
        "film",
    ]  # one is longer than what is read
    code = "import json, sys\n"
    for folder in runs.values():
        code += snippet(folder, texts) + "\nprint(json.dumps(probabilities.tolist()))\n"
    code += "assert not any(name.startswith('distilora') for name in sys.modules)\n"
    done = fresh(code=code)
    assert done.code == 0, done.err
    for (method, folder), line in zip(runs.items(), done.out.splitlines(), strict=True):
        base = "full" if method == "qlora" else "auto"
        answers = distilora.load(folder, precision="fp32", base=base)(texts)
        expected = np.asarray([[answer["p_neg"], answer["p_pos"]] for answer in answers])
        assert answers[-2]["truncated"]
        assert expected.std() > 0.1
        np.testing.assert_allclose(np.asarray(json.loads(line)), expected, rtol=0, atol=1e-5)
