"""Merging: one plain Transformers model that answers as the run does, without encoder and PEFT, or nothing at all."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.families import FAMILIES, SETTINGS, TASK, build, random_rows
from support.fresh import COMPARE, Fresh, verify_here
from support.tiny import tiny_reviews, write_tiny_encoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from distilora.artifact.check import read_check
from distilora.artifact.format import read_artifact, sealed
from distilora.batching.rows import rows_of
from distilora.cli.main import main
from distilora.errors import ArtifactError, EncoderError, RoundTripError
from distilora.export import export
from distilora.export import merge as merging
from distilora.export.export import export_run
from distilora.files.atomic import sha256
from distilora.inference.backends.torch_backend import open_network
from distilora.inference.predictor import load
from distilora.model import build as network
from distilora.model import weights
from distilora.model.adapters.methods import METHODS
from distilora.model.adapters.quantisation import widened
from distilora.model.encoders.find import find_encoder, special_tokens

Captured = pytest.CaptureFixture[str]
TEXTS = [*(text for text, _ in tiny_reviews(12, 7)), "superb film " * 60, "film"]  # one longer than the model reads
ADAPTER = "adapter/adapter_model.safetensors"
DELTA = "delta/delta.safetensors"


def sums(folder: Path) -> dict[str, str]:
    return {str(file): sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Verifies in this process; one test has a fresh one for all, and test_quantisation exports by the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "verify", verify_here)
        yield


@pytest.fixture(scope="module")
def merged(quick: None, runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """A merged model of each method's run, and what the parity gate said; the runs stay as they are."""
    base = tmp_path_factory.mktemp("exported") / "below"
    before = {method: sums(folder) for method, folder in runs.items()}
    predictors = {
        method: (base / method, export_run(folder, "merged", base / method).parity) for method, folder in runs.items()
    }
    assert {method: sums(folder) for method, folder in runs.items()} == before
    assert sorted(path.name for path in base.iterdir()) == sorted(METHODS)  # nothing temporary
    return predictors


