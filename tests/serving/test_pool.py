"""Models by name: each answers for itself, in whatever company, and comes and goes without a request being lost."""

import gc
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from support.tiny import tiny_config, tiny_reviews, write_csv

from distilora.artifact.format import read_artifact, sealed
from distilora.errors import ArtifactError, ConfigError
from distilora.files.atomic import sha256
from distilora.inference.predictor import load
from distilora.runs.run import train
from distilora.serving.batcher import Batcher
from distilora.serving.engines import Alone, Shared
from distilora.serving.limits import Limits
from distilora.serving.pool import Model, Pool
from distilora.serving.refusals import Invalid, UnknownModel

TEXTS = ["the film was superb", "a dull plot", "the music was warm but the ending was tedious and long", "actor"]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> dict[str, Path]:
    """Runs on the same encoder: the labels turned round, and three of them."""
    base = tmp_path_factory.mktemp("others")
    rows = tiny_reviews(200, 3)
    turned = [(text, "pos" if label == "neg" else "neg") for text, label in rows]
    three = [(text, label if i % 3 else "mixed") for i, (text, label) in enumerate(rows)]
    for name, data, rank in (("turned", turned, 4), ("three", three, 2)):
        table = write_csv(base / f"{name}.csv", data)
        train(tiny_config(base / name, table, encoder, adapter__r=rank, training__epochs=4))
    return {name: base / name for name in ("turned", "three")}


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    made = Batcher(Limits(lanes=1))
    yield made
    made.close()


def asked(model: Model, batcher: Batcher, texts: list[Any] = TEXTS) -> list[dict[str, Any]]:
    prepared = model.prepare(texts)
    outputs = batcher.submit(model.works(prepared), "client").done.result(30)
    return model.answers(outputs, prepared)


def alike(answers: list[dict[str, Any]], expected: list[dict[str, Any]], tolerance: float = 1e-4) -> None:
    for answer, own in zip(answers, expected, strict=True):
        assert answer.keys() == own.keys()
        for key, value in own.items():
            assert answer[key] == (pytest.approx(value, abs=tolerance) if isinstance(value, float) else value), key


def test_a_model_alone_answers_as_its_predictor(finished: Path, batcher: Batcher) -> None:
    pool = Pool("fp32")
    model = pool.add("imdb", str(finished))
    assert isinstance(model.engine, Alone)
    assert pool.get() is pool.get("imdb") is model
    alike(asked(model, batcher), load(finished, "fp32")(TEXTS))


def test_models_on_one_encoder_share_it_and_answer_for_themselves(
    finished: Path, others: dict[str, Path], batcher: Batcher
) -> None:
    pool = Pool("fp32")
    folders = {"imdb": finished, **others}
    for name, folder in folders.items():
        pool.add(name, str(folder))
    engines = {id(model.engine) for model in pool.models}
    assert len(engines) == 1
    assert isinstance(pool.models[0].engine, Shared)
    assert [model.name for model in pool.models] == list(folders)
    tickets = []
    for _ in range(3):  # all at once, so that batches are mixed
        for name in folders:
            model = pool.get(name)
            prepared = model.prepare(TEXTS)
            tickets.append((model, prepared, batcher.submit(model.works(prepared), name)))
    for model, prepared, ticket in tickets:
        alike(model.answers(ticket.done.result(30), prepared), load(folders[model.name], "fp32")(TEXTS))
    labels = [asked(pool.get(name), batcher, ["superb brilliant warm"])[0]["label"] for name in ("imdb", "turned")]
    assert labels == ["pos", "neg"]


def test_an_unknown_model_is_not_answered_by_another(finished: Path) -> None:
    pool = Pool("fp32")
    with pytest.raises(UnknownModel, match="none is served"):
        pool.get()
    pool.add("imdb", str(finished))
    with pytest.raises(UnknownModel, match=r"^model: 'imdv' given, there is imdb; name one of them$"):
        pool.get("imdv")


def test_an_input_that_cannot_be_read_is_named(finished: Path) -> None:
    model = Pool("fp32").add("imdb", str(finished))
    for value, problem in (("", "blank"), ("\ud800", "not UTF-8"), (7, "int given")):
        with pytest.raises(Invalid, match=rf"^input\[1\]: .*{problem}") as refusal:
            model.prepare(["fine", value])
        assert refusal.value.field == "input[1]"


