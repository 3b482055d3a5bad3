"""Arguments that commands share. Every objection to a command line is a ConfigError that names the option.

argument --to: invalid choice: 'x' (choose from a, b)  ->  --to: 'x' given, a, b wanted
abstain_below: 2.0 given, ... wanted                   ->  --abstain-below: 2.0 given, ... wanted
"""

import argparse
import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

from distilora.config.hints import nearest
from distilora.errors import ConfigError, DistiloraError, MissingExtra

# Options that every command accepts at any place; `take_everywhere` reads them.
EVERYWHERE = {
    "--threads N": "compute on N threads instead of one per core",
    "--quiet": "hide progress and notes",
    "--task-file FILE": "import this Python file first: it registers a task of your own",
}
TRAIN_OPTIONS = {
    "RECIPE.yaml": "settings as YAML, `stage: {field: value}`; options win over it; recipes/ holds commented examples",
    "--overwrite": "replace the run that the output folder holds",
    "--dry-run": "check everything and estimate the cost of training; train and write nothing",
    "--resume RUN": "continue a run that was stopped, with the settings in its folder",
    "--threads N": "short for --training.threads N",
    "--quiet": EVERYWHERE["--quiet"],
    "--task-file FILE": EVERYWHERE["--task-file FILE"],
}
EVALUATE_OPTIONS = {
    "RUN": "folder of a finished run, or its model/",
    "--checks [FILE.yaml]": "put the model to checks of negation, contrast, typos, names and more, or to your own from a file",
    **EVERYWHERE,
}
MOST_THREADS = 1024


class Everywhere(NamedTuple):
    """Options of every command, and the words that are left without them."""

    quiet: bool
    threads: int | None
    task_file: str | None
    words: list[str]


def take_everywhere(words: Sequence[str]) -> Everywhere:
    """Take the options of every command out of a command line, wherever they stand before a `--`.

    Raises ConfigError if --threads is not a whole number from 1 to MOST_THREADS, or if --task-file names no file.
    """
    end = words.index("--") if "--" in words else len(words)
    quiet, threads, task_file, others = False, None, None, []
    remaining = iter(words[:end])
    for word in remaining:
        if word == "--quiet":
            quiet = True
        elif word.split("=", 1)[0] == "--threads":
            threads = _count(word.partition("=")[2] if "=" in word else next(remaining, ""))
        elif word.split("=", 1)[0] == "--task-file":
            task_file = word.partition("=")[2] if "=" in word else next(remaining, "")
            if not task_file:
                raise ConfigError("--task-file: nothing given; name the Python file that registers the task")
        else:
            others.append(word)
    return Everywhere(quiet, threads, task_file, [*others, *words[end:]])


def _count(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= MOST_THREADS):
        raise ConfigError(f"--threads: {text or 'nothing'} given, a whole number from 1 to {MOST_THREADS} wanted")
    return int(text)


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} given, a whole number wanted") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} given, a number wanted") from None


class Parser(argparse.ArgumentParser):
    """Parser of a command; options are given in full, and objections are ConfigErrors."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)
        self.register("type", int, _whole_number)
        self.register("type", float, _number)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse a command line; an unknown option is reported before anything else. Raises ConfigError."""
        self._refuse_unknown(args)
        return super().parse_args(args, namespace)

    def parse_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse as `parse_args` does, with options allowed between the positional arguments."""
        self._refuse_unknown(args)
        return super().parse_intermixed_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError, with `--option: nothing given ...` for argparse's `argument --option: expected ...`."""
        message = message.removeprefix("argument ").replace("expected one argument", "nothing given, a value wanted")
        raise ConfigError(f"{message}; see {self.prog} --help")

    @contextmanager
    def naming_options(self, words: Sequence[str]) -> Iterator[None]:
        """Name fields as options in errors raised inside: `abstain_below: ...` becomes `--abstain-below: ...`.

        A field that is also a word of the command line is left: it may be the name of a folder. In the rest of the line, names
        with an underscore alone are taken for options.
        """
        try:
            yield
        except DistiloraError as error:
            command = self.prog.split()[-1]
            field = re.match(rf"(?:{command}\.)?([a-z_-]+)(?=: )", str(error))
            option = _option(field[1]) if field else ""
            message = str(error)
            if field and option in self._option_string_actions and field[0] not in words:
                message = option + message[field.end() :]
            for name in set(re.findall(r"(?<![\w.'/-])[a-z]+(?:_[a-z]+)+(?![\w.'/])", message)) - set(words):
                if _option(name) in self._option_string_actions:
                    message = re.sub(rf"(?<![\w.'/-]){name}(?![\w.'/])", _option(name), message)
            error.args = (message,)
            raise

    def format_help(self) -> str:
        """Return the help text, the options of every command included."""
        shared = "".join(f"  {option:<20}  {meaning}\n" for option, meaning in EVERYWHERE.items())
        return f"{super().format_help()}\noptions of every command:\n{shared}"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = action.option_strings[-1] if action.option_strings else action.metavar or action.dest
            raise ConfigError(f"{name}: {value!r} given, {', '.join(map(str, action.choices))} wanted")

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


def _option(field: str) -> str:
    return "--" + field.replace("_", "-")


def add_run(parser: Parser) -> None:
    """Add the run that a command works with, its first argument."""
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, or its model/")


def add_loading(parser: Parser) -> None:
    """Add the options `load` accepts."""
    parser.add_argument("--backend", choices=["auto", "torch", "onnx", "openvino"], default="auto",
                        help="auto: onnx or openvino for a folder exported to it, else torch (default)")  # fmt: skip
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32", "int8"], default="auto",
                        help="auto: for an export the choice of its parity gate, for a run bf16 where it is native")  # fmt: skip
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="auto: a GPU if any")
    parser.add_argument("--encoder", help="path of the run's encoder, if it has moved since training")
    parser.add_argument("--base", choices=["auto", "4bit", "full"], default="auto",
                        help="weights under a qlora run's adapter; auto: 4bit, as in training")  # fmt: skip
    parser.add_argument("--lexicon", choices=["auto", "none"], default="auto",
                        help="none: without the model's n-gram expert, by the encoder alone")  # fmt: skip


def add_answering(parser: Parser) -> None:
    """Add the options `load` accepts, those of abstention included."""
    add_loading(parser)
    parser.add_argument("--abstain-below", metavar="P", type=float, default=0.0,
                        help="mark answers less probable than P as abstentions (default: 0)")  # fmt: skip
    parser.add_argument("--abstain-error", metavar="RATE", type=float,
                        help="choose P: with 95%% confidence at most this share of the other answers is wrong")  # fmt: skip
    parser.add_argument("--cascade", action="store_true",
                        help="let the model's n-gram expert answer alone where it is sure: with 95%% confidence at most "
                        "0.1 points of accuracy are lost")  # fmt: skip


def require_train_extra() -> None:
    """Raise MissingExtra if a package of the extra `train` is not installed; nothing is imported."""
    for package in ("torch", "transformers", "peft", "accelerate", "sklearn", "matplotlib", "jinja2"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "train")
