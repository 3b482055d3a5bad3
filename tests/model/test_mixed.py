"""Many adapters over one encoder in one batch answer as each does alone, in its own network."""

import itertools
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny import write_tiny_encoder

from distilora.batching.outputs import NOTHING
from distilora.batching.rows import Rows, joined, rows_of
from distilora.config.schema import AdapterConfig
from distilora.errors import ArtifactError
from distilora.model import mixed as arithmetic
from distilora.model.adapters.methods import METHODS
from distilora.model.build import load_network, new_network
from distilora.model.encoders.find import Encoder, find_encoder
from distilora.model.mixed import MixedEncoder, open_mixed
from distilora.model.network import Network, run_network
from distilora.model.weights import save_weights
from distilora.tasks.base import States, Task
from distilora.tasks.classification import Classification
from distilora.tasks.multilabel import MultiLabel
from distilora.tasks.ordinal import Ordinal
from distilora.tasks.question_answering import QuestionAnswering
from distilora.tasks.regression import Regression
from distilora.tasks.summarization import Summarization

CPU = torch.device("cpu")
SETTINGS: dict[str, dict[str, object]] = {
    "distilbert": {"n_layers": 3},
    "roberta": {"pad_token_id": 1, "layer_norm_eps": 1e-5},
    "electra": {"embedding_size": 16},
}
FAMILIES = ("distilbert", "bert", "roberta", "electra")
THREE = Classification(("bad", "fair", "good"), "text", "label")


class Mean(Classification):
    """A task of its own that reads the mean of all tokens, which nothing tells before its head is called."""

    output_kind = "other"

    def head(self, states: States, rows: Rows) -> torch.Tensor:
        return states.head(states.mean())


class Kind(NamedTuple):
    task: Task
    settings: dict[str, object]


KINDS = {
    "three": Kind(THREE, {"r": 4, "alpha": 6.0}),
    "two": Kind(Classification(("no", "yes"), "text", "label"), {"r": 2, "targets": "query_value", "last_blocks": 1}),
    "tags": Kind(MultiLabel(("a", "b", "c", "d", "e"), "text", "tags"), {"r": 8, "targets": "attention"}),
    "stars": Kind(Ordinal(("1", "2", "3"), "text", "stars"), {"r": 3, "last_blocks": 2}),
    "number": Kind(Regression("text", "value", 5.0, 2.0), {"r": 1, "alpha": 3.0}),
    "question": Kind(QuestionAnswering(), {"r": 4, "last_blocks": 1}),
    "summary": Kind(Summarization(sentences=1), {"r": 2}),
    "mean": Kind(Mean(("x", "y"), "text", "label"), {"r": 5}),
}
MIXTURES = (
    ("three",), ("question",), ("two", "three"), ("stars", "summary"), ("three", "mean"),
    ("number", "three", "two", "tags", "stars"), ("tags", "question", "summary", "two", "number"),
)  # fmt: skip


class Bench(NamedTuple):
    """An encoder, saved adapters of every kind on it, and the networks that answer alone."""

    encoder: Encoder
    folders: dict[str, Path]
    alone: Callable[[str, str], Network]


def save(encoder: Encoder, folder: Path, task: Task, seed: int, **settings: object) -> Path:
    """An adapter with trained weights that matter, in a folder as a run has it."""
    network = new_network(encoder, task, AdapterConfig(**settings), precision="fp32", device=CPU, dropout=0.0).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.trained().values():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    folder.mkdir(parents=True)
    save_weights(network, folder, METHODS["lora"].saved)
    return folder


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bench]:
    made = {}
    for family in FAMILIES:
        base = tmp_path_factory.mktemp(family)
        encoder = find_encoder(str(write_tiny_encoder(base / "encoder", family, **SETTINGS.get(family, {}))))
        names = list(KINDS) if family == "distilbert" else ["three", "two", "question"]
        folders = {n: save(encoder, base / n, KINDS[n].task, i, **KINDS[n].settings) for i, n in enumerate(names)}
        known: dict[tuple[str, str], Network] = {}

        def alone(
            name: str, precision: str, encoder: Encoder = encoder, folders: Any = folders, known: Any = known
        ) -> Network:
            if (name, precision) not in known:
                known[name, precision] = load_network(
                    encoder, KINDS[name].task, folders[name], weights="peft", precision=precision, device=CPU, plain=True
                )  # fmt: skip
            return known[name, precision]

        made[family] = Bench(encoder, folders, alone)
    return made


