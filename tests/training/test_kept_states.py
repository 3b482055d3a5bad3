"""States that are kept between runs: found by content, whole or not at all, never more than their limit."""

import json
import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from support import training
from support.training import build, labelled

from distilora.errors import Interrupted
from distilora.model.network import Network
from distilora.training import kept_states
from distilora.training.kept_states import KeptStates, cache_folder
from distilora.training.optimizer import learning_rate
from distilora.training.prefix_cache import PrefixCache

run = partial(training.run, cache_gb=1.0)


def files(folder: Path | None = None) -> list[Path]:
    return sorted((folder or cache_folder() / "states").glob("*.bin"))


def put(kept: KeptStates, folder: Path, key: str, size: int, age: int = 0) -> bool:
    file = folder / "states.bin"
    file.write_bytes(key.encode() * size)
    done = kept.keep(key, file)
    file.unlink()
    if age:
        os.utime(kept.folder / f"{key}.bin", (1e9 - age, 1e9 - age))
    return done


def test_a_second_run_computes_no_states_and_is_the_same_run(
    deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(build(deep), tmp_path / "first")
    assert first.prefix["found_bytes"] == 0
    assert len(files()) == 2  # of training and validation
    assert sum(path.stat().st_size for path in files()) == first.prefix["bytes"]
    assert not list((tmp_path / "first").glob("cache*"))
    capsys.readouterr()
    computed, lower = [], Network.lower
    monkeypatch.setattr(Network, "lower", lambda self, rows: computed.append(rows.groups) or lower(self, rows))
    second = run(build(deep), tmp_path / "second")
    assert len(computed) == 2  # the first micro-batch of each, to compare
    assert second.prefix == {**first.prefix, "found_bytes": first.prefix["bytes"]}
    assert second.state.history == first.state.history
    np.testing.assert_array_equal(second.outputs, first.outputs)
    said = capsys.readouterr().err
    assert "2 blocks of an earlier run on the same texts" in said
    assert "computed once" not in said


def test_a_run_that_was_stopped_goes_on_with_the_states_it_had(
    deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(build(deep), tmp_path / "whole", cache_gb=0.0)
    calls = iter(range(100))

    def stopping(*words: object) -> float:
        if next(calls) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return learning_rate(*words)

    with monkeypatch.context() as patch:
        patch.setattr("distilora.training.loop.learning_rate", stopping)
        with pytest.raises(Interrupted, match="stopped after update 7 of 15"):
            run(build(deep), tmp_path / "run")
    resumed = run(build(deep), tmp_path / "run", resume=True)
    assert resumed.prefix["found_bytes"] == resumed.prefix["bytes"] == whole.prefix["bytes"]
    assert resumed.state.history == whole.state.history
    np.testing.assert_array_equal(resumed.outputs, whole.outputs)


@pytest.mark.parametrize(
    "change",
    [{"precision": "bf16"}, {"last_blocks": 1}, {"method": "qlora"}, {"r": 8}, {"update_size": 8}],
    ids=str,
)
def test_what_the_states_come_from_decides(deep: Path, tmp_path: Path, change: dict) -> None:
    run(build(deep), tmp_path / "first")
    ours = {name: value for name, value in change.items() if name in ("last_blocks", "method", "r")}
    precision = change.get("precision", "fp32")
    rest = {name: value for name, value in change.items() if name == "update_size"}
    second = run(build(deep, precision, **ours), tmp_path / "second", precision, **rest)
    same = not change.keys() & {"precision", "last_blocks", "method"}
    assert second.prefix["found_bytes"] == (second.prefix["bytes"] if same else 0)


def test_other_texts_or_weights_or_micro_batches_have_other_keys(deep: Path, tmp_path: Path) -> None:
    network, rows = build(deep), labelled(60, 0).rows

    def key(network: Network = network, rows: object = rows, budget: int = 64, owned: object = None) -> str:
        return PrefixCache(network, rows, tmp_path / "x", "fp32", owned)._key(budget)

    base = key()
    assert key() == base == key(build(deep))
    assert len({base, key(rows=labelled(60, 1).rows), key(budget=65), key(owned=np.arange(30))}) == 4
    with torch.no_grad():
        other = build(deep)
        other.model.base_model.transformer.layer[1].output_layer_norm.bias[0] += 1e-3
    assert key(other) != base
    with torch.no_grad():
        other = build(deep)
        other.model.base_model.transformer.layer[2].output_layer_norm.bias[0] += 1e-3  # above the cut
    assert key(other) == base


@pytest.mark.parametrize("damage", ["a byte", "shorter", "no checksum", "a broken checksum"])
def test_a_damaged_file_is_not_read(
    deep: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(build(deep), tmp_path / "first")
    for path in files():
        content = path.read_bytes()
        record = path.with_suffix(".json")
        if damage == "a byte":
            path.write_bytes(content[:9] + bytes([content[9] ^ 1]) + content[10:])
        elif damage == "shorter":
            path.write_bytes(content[:-4])
        elif damage == "no checksum":
            record.unlink()
        else:
            record.write_text("[]")
    second = run(build(deep), tmp_path / "second")
    assert second.prefix["found_bytes"] == 0
    assert capsys.readouterr().err.count("is damaged; its states are computed again") == 2
    assert second.state.history == first.state.history
    assert run(build(deep), tmp_path / "third").prefix["found_bytes"] == first.prefix["bytes"]


def test_states_that_this_machine_computes_otherwise_are_computed_again(
    deep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(build(deep), tmp_path / "first")
    for path in files():  # as if another processor had computed them: intact, but with other bits
        states = np.frombuffer(path.read_bytes(), np.float32) + np.float32(1e-6)
        path.write_bytes(states.tobytes())
        path.with_suffix(".json").write_text(json.dumps({"sha256": kept_states.sha256(path)}))
    second = run(build(deep), tmp_path / "second")
    assert capsys.readouterr().err.count("has other states than are computed here now") == 2
    assert second.state.history == first.state.history


def test_the_limit_holds_and_what_was_used_longest_ago_goes(tmp_path: Path) -> None:
    kept = KeptStates(10, tmp_path / "kept")
    assert put(kept, tmp_path, "a", 4, age=30)
    assert put(kept, tmp_path, "b", 4, age=20)
    assert kept.find("a", 4)  # used now
    assert put(kept, tmp_path, "c", 5)
    assert [path.stem for path in files(kept.folder)] == ["a", "c"]
    assert not put(kept, tmp_path, "d", 11)  # alone too large: nothing is deleted for it
    assert [path.name for path in sorted(kept.folder.iterdir())] == ["a.bin", "a.json", "c.bin", "c.json"]


def test_no_limit_no_file(deep: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert run(build(deep), tmp_path / name, cache_gb=0.0).prefix["found_bytes"] == 0
    assert not cache_folder().exists()


def test_a_folder_that_cannot_be_written_costs_a_warning(
    deep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache_folder().parent.mkdir(parents=True, exist_ok=True)
    cache_folder().write_text("a file where the folder should be")
    fitted = run(build(deep), tmp_path / "run")
    assert fitted.prefix["bytes"] > 0
    assert "the states of frozen blocks are not kept in" in capsys.readouterr().err


def test_another_disk_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def across(*paths: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", across)
    kept = KeptStates(10, tmp_path / "kept")
    assert put(kept, tmp_path, "a", 4)
    assert kept.find("a", 4).read_bytes() == b"aaaa"


def test_what_a_killed_run_left_half_written_goes_after_a_day(tmp_path: Path) -> None:
    kept = KeptStates(10, tmp_path / "kept")
    put(kept, tmp_path, "a", 4)
    old, new = kept.folder / ".b.bin.1.tmp", kept.folder / ".c.bin.2.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1e9, 1e9))
    put(kept, tmp_path, "d", 4)
    assert (old.exists(), new.exists()) == (False, True)


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DISTILORA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "distilora"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "distilora"
