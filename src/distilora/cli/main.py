"""The entry point `distilora`: finds the command, runs it and prints its errors as one line.

Heavy imports wait until a command needs them.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from distilora import progress
from distilora.cli.arguments import take_everywhere
from distilora.config.hints import nearest
from distilora.errors import ConfigError, DistiloraError, Interrupted
from distilora.version import __version__

COMMANDS = (
    "train",
    "data",
    "baseline",
    "curve",
    "audit",
    "evaluate",
    "compare",
    "predict",
    "explain",
    "score",
    "serve",
    "export",
    "encoder",
)
USAGE = """usage: distilora COMMAND ...

Fine-tunes a small text encoder with LoRA, measures it honestly, and predicts with it.

commands:
  train [RECIPE.yaml] [--STAGE.FIELD VALUE ...] [--overwrite]   train, evaluate, report into a run's folder
  train --resume RUN                                            go on with a run that was stopped
  train ... --dry-run                                           check everything, say what would be trained and for how long
  train ... --task TASK                                         classification, ordinal, regression, multilabel, question_answering,
                                                                summarization, abstractive_summarization
  data [RECIPE.yaml] [--data.FIELD VALUE ...]                   what a run would train on: classes, lengths, what is odd
  baseline [RECIPE.yaml] [--data.FIELD VALUE ...]               what n-gram models reach on these data, in seconds
  curve [RECIPE.yaml] [--sizes 100,300,1000] --output DIR       which method for how many labels; whether more would help
  audit DATA [--output DIR]                                     labels that look wrong, copies, leaks, blank and odd rows
  audit DATA --apply FILE.json --output FILE                    write the data with the labels corrected in Label Studio
  evaluate RUN --data.path PATH [--data.split SPLIT]            measure a run on other labelled data
  evaluate RUN --checks [FILE.yaml]                             see whether negation, contrast, typos, names ... mislead it
  compare RUN RUN ... [--split SPLIT] [--output FILE.html]      paired differences of runs on the same examples
  predict RUN TEXT [TEXT ...] [--json]                          answer texts
  predict RUN --input FILE --output FILE                        answer a csv, jsonl, parquet, xlsx ... file; - is a pipe
  predict RUN --question TEXT --context FILE                    answer a question from a text
  predict RUN [--json] < FILE                                   answer a text a line
  explain RUN TEXT [--method METHOD] [--output FILE.html]       which words, or sentences, an answer comes from
  score RUN INPUT --output DIR                                  answer tables of any size, resumably, on one machine or many
  serve [NAME=]RUN ... [--host HOST] [--port N]                 answer over HTTP, with one run or many on one encoder
  export RUN --to merged --output DIR                           one plain Transformers model, nothing beside it needed
  export RUN --to onnx|onnx-int8|openvino --output DIR          a graph for ONNX Runtime or OpenVINO, without PyTorch
  export RUN --to transformersjs --output DIR                   the same for the browser and Node
  encoder embedded --output DIR                                 write the embedded encoder as a Transformers folder

options of every command, at any place:
  --threads N     compute on N threads instead of one per core
  --quiet         hide progress and notes
  --task-file F   import the Python file F first, which registers a task of your own
  --help          what the command takes, with defaults
  --version       before the command: print the version

recipes/ holds commented settings for train; docs/configuration.md lists them all.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Errors meant for the user are one line on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    was_quiet = progress.is_quiet()
    try:
        code = _run(words)
        sys.stdout.flush()  # what cannot be written is reported here, not by the interpreter at its end
        return code
    except DistiloraError as error:
        # a stopped run is reported by the first of its processes
        if not isinstance(error, Interrupted) or os.environ.get("RANK", "0") == "0":
            sys.stderr.write(" ".join(["distilora:", *str(error).splitlines()]) + "\n")
        return error.exit_code
    except KeyboardInterrupt:
        print("\ndistilora: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away
        _discard_output()
        return 141
    except OSError as error:  # other files have errors of their own
        if error.filename is not None or not _is_stuck(sys.stdout):
            raise
        _discard_output()
        sys.stderr.write(f"distilora: standard output: {error.strerror or error}; send it to another place\n")
        return 2
    finally:
        progress.quiet(was_quiet)  # a caller from Python is not quiet for ever


def _run(words: list[str]) -> int:
    everywhere = take_everywhere(words)
    words = everywhere.words
    if everywhere.quiet:
        progress.quiet()
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if words else 2
    command, *words = words
    if command == "--version":
        print(f"distilora {__version__}")
        return 0
    if command not in COMMANDS:
        raise _no_command(command)
    if everywhere.threads is not None:
        from distilora.hardware import use_threads

        words += _as_setting(everywhere.threads, words) if command in ("train", "curve") else []
        use_threads(everywhere.threads)  # before anything that has threads is loaded
    if everywhere.task_file is not None:
        from distilora.tasks.file import use_task_file

        use_task_file(everywhere.task_file)
    module = importlib.import_module(f"distilora.cli.{command}")
    code: int = getattr(module, f"{command}_command")(words)
    return code


def _no_command(word: str) -> ConfigError:
    names = ", ".join(COMMANDS)
    if word.startswith("-"):
        return ConfigError(f"{word}: the command comes first (distilora COMMAND ...); there are {names}")
    meant = nearest(word, COMMANDS)
    return ConfigError(f"{word}: no such command; " + (f"did you mean {meant}?" if meant else f"there are {names}"))


def _as_setting(threads: int, words: list[str]) -> list[str]:
    """Return the setting that `--threads` is short for in training, which records it."""
    if any(word.split("=", 1)[0] == "--training.threads" for word in words):
        raise ConfigError("--threads: given beside --training.threads, which is the same; drop one of the two")
    return [f"--training.threads={threads}"]


def _is_stuck(stream: TextIO) -> bool:
    """Test whether a stream takes no more. What it refused may be gone from its buffer, so a newline is tried."""
    try:
        stream.write("\n")
        stream.flush()
    except OSError:
        return True
    return False


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
