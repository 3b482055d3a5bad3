"""Fixtures: a tiny random DistilBERT, tiny reviews, and one finished tiny run; everything offline, in a second or two."""

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.tiny import tiny_config, tiny_reviews, write_csv, write_tiny_encoder

if TYPE_CHECKING:
    from support.fresh import Fresh

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test may reach for a network
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # tiny matrices: a second thread only waits, and the same sums come out everywhere


@pytest.fixture(scope="session", autouse=True)
def kept_states(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What outlives runs lies below a folder of this session, and of each test."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILORA_CACHE", str(folder / "session"))
        yield folder


@pytest.fixture(autouse=True)
def own_kept_states(kept_states: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test finds no states that another has kept."""
    monkeypatch.setenv(
        "DISTILORA_CACHE", str(kept_states / hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16])
    )


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny DistilBERT."""
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A csv of 300 tiny reviews."""
    return write_csv(tmp_path_factory.mktemp("reviews") / "reviews.csv", tiny_reviews(300))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, encoder: Path, reviews: Path) -> Path:
    """Folder of a finished tiny run; read it, do not change it (copy it first)."""
    from distilora.runs.run import train

    output = tmp_path_factory.mktemp("runs") / "tiny"
    train(tiny_config(output, reviews, encoder, training__tracker="tensorboard"))
    return output


@pytest.fixture(scope="session")
def metrics(finished: Path) -> dict:
    """metrics.json of the finished run."""
    return json.loads((finished / "metrics.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, encoder: Path, reviews: Path, finished: Path) -> dict[str, Path]:
    """Folder of a finished tiny run of each method; read them, do not change them."""
    from support.fresh import verify_here

    from distilora.export import save as saving
    from distilora.runs.run import train

    folders = {"lora": finished}
    base = tmp_path_factory.mktemp("methods")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "verify", verify_here)  # test_nothing_lost_on_reload has a fresh process for all
        for method, epochs, rate in (("qlora", 4, 0.01), ("full", 5, 0.003), ("head", 6, 0.005)):
            folders[method] = base / method
            changes = {"adapter__method": method, "training__epochs": epochs, "training__learning_rate": rate}
            train(tiny_config(base / method, reviews, encoder, **changes))
    return folders


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory, finished: Path) -> Path:
    """Both graphs of the finished run, in fp32 and int8, in a folder as Transformers.js has them; do not change it."""
    from support.fresh import verify_here

    from distilora.export import export

    folder = tmp_path_factory.mktemp("graphs") / "js"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "verify", verify_here)
        export.export_run(finished, "transformersjs", folder)
    return folder


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Fresh]":
    """Fresh processes, without the seconds."""
    from support.fresh import Fresh

    processes = Fresh(tmp_path_factory.mktemp("fresh"))
    yield processes
    processes.forks.kill()
    processes.forks.wait()


@pytest.fixture
def a_minute() -> Iterator[None]:
    """TimeoutError where the test takes longer than a minute: quadratic steps need hours for 1 MB."""

    def late(*_: object) -> None:
        raise TimeoutError("longer than a minute")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
