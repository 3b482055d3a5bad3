"""The torch backend runs a model on the encoder it was trained on, wherever that lies, and on no other."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.tiny import write_tiny_encoder

from distilora.artifact.check import read_check
from distilora.artifact.format import read_artifact
from distilora.batching.tokens import read_tokenizer, tokenise
from distilora.errors import ArtifactError, EncoderError
from distilora.inference.backends import open_backend
from distilora.inference.lanes import run_rows


def test_it_gives_the_check_s_outputs(finished: Path, encoder: Path, tmp_path: Path) -> None:
    artifact = read_artifact(finished)
    check = read_check(artifact.folder)
    rows = tokenise(read_tokenizer(artifact.folder / "tokenizer.json"), check.examples).rows
    backend = open_backend(artifact, "fp32", "cpu")
    assert backend.precision == "fp32"
    assert np.array_equal(run_rows(rows, backend, artifact.token_budget), check.outputs)
    np.testing.assert_allclose(run_rows(rows, backend), check.outputs, rtol=0, atol=1e-5)
    bf16 = run_rows(rows, open_backend(artifact, "bf16", "cpu"))
    np.testing.assert_allclose(bf16, check.outputs, rtol=0, atol=0.4)
    assert not np.array_equal(bf16, check.outputs)

    moved = shutil.copytree(encoder, tmp_path / "moved")
    elsewhere = dataclasses.replace(artifact, encoder={**artifact.encoder, "name": str(tmp_path / "gone")})
    with pytest.raises(EncoderError, match="no such folder"):
        open_backend(elsewhere, "fp32", "cpu")
    there = open_backend(elsewhere, "fp32", "cpu", str(moved))
    assert np.array_equal(run_rows(rows, there, artifact.token_budget), check.outputs)


def test_another_encoder_is_refused(finished: Path, tmp_path: Path) -> None:
    other = write_tiny_encoder(tmp_path / "other", hidden_dim=48)
    with pytest.raises(ArtifactError, match=r"the model was trained on .*; bring that encoder back"):
        open_backend(read_artifact(finished), "fp32", "cpu", str(other))
