"""Progress is plain lines in a log, a bar on a terminal, and silent when asked."""

import io
from collections.abc import Iterator

import pytest

from distilora import progress
from distilora.progress import Progress, quiet, say, track, warn


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    quiet(False)
    yield
    quiet(False)


def started(bar: Progress, seconds: float) -> Progress:
    """As if it had begun that long ago."""
    bar.start -= seconds
    bar.shown -= seconds
    return bar


def test_a_line_has_count_rate_notes_and_eta() -> None:
    bar = started(Progress("training", 1000, "examples"), 10)
    bar.notes = {}
    bar.add(250, loss=0.123456)
    assert bar.line() == "training: 250/1,000 examples, 25.0 examples/s, loss 0.1235, ETA 0:30"


def test_a_finished_line_has_the_time_spent() -> None:
    bar = started(Progress("reading", 100, "rows"), 3725)
    bar.add(100)
    assert bar.line() == "reading: 100/100 rows, 0.0 rows/s, 1:02:05"


def test_an_unknown_total_has_no_eta() -> None:
    bar = started(Progress("reading", None, "records"), 10)
    bar.add(12345)
    assert bar.line() == "reading: 12,345 records, 1,234.5 records/s, 0:10"


def test_the_rate_does_not_count_what_was_done_before() -> None:
    bar = started(Progress("training", 1000, initial=500), 10)
    bar.add(100)
    assert bar.line() == "training: 600/1,000 examples, 10.0 examples/s, ETA 0:40"


def test_plain_lines_when_not_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("training", 100) as bar:
        bar.add(1)  # too early for a line
        started(bar, progress.LINE_EVERY_S)
        bar.add(1)
        bar.add(1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 2  # one after ten seconds, one at the end
    assert err.startswith("training: 2/100 examples")
    assert "\r" not in err
    assert "\x1b" not in err


def test_a_short_step_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(100), "reading")) == list(range(100))
    assert capsys.readouterr().err == ""


def test_an_empty_label_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with started(Progress("", 10), 60) as bar:
        bar.add(5)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress("training", 10) as bar:
        started(bar, 1)
        bar.add(5)
    first, last = terminal.getvalue().split("\r\x1b[K")[1:]
    assert first.startswith("█" * 10 + "·" * 10 + " training: 5/10 examples")
    assert last.endswith("\n")
    assert terminal.getvalue().count("\n") == 1


def test_a_bar_of_nothing_to_do_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress("training", 0):
        pass
    assert "█" * 20 in terminal.getvalue()


def test_a_failure_ends_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with pytest.raises(KeyError), Progress("training", None):
        raise KeyError
    assert terminal.getvalue().endswith("\n")
    assert "█" not in terminal.getvalue()


def test_quiet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    say("heard")
    quiet()
    say("not heard")
    with started(Progress("training", 10), 60) as bar:
        bar.add(5)
    assert capsys.readouterr().err == "heard\n"
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with started(Progress("training", 10), 60) as bar:
        bar.add(5)
    assert terminal.getvalue() == ""
    quiet(False)
    say("heard again")
    assert terminal.getvalue() == "heard again\n"


def test_track_counts_an_iterator(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    assert list(track(iter("abc"), "reading", "letters")) == ["a", "b", "c"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["reading: 1 letters", "reading: 2 letters", "reading: 3 letters"]


def test_a_warning_is_not_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    quiet()
    say("a note")
    warn("answers are others")
    assert capsys.readouterr() == ("", "warning: answers are others\n")
