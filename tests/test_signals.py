"""A signal that would end the process at once unwinds it instead, so that what is temporary is removed."""

import os
import signal
import threading
from pathlib import Path

import pytest

from distilora.cli.main import main
from distilora.errors import Interrupted
from distilora.export import export
from distilora.signals import unwinding


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_is_an_error_meanwhile(number: signal.Signals) -> None:
    def twice() -> None:
        with unwinding("stopped"):
            try:
                os.kill(os.getpid(), number)
            finally:
                os.kill(os.getpid(), number)  # a second one does not cut the cleaning short

    before = signal.signal(number, signal.SIG_DFL)  # nohup, under which the tests may run, has SIGHUP ignored
    try:
        with pytest.raises(Interrupted, match=r"^stopped$") as error:
            twice()
        assert error.value.exit_code == 128 + number
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_the_caller_s_handlers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = []
    before = (
        signal.signal(signal.SIGTERM, lambda number, frame: noted.append(number)),
        signal.signal(
            signal.SIGHUP,
            signal.SIG_IGN,  # as nohup does
        ),
    )
    try:
        with unwinding("stopped"):
            for number in (signal.SIGTERM, signal.SIGHUP):
                os.kill(os.getpid(), number)
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGHUP), before, strict=True):
            signal.signal(number, handler)
    assert noted == [signal.SIGTERM]


def test_in_another_thread_signals_are_the_caller_s() -> None:
    handlers = []

    def enter() -> None:
        with unwinding("stopped"):
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [signal.SIG_DFL]


def test_an_export_that_is_stopped_leaves_nothing(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(artifact: object, task: object, to: object, output: object, plain: Path, *more: object) -> None:
        (plain / "model.safetensors").touch()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(export, "_export", stopped)
    output = tmp_path / "merged"
    assert main(["--quiet", "export", str(finished), "--to", "merged", "--output", str(output)]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == f"distilora: stopped; {output} is not written\n"
    assert list(tmp_path.iterdir()) == []