@pytest.mark.parametrize("method", METHODS)
def test_it_answers_as_the_run_does(
    method: str, runs: dict[str, Path], merged: dict[str, tuple[Path, Any]], encoder: Path
) -> None:
    folder, parity = merged[method]
    assert set(parity["candidates"]) >= {"torch fp32"}
    exact = parity["candidates"]["torch fp32"]
    assert (parity["texts"], exact["agreement"], exact["lost_points"], exact["passed"]) == (40, 1.0, 0.0, True)
    assert parity["held_out"].startswith("validation texts of ")
    ours, theirs = read_artifact(folder), read_artifact(runs[method])
    assert ours.temperature == 1.0 != theirs.temperature  # the last layer has taken it in
    assert exact["largest_difference"] <= 1e-5 / theirs.temperature

    assert (ours.weights, ours.quantisation, ours.agreement, ours.parity) == ("merged", None, {}, parity)
    assert f"torch {ours.precision}" == parity["default"]
    assert load(folder, device="cpu").backend.precision == ours.precision
    for name in ("task", "cleaning", "max_length", "encoder", "method"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert read_check(ours.folder).examples == read_check(theirs.folder).examples
    calibrated = read_check(theirs.folder).outputs_fp32 / theirs.temperature
    np.testing.assert_allclose(read_check(ours.folder).outputs_fp32, calibrated, rtol=0, atol=1e-5 / theirs.temperature)

    answers, expected = load(folder, "fp32", "cpu")(TEXTS), load(runs[method], "fp32", "cpu")(TEXTS)
    assert [answer["truncated"] for answer in answers] == [False] * 12 + [True, False]
    for answer, one in zip(answers, expected, strict=True):
        assert (answer["label"], answer["truncated"]) == (one["label"], one["truncated"])
        assert answer["p_pos"] == pytest.approx(one["p_pos"], abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_transformers_pipeline(method: str, merged: dict[str, tuple[Path, Any]]) -> None:
    folder, _ = merged[method]
    answers = load(folder, "fp32", "cpu")(TEXTS)
    classify = pipeline("text-classification", model=str(folder), device="cpu")
    for scores, answer in zip(classify(TEXTS, truncation=True, top_k=None), answers, strict=True):
        assert [row["label"] for row in scores] == [answer["label"], {"neg": "pos", "pos": "neg"}[answer["label"]]]
        for row in scores:
            assert row["score"] == pytest.approx(answer[f"p_{row['label']}"], abs=1e-4)


def test_a_merged_model_is_evaluated_beside_its_folder(
    merged: dict[str, tuple[Path, Any]], reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [shutil.copytree(merged[method][0], tmp_path / method) for method in ("lora", "head")]
    for folder in folders:
        before = sums(folder)
        assert main(["evaluate", str(folder), "--data.path", str(reviews), "--evaluation.bootstrap", "100"]) == 0
        assert "of these 300 texts were trained or chosen on" in capsys.readouterr().err
        assert sums(folder) == before
        (measured,) = (tmp_path / f"{folder.name}-evaluations").iterdir()
        summary = json.loads((measured / "metrics.json").read_text())
        assert measured.name == f"reviews-{summary['precision']}"
        assert summary["evaluation"]["baseline"]["of"] == "these examples"  # an export does not know the run's counts


@pytest.mark.parametrize("output", ["file/merged", "dangling", "/proc/none/merged"])
def test_a_place_that_cannot_be_written_is_refused(
    output: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert main(["export", str(runs["head"]), "--to", "merged", "--output", str(tmp_path / output)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("distilora: --output: ")
    assert line.endswith("; give another folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


def test_a_fresh_process_needs_neither_peft_nor_bitsandbytes(merged: dict[str, tuple[Path, Any]], fresh: Fresh) -> None:
    done = fresh(*(folder for folder, _ in merged.values()), code=COMPARE, without=["peft", "bitsandbytes"])
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [row["run_precision"]["largest_difference"] for row in lines] == [0.0] * 4
    assert [row["fp32"]["largest_difference"] for row in lines] == [0.0] * 4


def test_the_encoder_may_be_gone(runs: dict[str, Path], merged: dict[str, tuple[Path, Any]], encoder: Path) -> None:
    away = encoder.rename(encoder.with_name("away"))
    try:
        with pytest.raises(EncoderError, match="no such folder"):
            load(runs["head"])
        for folder, _ in merged.values():
            assert load(folder)("superb")["label"] in ("neg", "pos")
    finally:
        away.rename(encoder)


def test_what_the_weights_are(runs: dict[str, Path], merged: dict[str, tuple[Path, Any]], encoder: Path) -> None:
    pretrained = {f"distilbert.{name}": weight for name, weight in load_file(encoder / "model.safetensors").items()}
    weights = {method: load_file(folder / "model.safetensors") for method, (folder, _) in merged.items()}
    for method, tensors in weights.items():
        assert set(tensors) - set(pretrained) == {
            f"{layer}.{part}" for layer in ("pre_classifier", "classifier") for part in ("weight", "bias")
        }
        assert {weight.dtype for weight in tensors.values()} == {torch.float32}, method
    delta = load_file(runs["full"] / "model" / DELTA)
    temperature = read_artifact(runs["full"]).temperature
    for name, weight in delta.items():
        assert torch.equal(weights["full"][name], weight / temperature if name.startswith("classifier.") else weight)
    assert all(torch.equal(weights["head"][name], weight) for name, weight in pretrained.items())

    four = open_network(read_artifact(runs["qlora"]), "fp32", torch.device("cpu")).model
    for method in ("lora", "qlora"):
        adapter = load_file(runs[method] / "model" / ADAPTER)
        adapted = {name.split(".lora_")[0].split("base_model.model.")[1] for name in adapter if ".lora_" in name}
        assert len(adapted) == 12
        for name, weight in pretrained.items():
            layer = name.removesuffix(".weight")
            if layer not in adapted:
                assert torch.equal(weights[method][name], weight), name
                continue
            base = weight if method == "lora" else widened(four.get_submodule(layer).base_layer.weight)
            a, b = (adapter[f"base_model.model.{layer}.lora_{part}.weight"] for part in "AB")
            update = b @ a  # alpha / r is 1
            assert update.abs().max() > 1e-3
            torch.testing.assert_close(weights[method][name], base + update, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_every_family_is_plain_transformers_in_the_end(name: str, tmp_path: Path) -> None:
    tiny_encoder = find_encoder(str(write_tiny_encoder(tmp_path / "encoder", name, **SETTINGS.get(name, {}))))
    unmerged, rows = build(tiny_encoder), random_rows(tiny_encoder.max_length)
    expected = unmerged(rows)
    model = weights.merge(unmerged)
    model.save_pretrained(tmp_path / "merged")
    merging._write_tokenizer(
        tiny_encoder.folder / "tokenizer.json", tmp_path / "merged", 16, special_tokens(tiny_encoder)
    )
    loaded = network.load_merged(tmp_path / "merged", TASK, precision="fp32", device=torch.device("cpu"))
    torch.testing.assert_close(loaded(rows), expected, rtol=0, atol=1e-5)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    batch = tokenizer(["A superb film 12", "film " * 60], truncation=True, padding=True, return_tensors="pt")
    assert batch["input_ids"].shape == (2, 16)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    assert plain.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    ids = [batch["input_ids"][0][:7].tolist(), batch["input_ids"][1].tolist()]
    torch.testing.assert_close(plain(**batch).logits, loaded(rows_of([[row] for row in ids])), rtol=0, atol=1e-5)


def test_a_4_bit_base_is_not_rounded_into(runs: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="widened"):
        weights.merge(open_network(read_artifact(runs["qlora"]), "fp32", torch.device("cpu")))


@pytest.mark.parametrize(
    ("method", "part", "value"),
    [
        ("lora", "lora_B", float("nan")),
        ("lora", "lora_A", float("inf")),
        ("qlora", "lora_B", float("-inf")),
        ("lora", "classifier.bias", float("nan")),
        ("head", "classifier.weight", float("inf")),
        ("full", "sa_layer_norm.bias", float("nan")),
    ],
)
def test_weights_that_are_no_numbers(
    method: str, part: str, value: float, runs: dict[str, Path], tmp_path: Path, capsys: Captured
) -> None:
    model = shutil.copytree(runs[method] / "model", tmp_path / "model")
    file = ADAPTER if METHODS[method].saved == "peft" else DELTA
    weights = load_file(model / file)
    next(weight for name, weight in weights.items() if part in name).view(-1)[0] = value
    save_file(weights, model / file, {"format": "pt"})
    fields = json.loads((model / "artifact.json").read_text())
    fields["files"][file] = sha256(model / file)
    (model / "artifact.json").write_text(json.dumps(sealed(fields)))
    with pytest.raises(ArtifactError) as error:
        export_run(model, "merged", tmp_path / "out")
    assert str(error.value).startswith("merging: ")
    assert "not usable, train" in str(error.value)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    capsys.readouterr()
    assert main(["export", str(model), "--to", "merged", "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"distilora: {error.value}"


@pytest.mark.parametrize("place", ["load_merged", "write_transformers", "gate", "write_artifact", "verify"])
def test_what_fails_leaves_nothing(
    place: str, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **settings: object) -> None:
        raise RoundTripError("no")

    monkeypatch.setattr(export, place, fails)
    with pytest.raises(RoundTripError, match="no"):
        export_run(runs["head"], "merged", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["a folder", "a file"])
def test_what_is_there_stays(there: str, runs: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "out"
    if there == "a folder":
        output.mkdir()
        (output / "thesis.txt").write_text("years of work")
    else:
        output.write_text("years of work")
    before = sums(tmp_path)
    with pytest.raises(ArtifactError, match=rf"^--output: {output} exists already; give another folder$"):
        export_run(runs["head"], "merged", output)
    assert sums(tmp_path) == before


def test_a_merged_model_is_whole(
    merged: dict[str, tuple[Path, Any]], tmp_path: Path, encoder: Path, capsys: Captured
) -> None:
    folder, _ = merged["lora"]
    with pytest.raises(ArtifactError, match="is exported already; copy it"):
        export_run(folder, "merged", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for settings, flags in (
        ({"encoder": str(encoder)}, ["--encoder", str(encoder)]),
        ({"base": "full"}, ["--base", "full"]),
        ({"base": "4bit"}, ["--base", "4bit"]),
    ):
        said = f"{next(iter(settings))}: given, but a merged model has its own; drop it"
        with pytest.raises(ArtifactError) as error:
            load(folder, **settings)
        assert str(error.value) == said
        capsys.readouterr()
        assert main(["predict", str(folder), "superb", *flags]) == 2
        assert capsys.readouterr().err == f"distilora: --{said}\n"


def test_a_damaged_merged_model(merged: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    folder = shutil.copytree(merged["head"][0], tmp_path / "copy")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        load(folder)


def test_export(runs: dict[str, Path], tmp_path: Path, capsys: Captured) -> None:
    output = tmp_path / "not" / "yet" / "there"
    assert main(["export", str(runs["lora"]), "--to", "merged", "--output", str(output)]) == 0
    out = capsys.readouterr().out.splitlines()
    parity = read_artifact(output).parity
    assert out[0] == f"{output}: {parity['held_out']}, 40 texts"
    assert out[1].split()[:2] == ["torch", "fp32"]
    assert "100.00% of the answers as in fp32" in out[1]
    assert sum("(default)" in line for line in out) == 1
    assert out[-1].startswith(f"{output}: loads with distilora, and with Transformers")
    assert main(["predict", str(output), "superb"]) == 0


def test_export_with_an_encoder_that_moved(
    runs: dict[str, Path], tmp_path: Path, encoder: Path, capsys: Captured
) -> None:
    moved = shutil.copytree(encoder, tmp_path / "moved")
    words = ["export", str(runs["qlora"]), "--to", "merged", "--output", str(tmp_path / "out")]
    assert main([*words, "--encoder", str(moved)]) == 0
    assert load(tmp_path / "out")("superb")["label"] in ("neg", "pos")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (
            ["RUN", "--to", "tflite", "--output", "OUT"],
            "--to: 'tflite' given, merged, onnx, onnx-int8, openvino, transformersjs wanted",
        ),
        (["RUN", "--output", "OUT"], "the following arguments are required: --to"),
        (["RUN", "--to", "merged"], "the following arguments are required: --output"),
        (["nowhere", "--to", "merged", "--output", "OUT"], "nowhere: no such run"),
        (["RUN", "--to", "merged", "--output", "OUT", "--encoder", "nowhere"], "encoder.name: no such folder: nowhere"),
    ],
)
def test_export_refuses(words: list[str], named: str, runs: dict[str, Path], tmp_path: Path, capsys: Captured) -> None:
    places = {"RUN": str(runs["lora"]), "OUT": str(tmp_path / "out")}
    capsys.readouterr()
    assert main(["export", *(places.get(word, word) for word in words)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"distilora: {named}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_merged_it_keeps_its_special_tokens_and_dropout(merged: dict[str, tuple[Path, Any]]) -> None:
    for folder, _ in merged.values():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert (tokenizer.cls_token, tokenizer.sep_token, tokenizer.unk_token) == ("[CLS]", "[SEP]", "[UNK]")
        assert json.loads((folder / "config.json").read_text("utf-8"))["dropout"] == 0.1


def test_a_merge_that_gives_other_outputs_is_refused(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def onto_another_base(artifact, precision, device, encoder=None, base="auto"):
        return open_network(artifact, precision, device, encoder, "full" if base == "widened" else base)

    monkeypatch.setattr(merging, "open_network", onto_another_base)
    with pytest.raises(RoundTripError, match=r"^merging: fp32 outputs differ by "):
        export_run(runs["qlora"], "merged", tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []
