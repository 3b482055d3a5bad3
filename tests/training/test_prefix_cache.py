"""The frozen-prefix cache gives the states that would be computed, and a run with it the run without it."""

import errno
import os
import shutil
import signal
import threading
from collections import namedtuple
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import write_tiny_encoder
from support.training import CACHED, build, labelled, run

from distilora.batching.batches import plan_batches
from distilora.errors import Interrupted
from distilora.model.network import Network
from distilora.signals import Stop
from distilora.training import prefix_cache as prefix
from distilora.training.loop import CACHE
from distilora.training.optimizer import learning_rate
from distilora.training.prefix_cache import PrefixCache, PrefixCaches
from distilora.training.processes import Processes

Disk = namedtuple("Disk", "total used free")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_cache_gives_back_what_the_blocks_gave(deep: Path, tmp_path: Path, precision: str) -> None:
    network, rows = build(deep, precision).eval(), labelled(60, 0).rows
    cache = PrefixCache(network, rows, tmp_path / "states.bin", precision)
    assert cache.bytes == len(rows.ids) * 32 * (4 if precision == "fp32" else 2)
    assert cache.fits(cache.bytes)
    cache.reserve()
    assert cache.fill(10**6, "")  # everything in one micro-batch
    assert (tmp_path / "states.bin").stat().st_size == cache.bytes
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        order = np.lexsort((np.arange(60), -rows.group_lengths))  # the same micro-batch: bit for bit
        same = network.lower(rows.take(order))
        few = np.asarray([3, 59, 0, 17])
        other = network.lower(rows.take(few))
    assert torch.equal(cache.states(order), same)
    assert same.std() > 0.5
    close = {"rtol": 0.0, "atol": 1e-5} if precision == "fp32" else {"rtol": 0.02, "atol": 0.05}
    torch.testing.assert_close(cache.states(few), other, **close)
    cache.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings", [{}, {"last_blocks": 1}, {"method": "qlora"}, {"method": "full"}, {"method": "head"}], ids=str
)
def test_a_run_with_it_is_the_run_without_it(
    deep: Path, tmp_path: Path, settings: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if settings.get("method") == "head":
        settings = settings | {"last_blocks": None}
    cached = run(build(deep, **settings), tmp_path / "cached")
    assert cached.prefix["blocks"] == {1: 3, None: 3}.get(settings.get("last_blocks", 2), 2)
    assert cached.prefix["bytes"] > 80 * 32
    assert "frozen-prefix cache" in capsys.readouterr().err
    assert not (tmp_path / "cached" / CACHE).exists()
    monkeypatch.setattr(prefix.shutil, "disk_usage", lambda path: Disk(1, 1, 0))
    plain = run(build(deep, **settings), tmp_path / "plain")
    assert "no room for a frozen-prefix cache" in capsys.readouterr().err
    assert plain.prefix["bytes"] == 0
    losses = [[row.get("loss", row.get("validation_loss")) for row in each.state.history] for each in (cached, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][0] != pytest.approx(losses[0][-1], rel=1e-3)  # something was learnt
    np.testing.assert_allclose(cached.outputs, plain.outputs, atol=1e-4)


def test_there_is_none_where_it_saves_nothing(deep: Path, tmp_path: Path) -> None:
    assert run(build(deep, last_blocks=None), tmp_path / "all").prefix == {"blocks": 0, "bytes": 0, "found_bytes": 0}
    once = run(build(deep), tmp_path / "once", epochs=1, validations=1)
    assert once.prefix == {"blocks": 2, "bytes": 0, "found_bytes": 0}


def test_stopped_while_it_is_filled_and_gone_on_with(
    deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(build(deep), tmp_path / "whole")
    lower, calls = Network.lower, iter(range(100))

    def stopped(self: Network, rows: object) -> torch.Tensor:
        if next(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return lower(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Network, "lower", stopped)
        with pytest.raises(Interrupted, match="stopped after update 0 of 15"):
            run(build(deep), tmp_path / "run")
    assert not (tmp_path / "run" / CACHE).exists()
    calls = iter(range(100))

    def later(*words: object) -> None:
        if next(calls) == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("distilora.training.loop.learning_rate", lambda *words: later() or learning_rate(*words))
        with pytest.raises(Interrupted, match="stopped after update 7 of 15"):
            run(build(deep), tmp_path / "run", resume=True)
    (tmp_path / "run" / CACHE).mkdir()
    (tmp_path / "run" / CACHE / "train-0.bin").write_bytes(b"left by a killed process")
    again = run(build(deep), tmp_path / "run", resume=True)
    assert again.state.history == whole.state.history
    np.testing.assert_array_equal(again.outputs, whole.outputs)


def test_states_of_an_example_that_is_not_there(deep: Path, tmp_path: Path) -> None:
    network, rows = build(deep).eval(), labelled(10, 0).rows
    cache = PrefixCache(network, rows, tmp_path / "states.bin", "fp32", np.asarray([1, 4, 9]))
    cache.reserve()
    cache.fill(100, "")
    assert cache.bytes == 4 * 32 * rows.group_lengths[[1, 4, 9]].sum()
    torch.testing.assert_close(cache.states(np.asarray([9, 1])), network.lower(rows.take([9, 1])))
    with pytest.raises(KeyError, match=r"\[5\] are another process's"):
        cache.states(np.asarray([4, 5]))


class Threads(Processes):
    """Processes that are threads of this process, with sums as of processes: nobody goes on until all have given theirs."""

    def __init__(self, index: int, count: int, meet: threading.Barrier, board: dict[int, list[torch.Tensor]]) -> None:
        super().__init__(index, count)
        object.__setattr__(self, "meet", meet)
        object.__setattr__(self, "board", board)

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        self.board[self.index] = tensors = list(tensors)
        self.meet.wait(20)
        sums = [sum(each) for each in zip(*(self.board[i] for i in range(self.count)), strict=True)]
        self.meet.wait(20)
        for tensor, value in zip(tensors, sums, strict=True):
            tensor.copy_(value)


def in_threads(job: Callable[[Processes], Any], count: int = 2) -> list[Any]:
    meet, board = threading.Barrier(count), {}
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda index: job(Threads(index, count, meet, board)), range(count)))


@pytest.mark.parametrize("trouble", ["no room", "no file", "full while reserving", "none"])
def test_processes_that_disagree_have_no_cache_any_of_them(
    deep: Path, tmp_path: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks, train, validation = [build(deep) for _ in range(2)], labelled(64, 0).rows, labelled(20, 1).rows
    second = threading.local()
    usage, reserve = shutil.disk_usage, prefix._reserve

    def free(path: Path) -> Disk:
        if trouble == "no file" and second.here:
            raise OSError(errno.EROFS, "read-only")
        return Disk(1, 1, 0) if trouble == "no room" and second.here else usage(path)

    def full(stream: Any, size: int) -> None:
        if trouble == "full while reserving" and second.here:
            raise OSError(errno.ENOSPC, "full")
        reserve(stream, size)

    monkeypatch.setattr(prefix.shutil, "disk_usage", free)
    monkeypatch.setattr(prefix, "_reserve", full)

    def job(processes: Processes) -> tuple[PrefixCaches, list[int]]:
        second.here = processes.index == 1
        network = networks[processes.index]
        caches = PrefixCaches(network, train, validation, CACHED, 64, tmp_path / "cache", processes)
        caches.fill(Stop())
        update = plan_batches(train.group_lengths, 64 * processes.count, 64, seed=1)[0]
        examples = [i for b in processes.share(update, train.group_lengths, 64, caches.owner) for i in b]
        if caches.train:
            caches.train.states(np.asarray(examples))  # all of them are there
        return caches, examples

    (one, mine), (two, yours) = in_threads(job)
    assert sorted(mine + yours) == list(range(64))  # each of an update's examples once
    for caches in (one, two):
        assert [bool(caches.train), bool(caches.validation)] == [trouble == "none"] * 2
        assert (caches.summary["bytes"] > 0) == (trouble == "none")
        caches.close()
    assert not (tmp_path / "cache").exists()


def test_nobody_removes_what_another_process_has_written(deep: Path, tmp_path: Path) -> None:
    networks, rows = [build(deep) for _ in range(2)], labelled(20, 0).rows
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "train-7.bin").write_bytes(b"left by a killed process")
    began = threading.Event()

    def job(processes: Processes) -> list[str]:
        if processes.index:
            began.wait(0.3)  # late: were there no barrier, the first would have written by now
        caches = PrefixCaches(networks[processes.index], rows, rows, CACHED, 64, tmp_path / "cache", processes)
        caches.fill(Stop())
        processes.wait(torch.device("cpu"))
        return sorted(path.name for path in (tmp_path / "cache").iterdir())

    names = ["train-0.bin", "train-1.bin", "validation-0.bin", "validation-1.bin"]
    assert in_threads(job) == [names, names]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError, OSError])
