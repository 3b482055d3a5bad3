"""Runs a module of this package in a fresh Python process, without anything that this one imported, set or defined.

Python's `-P` keeps the working directory off its search path: a file there called safetensors.py is data, not code. The package
is the one that runs here, wherever it was imported from.
"""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

_PACKAGE = Path(__file__).with_name("__init__.py")
_CODE = """
import importlib, importlib.util, sys
spec = importlib.util.spec_from_file_location("distilora", sys.argv.pop(1))
sys.modules["distilora"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
sys.exit(importlib.import_module(sys.argv.pop(1)).main())
"""


class Done(NamedTuple):
    """The outcome of a fresh process: its exit code, the last line on its stdout, and the last one on its stderr."""

    code: int
    line: str
    error: str


def run_fresh(module: str, *words: str) -> Done:
    """Call `main()` of a module of distilora in a fresh process, with `words` as its arguments, and wait for its end."""
    command = [sys.executable, "-P", "-c", _CODE, str(_PACKAGE), module, *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return Done(done.returncode, _last_line(done.stdout), _last_line(done.stderr) or "no message")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
