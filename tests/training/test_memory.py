"""What training holds: known tensors weigh what they must, peaks are seen, and measuring changes no number."""

import dataclasses
import mmap
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import tiny_reviews, tiny_tokenizer

from distilora.batching.rows import Rows, rows_of
from distilora.batching.tokens import tokenise
from distilora.config.schema import AdapterConfig, MethodName, TrainingConfig
from distilora.data.examples import Example
from distilora.model.build import new_network
from distilora.model.encoders.find import find_encoder
from distilora.model.network import Network
from distilora.tasks.classification import Classification
from distilora.training import loop as fitting
from distilora.training.loop import Fitted, fit
from distilora.training.memory import Meter, Peak, anonymous_mb
from distilora.training.setup import Labelled, Setup

CPU = torch.device("cpu")
TASK = Classification(("neg", "pos"), "text", "label")
CONFIG = TrainingConfig(
    epochs=1, update_size=16, token_budget=4096, learning_rate=0.01, precision="fp32", device="cpu", validations=1,
    tracker="none",
)  # fmt: skip
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="anonymous memory is told by Linux only")


def held(megabytes: int) -> torch.Tensor:
    """Memory of its own, every page of it touched; malloc's may be kept when it is freed."""
    block = mmap.mmap(-1, megabytes * 1_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(block, dtype=torch.float32).fill_(1.0)


def rows(count: int, seed: int = 0) -> Rows:
    return tokenise(tiny_tokenizer(), [Example((text,)) for text, _ in tiny_reviews(count, seed)]).rows


def build(encoder: Path, method: MethodName = "lora") -> Network:
    settings = AdapterConfig(method=method, r=4)
    return new_network(find_encoder(str(encoder)), TASK, settings, precision="fp32", device=CPU, dropout=0.0)


def trained(encoder: Path, folder: Path, method: MethodName = "lora", **changes: object) -> Fitted:
    config = dataclasses.replace(CONFIG, **changes)
    train, validation = (Labelled(rows(48, seed), [i % 2 for i in range(48)]) for seed in (0, 1))
    return fit(build(encoder, method), train, validation, config, folder, budget=2048, resume=False)


@on_linux
@pytest.mark.parametrize("megabytes", [64, 160])  # less may lie in memory the process has already
def test_anonymous_memory_rises_by_what_is_held(megabytes: int) -> None:
    before = anonymous_mb()
    block = held(megabytes)
    assert anonymous_mb() - before == pytest.approx(megabytes, abs=1.5)
    del block
    assert anonymous_mb() == pytest.approx(before, abs=1.5)


@on_linux
def test_files_mapped_into_memory_are_not_counted(tmp_path: Path) -> None:
    file = tmp_path / "mapped"
    file.write_bytes(bytes(32_000_000))
    before = anonymous_mb()
    mapped = torch.from_file(str(file), size=8_000_000)
    assert float(mapped.sum()) == 0.0
    assert anonymous_mb() - before == pytest.approx(0.0, abs=1.5)


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path) -> bytes:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_bytes", missing)
    assert str(anonymous_mb()) == "nan"


@on_linux
def test_a_peak_that_is_gone_at_the_end_is_seen() -> None:
    threads = set(threading.enumerate())
    before = anonymous_mb()
    with Peak(CPU, baseline=before) as peak:
        block = held(64)
        time.sleep(0.2)
        del block
        assert anonymous_mb() - before == pytest.approx(0.0, abs=2.0)
    assert peak.mb == pytest.approx(64, abs=2.0)
    assert set(threading.enumerate()) <= threads
    block = held(128)  # afterwards nobody looks
    time.sleep(0.05)
    assert peak.mb == pytest.approx(64, abs=2.0)
    del block


@on_linux
def test_what_is_held_from_the_start_is_in_the_peak() -> None:
    before = anonymous_mb()
    block = held(64)
    with Peak(CPU, baseline=before, every_s=60.0) as peak:
        del block
    assert peak.mb == pytest.approx(64, abs=2.0)


def test_known_layers_weigh_what_they_must() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(100, 200), torch.nn.Tanh(), torch.nn.Linear(200, 300))
    network.register_buffer("known", torch.zeros(50))
    weights = 100 * 200 + 200 + 200 * 300 + 300
    optimizer = torch.optim.AdamW(network.parameters())
    meter = Meter(network)
    assert meter.figures == {"weights_mb": (weights + 50) * 4 / 1e6}
    for count in (7, 5):  # micro-batches; the larger one counts
        with meter.forward():
            outputs = network(torch.randn(count, 100))
        outputs.sum().backward()
    optimizer.step()
    meter.update(network.parameters(), optimizer)
    assert meter.figures["gradients_mb"] == weights * 4 / 1e6
    assert meter.figures["optimizer_mb"] == (2 * weights + 4) * 4 / 1e6  # and a step count for each of the four
    assert meter.figures["activations_mb"] == 7 * (100 + 200) * 4 / 1e6  # the input, and what tanh gave; no weights

    measured = dict(meter.figures)
    with meter.forward():
        outputs = network(torch.randn(1000, 100))
    outputs.sum().backward()
    meter.update([], optimizer)
    assert meter.figures == measured


