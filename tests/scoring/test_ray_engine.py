"""Ray Data puts out the same files as the local engine, also when one of its two workers is killed in the middle."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.descendants import descendants
from support.scored import contents, rejects, run, shards
from support.stopping import temporary
from support.tiny import tiny_reviews, write_csv

from distilora import hardware, progress
from distilora.artifact.format import read_artifact
from distilora.cli import main as cli
from distilora.inference.numerics import resolve
from distilora.scoring import score
from distilora.scoring.job import Scoring
from distilora.scoring.ray_engine import Worker, _say_if_mixed
from distilora.scoring.shards import make_plan
from distilora.tasks.registry import restore

ROWS, SHARD = 9_000, 300


def workers(process: int) -> set[int]:
    return {child for child, line in descendants(process).items() if line.startswith("ray::MapWorker")}


@pytest.mark.slow
def test_a_worker_killed_in_the_middle(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # relative paths mean the same to the workers
    texts = [text for text, _ in tiny_reviews(ROWS, 6)]
    lines = ["{broken\n" if i % 13 == 0 else json.dumps({"text": text}) + "\n" for i, text in enumerate(texts)]
    Path("in").mkdir()
    for i in range(3):
        Path(f"in/{i}.jsonl").write_text("".join(lines[i * 3000 : (i + 1) * 3000]), "utf-8")
    run(finished, "in", "here", shard_rows=SHARD)
    words = [
        "score",
        finished,
        "in",
        "--output",
        "out",
        "--shard-rows",
        SHARD,
        "--device",
        "cpu",
        "--precision",
        "fp32",
    ]
    command = [sys.executable, "-m", "distilora", *map(str, words), "--engine", "ray", "--workers", "2"]

    def done() -> int:
        return len([path for path in Path("out/parts").glob("*.json") if path.name[0] != "."])

    with open("told", "wb") as told:
        child = subprocess.Popen(command, stdout=told, stderr=told)
    begun, seen, killed_at, victim = time.monotonic(), set(), None, 0
    while child.poll() is None and time.monotonic() - begun < 280:
        now = workers(child.pid)
        seen |= now
        if killed_at is None and done() >= 5 and len(now) == 2:
            victim = min(now)
            os.kill(victim, signal.SIGKILL)
            killed_at = done()
        time.sleep(0.1)
    if child.poll() is None:
        child.kill()
    said = Path("told").read_text("utf-8", "replace")
    assert child.returncode == 0, said
    assert killed_at is not None
    assert 5 <= killed_at < ROWS // SHARD - 4  # in the middle
    assert len(seen) >= 3  # another one came for it
    assert "deprecat" not in said.lower()
    actual, expected = contents(Path("out")), contents(Path("here"))
    assert set(actual) == set(expected)
    for name in expected:
        if name != "score.json":
            assert actual[name] == expected[name], name
    states = [json.loads(content["score.json"]) for content in (actual, expected)]
    assert states[0] == states[1]
    assert [row["text"] for row in shards(Path("out"))] == [text for i, text in enumerate(texts) if i % 13]
    assert len(rejects(Path("out"))) == len([i for i in range(ROWS) if i % 13 == 0])
    assert temporary(Path("out")) == []
    # Nothing of the cluster is left, and either engine knows what the other has done.
    assert not [line for line in descendants(os.getpid()).values() if "ray" in line]
    assert run(finished, "in", "out", shard_rows=SHARD, engine="ray")["resumed"] == ROWS


@pytest.mark.slow
def test_an_error_in_a_worker_is_one_line(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.csv").write_text("text,score,predicted_score\nfine,1,2\n")
    words = ["score", str(finished), str(tmp_path / "in.csv"), "--output", str(tmp_path / "out"), "--engine", "ray"]
    assert cli.main([*words, "--workers", "1"]) == 2
    assert "distilora: column 'predicted_score' of the input is an answer's; rename it" in capfd.readouterr().err
    assert cli.main([*words, "--address", "127.0.0.1:1"]) == 2
    assert "--engine: Ray cannot reach or start the cluster at 127.0.0.1:1" in capfd.readouterr().err.splitlines()[-1]


@pytest.fixture
def job(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What a worker is given, in this process: a job in fp32, begun where bf16 is not native."""
    source = write_csv(tmp_path / "in.csv", [(text, "pos") for text, _ in tiny_reviews(60, 3)])
    asked = Scoring(str(finished), str(source), str(tmp_path / "out"), device="cpu")
    artifact = read_artifact(finished)
    monkeypatch.setattr(hardware, "cpu_flags", lambda: [])
    settings = asked.computing(resolve(artifact, asked.backend, asked.precision, asked.device, asked.base))
    plan = make_plan(str(source), restore(artifact.task["name"], artifact.task["settings"]), None, 30)
    model = {name: (artifact.folder / name).read_bytes() for name in ["artifact.json", *artifact.files]}
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda reference: reference))
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    yield {
        "settings": settings,
        "plan": plan.tree(),
        "model": model,
        "threads": threads,
        "folder": str(tmp_path),
        "task_file": None,
    }
    progress.quiet(False)