@pytest.fixture(scope="module")
def bench(benches: dict[str, Bench]) -> Bench:
    return benches["distilbert"]


def opened(bench: Bench, names: Any, precision: str = "fp32") -> tuple[MixedEncoder, dict[str, int]]:
    shared = open_mixed(bench.encoder, precision)
    assert shared is not None
    return shared, {name: shared.add(shared.read(bench.folders[name], KINDS[name].task)) for name in names}


def texts(lengths: tuple[int, ...], seed: int = 0) -> list[Rows]:
    """Groups of one row, but for every third, a context of two windows."""
    rng = np.random.default_rng(seed)
    made = []
    for i, length in enumerate(lengths):
        windows = [[2, *rng.integers(5, 50, n).tolist(), 3] for n in ((length, 5) if i % 3 == 2 else (length,))]
        made.append(rows_of([windows]))
    return made


def close(ours: np.ndarray, own: np.ndarray, atol: float = 1e-5) -> None:
    """Outputs of one group, those of tokens filled up to any length."""
    if ours.ndim == 2:
        filler = ours[len(own) :]
        assert (filler == NOTHING).all()
        ours = ours[: len(own)]
    np.testing.assert_allclose(ours, own, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("names", MIXTURES, ids="+".join)
def test_outputs_are_those_of_each_alone(names: tuple[str, ...], bench: Bench) -> None:
    shared, numbers = opened(bench, names)
    groups = texts((7, 30, 12, 1, 50, 9, 22, 3, 40, 11, 6))
    asked = list(itertools.islice(itertools.cycle((*names, names[0])), len(groups)))
    outputs = shared.run(joined(groups), [numbers[name] for name in asked])
    for group, name, ours in zip(groups, asked, outputs, strict=True):
        close(ours, run_network(bench.alone(name, "fp32"), group, "fp32")[0])
    assert max(np.abs(ours[ours != NOTHING]).max() for ours in outputs) > 0.1


@pytest.mark.parametrize("names", [("two", "three"), ("question", "three", "two")], ids="+".join)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str, names: tuple[str, ...], benches: dict[str, Bench]) -> None:
    shared, numbers = opened(benches[family], names)
    groups = texts((7, 30, 12, 1, 5))
    asked = list(itertools.islice(itertools.cycle(names), len(groups)))
    for group, name, ours in zip(groups, asked, shared.run(joined(groups), [numbers[n] for n in asked]), strict=True):
        close(ours, run_network(benches[family].alone(name, "fp32"), group, "fp32")[0])


@pytest.mark.parametrize("count", [5, 90])
@pytest.mark.parametrize("names", [("three", "two", "stars"), ("question", "two", "tags")], ids="+".join)
def test_in_bf16_they_round_as_each_alone_does(names: tuple[str, ...], count: int, bench: Bench) -> None:
    """Few rows fill windows of 32 up, many take their neighbours along."""
    shared, numbers = opened(bench, names, "bf16")
    groups = texts(tuple(3 + 7 * i % 40 for i in range(90)))
    asked = list(itertools.islice(itertools.cycle(names), len(groups)))
    outputs: list[np.ndarray] = []
    for start in range(0, len(groups), count):
        batch = slice(start, start + count)
        outputs += shared.run(joined(groups[batch]), [numbers[name] for name in asked[batch]])
    ours, own = [], []
    for group, name, output in zip(groups, asked, outputs, strict=True):
        exact = run_network(bench.alone(name, "fp32"), group, "fp32")[0]
        ours.append(np.abs(output[: len(exact)] - exact).mean())
        own.append(np.abs(run_network(bench.alone(name, "bf16"), group, "bf16")[0] - exact).mean())
    assert 0 < np.mean(ours) < 1.3 * np.mean(own)


