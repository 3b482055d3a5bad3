"""Fresh processes without the seconds: forks of one interpreter that has imported all but what matters."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple


def verify_here(folder: Path, task: object, device: str) -> dict[str, Any]:
    """The round trip in this process, where a fresh one would take seconds."""
    from distilora.artifact.format import read_artifact
    from distilora.export.roundtrip import compare

    return compare(read_artifact(folder), device)


COMMAND = """
from support.fresh import verify_here
from distilora.cli import main as cli
from distilora.export import export
from distilora.export import save as saving
saving.verify = export.verify = verify_here
sys.exit(cli.main(sys.argv[1:]))
"""
COMPARE = """
import json
from distilora.artifact.format import read_artifact
from distilora.export.roundtrip import compare
for folder in sys.argv[1:]:
    print(json.dumps(compare(read_artifact(folder), "cpu")))
"""


class Done(NamedTuple):
    """What a fresh process said. `marks` are those of a stand-in for the package `kernels`: imported, called."""

    code: int
    out: str
    err: str
    marks: set[str]


class Fresh:
    """Runs code or commands, each in a process that has imported nothing of distilora, PEFT or bitsandbytes yet.

    They are forks of one interpreter, in which what else takes seconds to import is imported once. A package `kernels`
    can be imported there; it leaves marks.
    """

    FORKS = """
import json, os, sys, traceback
import accelerate, jinja2, matplotlib.pyplot, sklearn.metrics, transformers.modeling_layers

assert not {"bitsandbytes", "peft", "kernels", "distilora"} & set(sys.modules)
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(job["place"] + "/" + name, os.O_WRONLY | os.O_CREAT), number)
    os.environ["MARKS"], sys.argv = job["place"], ["distilora", *job["words"]]
    sys.modules.update(dict.fromkeys(job["without"]))
    code = 0
    try:
        exec(job["code"], {"__name__": "__main__", "sys": sys})
    except SystemExit as leaving:
        code = leaving.code or 0
    except BaseException:
        code = 99
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
"""

    def __init__(self, folder: Path) -> None:
        package, about = folder / "kernels", folder / "kernels-0.1.0.dist-info"
        mark = "__import__('pathlib').Path(__import__('os').environ['MARKS'], {!r}).touch()\n"
        package.mkdir()
        (package / "__init__.py").write_text(
            mark.format("imported")
            + "def get_kernel(*_, **__):\n    "
            + mark.format("called")
            + "    raise ImportError\n"
        )
        about.mkdir()  # of a version too old for Transformers to import it itself
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: kernels\nVersion: 0.1.0\n")
        self.folder, self.count = folder, 0
        paths = [str(folder), str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.forks = subprocess.Popen(
            [sys.executable, "-c", self.FORKS], env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self, *words: object, code: str = COMMAND, without: Sequence[str] = ()) -> Done:
        """Runs `code` (the command, if not given) with `words` as its arguments; the packages `without` are missing."""
        self.count += 1
        place = self.folder / f"{self.count}"
        place.mkdir()
        job = {"place": str(place), "words": [*map(str, words)], "code": code, "without": list(without)}
        self.forks.stdin.write(json.dumps(job) + "\n")
        self.forks.stdin.flush()
        left = int(self.forks.stdout.readline())
        marks = {path.name for path in place.iterdir()} - {"out", "err"}
        return Done(left, (place / "out").read_text("utf-8"), (place / "err").read_text("utf-8"), marks)