def test_a_worker_on_another_processor_computes_as_the_job_began(
    job: dict[str, Any], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: ["avx512_bf16", "amx_bf16"])
    done = Worker(job)({"item": [0, 1]})
    assert done == {"shard": [0, 1], "error": ["", ""], "processor": ["avx512_bf16 amx_bf16"] * 2}
    run(finished, tmp_path / "in.csv", tmp_path / "whole", shard_rows=30)
    assert {name: content for name, content in contents(tmp_path / "whole").items() if name.startswith("shard")} == {
        path.name: path.read_bytes() for path in (tmp_path / "out").glob("shard-*")
    }


@pytest.mark.parametrize("copied", [True, False])
def test_a_worker_computes_with_an_exported_graph(
    job: dict[str, Any], graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    """On a cluster the model's files are a copy that is gone once the worker has opened it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    artifact = read_artifact(graphs)
    settings = dataclasses.replace(job["settings"], run=str(graphs), backend="onnx")
    model = {name: (graphs / name).read_bytes() for name in ["artifact.json", *artifact.files]}
    done = Worker({**job, "settings": settings, "model": model if copied else None})({"item": [0, 1]})
    assert done["error"] == ["", ""]
    assert not list((tmp_path / "temporary").iterdir())
    run(graphs, tmp_path / "in.csv", tmp_path / "whole", shard_rows=30)
    assert {name: content for name, content in contents(tmp_path / "whole").items() if name.startswith("shard")} == {
        path.name: path.read_bytes() for path in (tmp_path / "out").glob("shard-*")
    }


def test_a_worker_that_cannot_compute_so_says_it_in_one_line(
    job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fell_back = SimpleNamespace(backend=SimpleNamespace(precision="fp32"))
    with monkeypatch.context() as patch:
        patch.setattr(score, "load", lambda *_, **__: fell_back)
        int8 = {**job, "settings": dataclasses.replace(job["settings"], precision="int8")}
        assert (
            "precision: int8 is not available on this machine, where the model computes in fp32"
            in Worker(int8)({"item": [1]})["error"][0]
        )
    gpu = {**job, "settings": dataclasses.replace(job["settings"], device="cuda")}
    assert Worker(gpu)({"item": [1]})["error"] == ["device: cuda is not available here; choose cpu"]
    assert not (tmp_path / "out").exists()


def test_int8_on_processors_of_two_kinds_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    _say_if_mixed({"avx2"})
    assert capsys.readouterr().err == ""
    _say_if_mixed({"avx512_vnni", "avx2"})
    assert capsys.readouterr().err == "note: int8 on processors of 2 kinds (avx2; avx512_vnni): last digits differ\n"


def test_without_ray_it_says_what_to_install(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "in.csv").write_text("text\nfine\n")
    words = ["score", str(finished), str(tmp_path / "in.csv"), "--output", str(tmp_path / "out"), "--engine", "ray"]
    assert cli.main(words) == 2
    assert "pip install 'distilora[ray]'" in capsys.readouterr().err
    assert cli.main([*words, "--output", "memory://out"]) == 2
    assert "ray cannot share memory://" in capsys.readouterr().err