@pytest.mark.parametrize("method", ["lora", "full", "head"])
def test_weights_gradients_and_moments(method: MethodName, encoder: Path, tmp_path: Path) -> None:
    network = build(encoder, method)
    memory = trained(encoder, tmp_path, method).memory
    parts = [*network.parameters(), *network.buffers()]
    learnt = [parameter.numel() * 4 for parameter in network.trained().values()]
    assert memory["weights_mb"] == pytest.approx(sum(part.numel() * part.element_size() for part in parts) / 1e6)
    assert memory["gradients_mb"] == pytest.approx(sum(learnt) / 1e6)
    assert memory["optimizer_mb"] == pytest.approx(sum(2 * size + 4 for size in learnt) / 1e6)  # 4: the step count
    assert memory["activations_mb"] > 0


def test_full_holds_more_than_lora_and_lora_more_than_head(encoder: Path, tmp_path: Path) -> None:
    methods: tuple[MethodName, ...] = ("full", "lora", "head")
    full, lora, head = (trained(encoder, tmp_path / method, method).memory for method in methods)
    for name in ("gradients_mb", "optimizer_mb"):
        assert full[name] > 2 * lora[name]
        assert lora[name] > 2 * head[name]
    assert lora["activations_mb"] > 2 * head["activations_mb"]  # a frozen encoder keeps nothing for a backward pass


def activations(network: Network, count: int) -> float:
    meter = Meter(network)
    with meter.forward():
        network(rows_of([[[5 + i % 40] * 32] for i in range(count)]))
    return meter.figures["activations_mb"]


@pytest.mark.parametrize(("method", "off"), [("lora", 1e-9), ("full", 0.01), ("head", 1e-9)])
def test_activations_are_as_many_as_the_texts(method: MethodName, off: float, encoder: Path) -> None:
    network = build(encoder, method).train()  # were there weights among them, there would be more of one text
    one, eight, sixty_four = (activations(network, count) for count in (1, 8, 64))
    assert one > 0
    assert (eight, sixty_four) == pytest.approx((8 * one, 64 * one), rel=off)


def test_the_first_update_alone_is_measured(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    updates, met = [], []
    step = fitting.make_update

    def seen(*words: Any) -> tuple[float, float]:
        meter = next(word for word in words if isinstance(word, Setup)).meter
        updates.append(meter.open)
        done = step(*words)
        met.append(dict(meter.figures))
        return done

    monkeypatch.setattr(fitting, "make_update", seen)
    memory = trained(encoder, tmp_path).memory
    assert updates == [True, False, False]
    assert met == [memory] * 3
    assert memory.keys() == {"weights_mb", "gradients_mb", "optimizer_mb", "activations_mb"}


def test_smaller_micro_batches_hold_less(encoder: Path, tmp_path: Path) -> None:
    whole, cut = (trained(encoder, tmp_path / str(n), token_budget=n).memory for n in (4096, 96))  # 8 texts, and 4
    assert 0.4 < cut["activations_mb"] / whole["activations_mb"] < 0.8  # half, but for the packed sequence's tail
    assert {**cut, "activations_mb": 0} == {**whole, "activations_mb": 0}


def gradients(network: Network, measured: bool, targets: Sequence[int]) -> list[torch.Tensor]:
    meter = Meter(network)
    meter.open = measured
    torch.manual_seed(3)
    with meter.forward():
        loss = TASK.loss(network(rows(8)).float(), targets).sum()
    loss.backward()
    tensors = [loss.detach(), *(p.grad.clone() for p in network.trained().values() if p.grad is not None)]
    network.zero_grad()
    return tensors


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("bf16", [False, True])
def test_measuring_changes_no_number(method: MethodName, bf16: bool, encoder: Path) -> None:
    network = build(encoder, method).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        closed, measured = (gradients(network, on, [i % 2 for i in range(8)]) for on in (False, True))
    assert len(closed) == 1 + len(network.trained())
    assert all(torch.equal(a, b) for a, b in zip(closed, measured, strict=True))
