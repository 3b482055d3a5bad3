"""Checkpoints give everything back; damaged ones are passed over, others' are refused, two are kept."""

import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.checkpoints import fresh, save, step

from distilora.errors import ConfigError
from distilora.files import atomic
from distilora.training.checkpoint import Best, State, load_checkpoint, save_checkpoint


def test_everything_is_given_back(tmp_path: Path) -> None:
    torch.manual_seed(11)
    trained, optimizer, state, best = save(tmp_path, 7)
    other, other_optimizer = fresh(99)
    drawn = torch.rand(3)
    step(trained, optimizer)
    torch.manual_seed(12)

    checkpoint = load_checkpoint(tmp_path, "ours", other, other_optimizer)
    assert checkpoint is not None
    assert checkpoint[0] == state
    assert checkpoint[1].weights.keys() == best.weights.keys()
    assert all(torch.equal(checkpoint[1].weights[name], value) for name, value in best.weights.items())
    assert checkpoint[1].outputs is not None
    assert best.outputs is not None
    assert torch.equal(checkpoint[1].outputs, best.outputs)
    assert torch.equal(torch.rand(3), drawn)
    step(other, other_optimizer)  # the same random numbers, moments and weights: the same next step
    for name, parameter in trained.items():
        assert torch.equal(other[name], parameter)
        for key, value in optimizer.state[parameter].items():
            assert torch.equal(other_optimizer.state[other[name]][key], value)


def test_before_the_first_step_and_validation(tmp_path: Path) -> None:
    trained, optimizer = fresh()
    save_checkpoint(tmp_path, State("ours"), trained, optimizer, Best())
    other, other_optimizer = fresh(1)
    assert load_checkpoint(tmp_path, "ours", other, other_optimizer) == (State("ours"), Best())
    assert all(torch.equal(other[name], parameter) for name, parameter in trained.items())
    assert not other_optimizer.state


def test_none_at_all(tmp_path: Path) -> None:
    trained, optimizer = fresh()
    assert load_checkpoint(tmp_path / "missing", "ours", trained, optimizer) is None
    assert load_checkpoint(tmp_path, "ours", trained, optimizer) is None


def test_two_are_kept(tmp_path: Path) -> None:
    for update in (8, 9, 10, 110):
        save(tmp_path, update)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000010", "00000110"]
    checkpoint = load_checkpoint(tmp_path, "ours", *fresh())
    assert checkpoint is not None
    assert checkpoint[0].update == 110


@pytest.mark.parametrize(
    "name",
    ["trained.safetensors", "optimizer.safetensors", "random.safetensors", "best.safetensors", "state.json",
     "checksums.json"],
)  # fmt: skip
@pytest.mark.parametrize("how", ["cut", "missing"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, name: str, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    before, *_ = save(tmp_path, 5)
    save(tmp_path, 6)
    file = tmp_path / "00000006" / name
    content = file.read_bytes()
    file.unlink()
    if how == "cut":
        file.write_bytes(content[:-1])
    trained, optimizer = fresh(1)
    checkpoint = load_checkpoint(tmp_path, "ours", trained, optimizer)
    assert checkpoint is not None
    assert checkpoint[0].update == 5
    assert all(torch.equal(trained[n], parameter) for n, parameter in before.items())
    assert "00000006 is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    ["trained.safetensors", "optimizer.safetensors", "random.safetensors", "best.safetensors", "state.json",
     "checksums.json"],
)  # fmt: skip
def test_one_changed_byte_anywhere_is_noticed(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before, *_ = save(tmp_path, 5)
    save(tmp_path, 6)
    file = tmp_path / "00000006" / name
    content = file.read_bytes()
    rng = random.Random(name)
    for place in {0, len(content) - 1, *(rng.randrange(len(content)) for _ in range(50))}:
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        file.write_bytes(changed)
        trained, optimizer = fresh(1)
        checkpoint = load_checkpoint(tmp_path, "ours", trained, optimizer)
        assert checkpoint is not None
        assert checkpoint[0].update == 5, f"byte {place}"
        assert all(torch.equal(trained[n], parameter) for n, parameter in before.items())
        assert f"{file.parent} is damaged" in capsys.readouterr().err


def test_all_damaged_is_none(tmp_path: Path) -> None:
    save(tmp_path, 5)
    (tmp_path / "00000005" / "state.json").write_text("{}")
    assert load_checkpoint(tmp_path, "ours", *fresh()) is None


def test_one_of_other_data_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 5, "theirs")
    trained, optimizer = fresh(1)
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    with pytest.raises(ConfigError, match=r"--resume: .* other data or settings"):
        load_checkpoint(tmp_path, "ours", trained, optimizer)
    assert all(torch.equal(trained[name], value) for name, value in before.items())


def test_one_that_was_never_finished_is_not_seen(tmp_path: Path) -> None:
    save(tmp_path, 5)
    (tmp_path / ".00000006.1.tmp").mkdir()
    checkpoint = load_checkpoint(tmp_path, "ours", *fresh())
    assert checkpoint is not None
    assert checkpoint[0].update == 5


def test_a_system_that_cannot_flush_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def windows(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(atomic, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(atomic, "os", SimpleNamespace(**{**vars(os), "open": windows}))
    trained, *_ = save(tmp_path, 5)
    again, optimizer = fresh(1)
    assert load_checkpoint(tmp_path, "ours", again, optimizer) is not None
    assert all(torch.equal(again[name], parameter) for name, parameter in trained.items())
