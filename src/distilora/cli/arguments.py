"""Arguments that commands share; what argparse objects to is a ConfigError, printed as one line."""

import argparse
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from distilora.config.hints import nearest
from distilora.errors import ConfigError

# What every command takes, at any place; `take_everywhere` reads them.
EVERYWHERE = {
    "--threads N": "compute on N threads instead of one per core",
    "--quiet": "hide progress and notes",
    "--task-file FILE": "import this Python file first: it registers a task of your own",
}
TRAIN_OPTIONS = {
    "RECIPE.yaml": "settings as YAML, `stage: {field: value}`; options win over it; recipes/ holds commented examples",
    "--overwrite": "replace the run that the output folder holds",
    "--dry-run": "check everything and say what would be trained and for how long; train and write nothing",
    "--resume RUN": "go on with a run that was stopped, by the settings in its folder",
    "--threads N": "short for --training.threads N",
    "--quiet": EVERYWHERE["--quiet"],
    "--task-file FILE": EVERYWHERE["--task-file FILE"],
}
EVALUATE_OPTIONS = {"RUN": "folder of a finished run, or its model/", **EVERYWHERE}
MOST_THREADS = 1024


class Everywhere(NamedTuple):
    """Options of every command, and the words that are left without them."""

    quiet: bool
    threads: int | None
    task_file: str | None
    words: list[str]


def take_everywhere(words: Sequence[str]) -> Everywhere:
    """Take the options of every command out of a command line, wherever they stand before a `--`.

    Raises ConfigError for threads that are no number from 1 to MOST_THREADS, and for a task file without a name.
    """
    end = words.index("--") if "--" in words else len(words)
    quiet, threads, task_file, left = False, None, None, []
    ahead = iter(words[:end])
    for word in ahead:
        if word == "--quiet":
            quiet = True
        elif word.split("=", 1)[0] == "--threads":
            threads = _count(word.partition("=")[2] if "=" in word else next(ahead, ""))
        elif word.split("=", 1)[0] == "--task-file":
            task_file = word.partition("=")[2] if "=" in word else next(ahead, "")
            if not task_file:
                raise ConfigError("--task-file: nothing given; name the Python file that registers the task")
        else:
            left.append(word)
    return Everywhere(quiet, threads, task_file, [*left, *words[end:]])


def _count(given: str) -> int:
    if not (given.isdecimal() and 1 <= int(given) <= MOST_THREADS):
        raise ConfigError(f"--threads: {given or 'nothing'} given, a whole number from 1 to {MOST_THREADS} wanted")
    return int(given)


class Parser(argparse.ArgumentParser):
    """A command's parser. Options are given in full."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Argparse's, but an unknown option is named before anything else that may be wrong. Raises ConfigError."""
        self._refuse_unknown(args)
        return super().parse_args(args, namespace)

    def parse_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As `parse_args`, with options between the positional arguments."""
        self._refuse_unknown(args)
        return super().parse_intermixed_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError."""
        raise ConfigError(f"{message}; see {self.prog} --help")

    def format_help(self) -> str:
        """Argparse's, and the options of every command."""
        shared = "".join(f"  {option:<20}  {meaning}\n" for option, meaning in EVERYWHERE.items())
        return f"{super().format_help()}\noptions of every command:\n{shared}"

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        for word in words[: words.index("--")] if "--" in words else words:
            name = word.split("=", 1)[0]
            if re.match(r"--?[A-Za-z]", name) and " " not in word and name not in self._option_string_actions:
                raise self._unknown(name)

    def _unknown(self, name: str) -> ConfigError:
        options = [*self._option_string_actions, *(option.split()[0] for option in EVERYWHERE)]
        meant = nearest(name.lstrip("-"), [option.lstrip("-") for option in options if option.startswith("--")])
        hint = f"did you mean --{meant}?" if meant else f"see {self.prog} --help"
        return ConfigError(f"{name}: {self.prog} has no such option; {hint}")


def add_run(parser: Parser) -> None:
    """The run that a command works with, its first argument."""
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, or its model/")


def add_loading(parser: Parser) -> None:
    """How its model is loaded: what `predict.load` takes."""
    parser.add_argument("--backend", choices=["auto", "torch", "onnx"], default="auto",
                        help="auto: onnx for a folder exported so, else torch (default)")  # fmt: skip
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32", "int8"], default="auto",
                        help="auto: what an export's gate chose; of a run bf16 where it is native")  # fmt: skip
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="auto: a GPU if any")
    parser.add_argument("--encoder", help="where the run's encoder lies now, if not where it lay in training")
    parser.add_argument("--base", choices=["auto", "4bit", "full"], default="auto",
                        help="what a qlora run's adapter is put on; auto: 4bit, as in training")  # fmt: skip


def add_answering(parser: Parser) -> None:
    """How its model is loaded and when it abstains."""
    add_loading(parser)
    parser.add_argument("--abstain-below", metavar="P", type=float, default=0.0,
                        help="answers less probable than P say abstain (default: 0)")  # fmt: skip