@pytest.mark.parametrize(
    "place",
    [
        "training.loop.make_update",
        "training.loop.validate",
        "model.network.Network.lower",
        "training.loop.load_checkpoint",
    ],
)
def test_it_is_deleted_however_the_run_ends(
    deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, failure: type[BaseException]
) -> None:
    def fail(*words: object, **settings: object) -> None:
        assert place == "training.loop.load_checkpoint" or list((tmp_path / CACHE).iterdir())
        raise failure("here")

    (tmp_path / CACHE).mkdir()
    (tmp_path / CACHE / "train-0.bin").write_bytes(b"left by a killed process")
    network = build(deep)
    monkeypatch.setattr(f"distilora.{place}", fail)
    with pytest.raises(failure, match="here"):
        run(network, tmp_path, resume=True)
    assert not (tmp_path / CACHE).exists()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_trained_between_embeddings_and_blocks_is_trained(tmp_path: Path, precision: str) -> None:
    encoder = write_tiny_encoder(tmp_path / "electra", "electra", embedding_size=16)
    network = build(encoder, precision, targets=("embeddings_project",), last_blocks=None)
    assert network.cut == 0
    before = {name: p.detach().clone() for name, p in network.trained().items() if "embeddings_project" in name}
    assert run(network, tmp_path / "run", precision).prefix == {"blocks": 0, "bytes": 0, "found_bytes": 0}
    moved = [not torch.equal(network.trained()[name], value) for name, value in before.items()]
    assert moved == [True, True]  # A and B


def test_a_trained_norm_beside_the_blocks_leaves_nothing_to_cache(deep: Path) -> None:
    network = build(deep)
    assert network.cut == 2
    network.model.base_model.embeddings.LayerNorm.bias.requires_grad_(True)
    assert network.cut == 0


def test_room_is_taken_where_the_system_has_no_call_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    with open(tmp_path / "states.bin", "wb") as stream:
        prefix._reserve(stream, 3_500_001)
    status = (tmp_path / "states.bin").stat()
    assert status.st_size == 3_500_001
    assert status.st_blocks * 512 >= status.st_size  # no holes that a full disk would leave to the mapping
