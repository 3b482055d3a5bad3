"""The machine: how many threads a process computes on, and for how long."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from distilora import hardware
from distilora.errors import ConfigError
from distilora.inference.backends.onnx_backend import OnnxBackend
from distilora.ray_cluster import cluster_threads, local_threads
from distilora.runs import environment

NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def variables() -> list[str | None]:
    return [os.environ.get(name) for name in NAMES]


def test_threads_for_as_long_as_asked() -> None:
    before = variables(), torch.get_num_threads(), hardware.threads()
    with hardware.threads_for(3):
        assert (variables(), torch.get_num_threads(), hardware.threads()) == (["3"] * 4, 3, 3)
        with hardware.threads_for(2):
            assert (variables(), torch.get_num_threads(), hardware.threads()) == (["2"] * 4, 2, 2)
        with hardware.threads_for(None):
            assert torch.get_num_threads() == 3
        assert (variables(), torch.get_num_threads(), hardware.threads(otherwise=7)) == (["3"] * 4, 3, 3)
    assert (variables(), torch.get_num_threads(), hardware.threads()) == before


def test_threads_are_given_back_after_a_failure() -> None:
    before = variables(), torch.get_num_threads()
    with pytest.raises(KeyError), hardware.threads_for(3):
        raise KeyError
    assert (variables(), torch.get_num_threads()) == before


@pytest.fixture(autouse=True)
def nobody_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    """No number of threads is left over from a command that another test ran in this process."""
    monkeypatch.setattr(hardware, "_threads", None)


def test_without_a_number_one_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cores", lambda: 5)
    assert hardware.threads() == 5
    assert hardware.threads(otherwise=4) == 4


@pytest.mark.parametrize("affinity", [True, False])
def test_cores(affinity: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if affinity:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
        assert hardware.cores() == 3
    else:  # macOS, Windows
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: 6)
        assert hardware.cores() == 6


def test_no_thread_is_too_few() -> None:
    with pytest.raises(ConfigError, match=r"^threads: 0 given, at least 1 wanted$"):
        hardware.use_threads(0)


def test_onnx_runtime_has_as_many() -> None:
    task = {"name": "classification", "settings": {"labels": ["a", "b"], "text_column": "text", "label_column": None}}
    artifact = SimpleNamespace(folder=Path("x"), files={"model.onnx": ""}, precision="fp32", task=task, backend="onnx")
    for count in (1, 3):
        with hardware.threads_for(count):
            backend = OnnxBackend(artifact)
        assert (backend.threads, backend.lanes) == (count, count)


@pytest.mark.parametrize(
    ("address", "asked", "threads"),
    [(None, None, 3), (None, 5, 5), ("HOST:1", None, 4), ("HOST:1", 2, 2), ("HOST:1", 9, 4)],
)
def test_threads_of_a_worker(
    address: str | None, asked: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cores", lambda: 6)
    nodes = [{"Alive": True, "Resources": {"CPU": count}} for count in (8, 4)]  # a worker must fit on the smaller
    ray = SimpleNamespace(nodes=lambda: nodes)
    with hardware.threads_for(asked):
        assert (cluster_threads(ray, 2) if address else local_threads(2)) == threads


@pytest.mark.parametrize(
    ("most", "expected"), [(1 << 40, 1 << 30), (1 << 25, 1 << 25), (0, None)], ids=["new", "old", "none"]
)
def test_freed_memory_is_kept_by_an_older_glibc_too(
    most: int, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {}

    def mallopt(parameter: int, value: int) -> int:
        if parameter == -3 and value > most:  # M_MMAP_THRESHOLD
            return 0
        options[parameter] = value
        return 1

    monkeypatch.setattr(hardware, "_allocator", None)
    monkeypatch.setattr(hardware.sys, "platform", "linux")
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert hardware.keep_freed_memory() == ("glibc, keeps freed memory" if expected else None)
    assert options.get(-3) == expected
    assert (-1 in options) == bool(expected)  # M_TRIM_THRESHOLD


def test_a_system_without_affinity_tells_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert hardware.cores() == 6


def test_the_commit_is_that_of_the_code_and_not_of_whose_folder_it_lies_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        settings = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *settings, *words], cwd=tmp_path, check=True, capture_output=True)

    file = tmp_path / "hardware.py"
    file.write_text("")
    monkeypatch.setattr(environment, "__file__", str(file))
    assert environment.commit() is None
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "somebody else's")
    assert environment.commit() is None
    git("add", "hardware.py")
    git("commit", "-q", "-m", "ours")
    commit = environment.commit()
    assert commit is not None
    assert len(commit) == 40
    file.write_text("changed")
    assert environment.commit() == commit + "+"