def test_peft_s_own_mixed_batch_is_the_same(bench: Bench, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    folders = {
        "one": save(bench.encoder, tmp_path / "one", THREE, 1, r=4, alpha=6.0),
        "other": save(bench.encoder, tmp_path / "other", THREE, 2, r=2, targets="query_value"),
    }
    model = AutoModelForSequenceClassification.from_pretrained(bench.encoder.folder, num_labels=3)
    model = PeftModel.from_pretrained(model, folders["one"] / "adapter", adapter_name="one")
    model.load_adapter(folders["other"] / "adapter", adapter_name="other")
    asked = ["one", "other", "other", "one", "other"]
    groups = [group.take([0]) for group in texts((20, 20, 9, 20, 4)) if len(group) == 1]
    asked = asked[: len(groups)]
    longest = max(len(group.ids) for group in groups)
    ids, mask = np.zeros((len(groups), longest), np.int64), np.zeros((len(groups), longest), np.int64)
    for i, group in enumerate(groups):
        ids[i, : len(group.ids)], mask[i, : len(group.ids)] = group.ids, 1
    with torch.no_grad():
        expected = model.eval()(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), adapter_names=asked
        ).logits
    shared = open_mixed(bench.encoder, "fp32")
    assert shared is not None
    numbers = {name: shared.add(shared.read(folder, THREE)) for name, folder in folders.items()}
    ours = shared.run(joined(groups), [numbers[name] for name in asked])
    np.testing.assert_allclose(np.stack(ours), expected.numpy(), rtol=1e-5, atol=1e-5)


def test_each_text_has_the_answer_of_its_own_adapter_in_any_order_and_company(bench: Bench) -> None:
    shared, numbers = opened(bench, ("three", "stars", "two", "question"))
    text, *others = texts((25, 8, 33, 4, 17))
    own = {name: run_network(bench.alone(name, "fp32"), text, "fp32")[0] for name in numbers}
    assert np.abs(own["three"] - own["stars"]).max() > 0.1
    for names in itertools.permutations(numbers):
        for name, ours in zip(names, shared.run(joined([text] * len(names)), [numbers[n] for n in names]), strict=True):
            close(ours, own[name])
        company = joined([text, others[0], text, *others[1:]])
        asked = [names[0], names[1], names[1], names[2], names[0], names[3]]
        outputs = shared.run(company, [numbers[name] for name in asked])
        close(outputs[0], own[names[0]])
        close(outputs[2], own[names[1]])


def test_no_more_is_computed_than_heads_ask_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            calls.append(function.__name__)
            return function(*arguments)

        return call

    for function in (arithmetic.run_block, arithmetic.run_block_first):
        monkeypatch.setattr(arithmetic, function.__name__, counted(function))
    shared, numbers = opened(bench, ("three", "two", "question", "mean"))

    def run(*names: str) -> list[str]:
        calls.clear()
        shared.run(joined(texts((5,) * len(names))), [numbers[name] for name in names])
        return sorted(call.removeprefix("run_") for call in calls)

    assert run("three", "two", "three") == ["block", "block", "block_first"]
    assert run("three", "question") == ["block", "block", "block"]
    assert run("three", "mean") == ["block", "block", "block", "block_first"]  # known after its first pass alone
    assert run("three", "mean") == ["block", "block", "block"]


def test_adapters_come_and_go_while_others_compute(bench: Bench) -> None:
    shared, numbers = opened(bench, ("three", "two"))
    groups = texts((9, 14))
    rows, asked = joined(groups), [numbers["three"], numbers["two"]]
    own = [run_network(bench.alone(n, "fp32"), group, "fp32")[0] for n, group in zip(numbers, groups, strict=True)]
    stop, failures, passes = threading.Event(), [], []

    def compute() -> None:
        try:
            while not stop.is_set():
                for ours, expected in zip(shared.run(rows, asked), own, strict=True):
                    close(ours, expected)
                passes.append(1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=compute) for _ in range(2)]
    for thread in threads:
        thread.start()
    adapter = shared.read(bench.folders["tags"], KINDS["tags"].task)
    seen: set[int] = set(numbers.values())
    for _ in range(60):
        number = shared.add(adapter)
        assert number not in seen
        seen.add(number)
        assert shared.run(groups[0], [number])[0].shape == (5,)
        shared.remove(number)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert passes