def test_models_come_and_go_while_others_answer(finished: Path, others: dict[str, Path], batcher: Batcher) -> None:
    pool = Pool("fp32")
    pool.add("imdb", str(finished))
    pool.add("other", str(others["turned"]))
    expected = {str(folder): load(folder, "fp32")(TEXTS) for folder in (finished, *others.values())}
    stop, wrong, answered = threading.Event(), [], [0]

    def ask() -> None:
        while not stop.is_set():
            model = pool.get("other")
            answers = asked(model, batcher)
            own = expected[str(model.predictor.artifact.folder.parent)]
            answered[0] += 1
            if [a["label"] for a in answers] != [a["label"] for a in own]:
                wrong.append(answers)

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(3):
        for folder in (*others.values(), finished):
            pool.add("other", str(folder))
    stop.set()
    asking.join(30)
    assert answered[0] > 3
    assert wrong == []
    held = pool.get("other")
    pool.remove("other")
    with pytest.raises(UnknownModel):
        pool.get("other")
    alike(asked(held, batcher), expected[str(finished)])  # who holds it can finish
    with pytest.raises(ConfigError, match="is the last one"):
        pool.remove("imdb")


def test_what_a_removed_model_held_is_freed(finished: Path, others: dict[str, Path]) -> None:
    pool = Pool("fp32")
    pool.add("imdb", str(finished))
    for _ in range(5):
        pool.add("other", str(others["turned"]))
    gc.collect()
    shared = pool.get("imdb").engine
    assert isinstance(shared, Shared)
    assert len(shared) == 2
    pool.remove("other")
    gc.collect()
    assert len(shared) == 1


def damaged(run: Path, folder: Path) -> Path:
    """A copy of a run whose head was changed, its checksums set right: nothing but its answers can tell."""
    shutil.copytree(run, folder)
    model = folder / "model"
    weights = load_file(model / "adapter/adapter_model.safetensors")
    changed = {name: -tensor if name.endswith(".classifier.weight") else tensor for name, tensor in weights.items()}
    save_file(changed, model / "adapter/adapter_model.safetensors")
    fields = json.loads((model / "artifact.json").read_text("utf-8"))
    fields["files"]["adapter/adapter_model.safetensors"] = sha256(model / "adapter/adapter_model.safetensors")
    (model / "artifact.json").write_text(json.dumps(sealed(fields)), "utf-8")
    read_artifact(folder)
    return folder


def test_a_model_that_does_not_answer_as_it_was_saved_is_not_served(
    finished: Path, others: dict[str, Path], tmp_path: Path
) -> None:
    bad = damaged(finished, tmp_path / "bad")
    pool = Pool("fp32")
    with pytest.raises(ArtifactError, match="not served, since it does not answer as it was saved"):
        pool.add("imdb", str(bad))
    assert pool.models == []
    pool.add("imdb", str(finished))
    before = pool.get("imdb")
    for name in ("imdb", "other"):  # alone, and beside an adapter
        with pytest.raises(ArtifactError, match=r"not served|outputs differ from check\.npz"):
            pool.add(name, str(bad))
    assert pool.models == [before]


def asked_anew(pool: Pool) -> bool:
    pool._alive_at -= 10
    return pool.alive()


@pytest.mark.parametrize("wrong", [lambda outputs: outputs * np.nan, lambda outputs: -outputs], ids=["nan", "negated"])
def test_signs_of_life_are_real_and_kept_for_a_while(
    finished: Path, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Any], Any]
) -> None:
    pool = Pool("fp32")
    assert not pool.alive()
    backend = pool.add("imdb", str(finished)).predictor.backend
    assert pool.alive()
    run = backend.run
    with monkeypatch.context() as patch:
        patch.setattr(backend, "run", lambda rows: wrong(run(rows)))
        assert pool.alive()  # for five seconds
        assert not asked_anew(pool)
    assert asked_anew(pool)


def test_a_sign_of_life_of_an_adapter_is_compared_with_its_stored_outputs(
    finished: Path, others: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is mistaken for its neighbour gives finite outputs."""
    pool = Pool("fp32")
    first, second = pool.add("imdb", str(finished)), pool.add("turned", str(others["turned"]))
    assert isinstance(second.engine, Shared)
    first = pool.get("imdb")
    assert [asked_anew(pool) for _ in range(2)] == [True, True]
    lane = second.engine.lane

    def mistaken() -> Any:
        compute = lane()
        return lambda rows, adapters: compute(rows, [first.adapter for _ in adapters])

    with monkeypatch.context() as patch:
        patch.setattr(second.engine, "lane", mistaken)
        told = [asked_anew(pool) for _ in range(4)]
    assert told[-2:] == [False, False]  # the one that failed is asked until it passes, and no other's turn hides it
    assert asked_anew(pool)


def test_a_sign_of_life_of_an_export(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool("fp32")
    model = pool.add("graph", str(graphs))
    assert asked_anew(pool)
    assert isinstance(model.engine, Alone)
    lane = model.engine.lane

    def negated() -> Any:
        compute = lane()
        return lambda rows, adapters: [-outputs for outputs in compute(rows, adapters)]

    monkeypatch.setattr(model.engine, "lane", negated)
    assert not asked_anew(pool)
