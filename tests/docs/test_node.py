"""The transformersjs folder in Node, by @huggingface/transformers, offline: the same probabilities as here."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.tiny import tiny_reviews

from distilora.export.export import export_run
from distilora.inference.predictor import load

TEXTS = [*(text for text, _ in tiny_reviews(6, 2)), "superb film " * 60]


@pytest.mark.slow
def test_transformers_js(finished: Path, tmp_path: Path) -> None:
    assert shutil.which("npm"), "this test needs Node 20 or later with npm"
    export_run(finished, "transformersjs", tmp_path / "js")
    place = shutil.copytree(Path(__file__).parent / "node", tmp_path / "node")
    # its own fetching of other builds than the one for this machine's CPU, which is in the package
    skip = {"npm_config_onnxruntime_node_install": "skip", "npm_config_onnxruntime_node_install_cuda": "skip"}
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund"], cwd=place, env={**os.environ, **skip}, check=True, timeout=300
    )
    for dtype, precision, allowed in (("fp32", "fp32", 1e-5), ("q8", "int8", 1e-3)):
        done = subprocess.run(
            ["node", "check.mjs", str(tmp_path / "js"), dtype, *TEXTS],
            cwd=place, capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        outputs = json.loads(done.stdout.splitlines()[-1])
        for scores, answer in zip(outputs, load(tmp_path / "js", precision)(TEXTS), strict=True):
            assert {row["label"] for row in scores} == {"neg", "pos"}
            for row in scores:
                # Transformers.js cuts the closing token off a longer text, too
                within = 0.01 if answer["truncated"] else allowed
                assert row["score"] == pytest.approx(answer[f"p_{row['label']}"], abs=within)
