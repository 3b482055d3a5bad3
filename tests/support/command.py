"""Runs the command where it must fail."""

import pytest

from distilora.cli.main import main


def failed(words: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """Run a command that must fail; return its one line on stderr, without `distilora: `."""
    assert main(words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("distilora: ")
    return line.removeprefix("distilora: ")