def test_a_pass_keeps_the_adapters_that_it_began_with(bench: Bench) -> None:
    shared, numbers = opened(bench, ("two",))

    class Removing(Classification):
        def head(self, states: States, rows: Rows) -> torch.Tensor:
            shared.remove(numbers["two"])
            return super().head(states, rows)

    first = shared.add(shared.read(bench.folders["three"], Removing(THREE.labels, "text", "label")))
    groups = texts((9, 14))
    _, ours = shared.run(joined(groups), [first, numbers["two"]])
    close(ours, run_network(bench.alone("two", "fp32"), groups[1], "fp32")[0])
    assert numbers["two"] not in shared
    with pytest.raises(ArtifactError, match=r"adapter 0: not among those of this encoder"):
        shared.run(joined(groups), [first, numbers["two"]])
    with pytest.raises(ArtifactError, match="adapter 0"):
        shared.remove(numbers["two"])


def test_nothing_and_too_few_numbers(bench: Bench) -> None:
    shared, numbers = opened(bench, ("two",))
    assert shared.run(rows_of([]), []) == []
    with pytest.raises(ValueError, match="1 numbers of adapters for 2 groups"):
        shared.run(joined(texts((3, 4))), [numbers["two"]])


def _torn(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def _changed(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)

    return damage


def _set(part: str, value: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in tensors if part in name)
        tensors[name] = value(tensors[name]).contiguous()

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_torn, "cannot be loaded"),
        (lambda file: file.unlink(), "cannot be loaded"),
        (_changed(_set("lora_A", lambda t: t[:-1])), "an update of shapes"),
        (_changed(_set("lora_B", lambda t: t[:-1])), "an update of shapes"),
        (_changed(_set("lora_A", lambda t: t * torch.nan)), "not finite"),
        (_changed(_set("classifier", lambda t: t * torch.inf)), "not finite"),
        (_changed(lambda tensors: tensors.pop("base_model.model.classifier.bias")), "classifier.bias"),
    ],
    ids=["torn", "gone", "rank", "width", "NaN", "infinity", "headless"],
)
def test_damaged_adapters_are_refused(
    damage: Callable[[Path], None], message: str, bench: Bench, tmp_path: Path
) -> None:
    folder = save(bench.encoder, tmp_path / "run", THREE, 0, r=4)
    damage(folder / "adapter/adapter_model.safetensors")
    shared, _ = opened(bench, ())
    with pytest.raises(ArtifactError, match=message) as refused:
        shared.read(folder, THREE)
    assert "\n" not in str(refused.value)


def test_what_cannot_share_an_encoder(bench: Bench, benches: dict[str, Bench], tmp_path: Path) -> None:
    shared, _ = opened(bench, ())
    folder = save(bench.encoder, tmp_path / "run", THREE, 0, r=4)
    assert shared.understands(folder)
    with pytest.raises(ArtifactError, match="a head of 3 outputs, of which the task has 2"):
        shared.read(folder, KINDS["two"].task)
    assert not shared.understands(benches["bert"].folders["three"])
    config = folder / "adapter/adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_dora": True}))
    assert not shared.understands(folder)
    with pytest.raises(ArtifactError, match="cannot share an encoder"):
        shared.read(folder, THREE)
    projected = save(benches["electra"].encoder, tmp_path / "projected", THREE, 0, targets=("embeddings_project",))
    assert not opened(benches["electra"], ())[0].understands(projected)
    assert open_mixed(bench.encoder, "fp32", "eager") is None
    for name, settings in (("mpnet", {"pad_token_id": 1}), ("distilbert", {"activation": "relu"})):
        other = write_tiny_encoder(tmp_path / name, name, **settings)
        assert open_mixed(find_encoder(str(other)), "fp32") is None
