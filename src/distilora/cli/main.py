"""The command `distilora`. Parses arguments, calls one function, prints; heavy imports wait until they are needed."""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from distilora import progress
from distilora.cli.arguments import EVALUATE_OPTIONS, TRAIN_OPTIONS, Parser, add_run, take_everywhere
from distilora.config.hints import nearest
from distilora.errors import ConfigError, DistiloraError, Interrupted
from distilora.version import __version__

if TYPE_CHECKING:
    from distilora.config.schema import RunConfig

USAGE = """usage: distilora COMMAND ...

Fine-tunes a small text encoder with LoRA, measures it honestly, and predicts with it.

commands:
  train [RECIPE.yaml] [--STAGE.FIELD VALUE ...] [--overwrite]   train, evaluate, report into a run's folder
  train --resume RUN                                            go on with a run that was stopped
  train ... --dry-run                                           check everything, say what would be trained and for how long
  evaluate RUN --data.path PATH [--data.split SPLIT]            measure a run on other labelled data
  predict RUN TEXT [TEXT ...] [--json]                          answer texts
  predict RUN --input FILE --output FILE                        answer a csv, jsonl, parquet, xlsx ... file; - is a pipe
  predict RUN [--json] < FILE                                   answer a text a line
  explain RUN TEXT [--method METHOD] [--output FILE.html]       which words, or sentences, an answer comes from
  score RUN INPUT --output DIR                                  answer tables of any size, resumably, on one machine or many
  export RUN --to merged --output DIR                           one plain Transformers model, nothing beside it needed
  export RUN --to onnx|onnx-int8|transformersjs --output DIR    a graph for ONNX Runtime, or for the browser and Node
  encoder embedded --output DIR                                 write the embedded encoder as a Transformers folder

options of every command, at any place:
  --threads N     compute on N threads instead of one per core
  --quiet         hide progress and notes
  --task-file F   import the Python file F first, which registers a task of your own
  --help          what the command takes, with defaults
  --version       before the command: print the version

recipes/ holds commented settings for train; docs/configuration.md lists them all.
"""
TRAIN_USAGE = (
    "distilora train [RECIPE.yaml] [--STAGE.FIELD VALUE ...] [--overwrite] [--dry-run] | --resume RUN [--dry-run]"
)
EVALUATE_USAGE = "distilora evaluate RUN --data.path PATH [--data.split SPLIT] [--STAGE.FIELD VALUE ...]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. Errors meant for the user are one line on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    was_quiet = progress.is_quiet()
    try:
        everywhere = take_everywhere(words)
        words = everywhere.words
        if everywhere.quiet:
            progress.quiet()
        if not words or words[0] in ("-h", "--help", "help"):
            print(USAGE, end="")
            return 0 if words else 2
        if words[0] == "--version":
            print(f"distilora {__version__}")
            return 0
        commands: dict[str, Callable[[list[str]], int]] = {
            "train": _train,
            "evaluate": _evaluate,
            "predict": _predict,
            "explain": _explain,
            "score": _score,
            "export": _export,
            "encoder": _encoder,
        }
        if words[0] not in commands:
            raise _no_command(words[0], list(commands))
        if everywhere.threads is not None:
            from distilora.hardware import use_threads

            words += _as_setting(everywhere.threads, words) if words[0] == "train" else []
            use_threads(everywhere.threads)  # before anything that has threads is loaded
        if everywhere.task_file is not None:
            from distilora.tasks.file import use_task_file

            use_task_file(everywhere.task_file)
        code = commands[words[0]](words[1:])
        sys.stdout.flush()  # what cannot be written is told here, not by the interpreter at its end
        return code
    except DistiloraError as error:
        told = isinstance(error, Interrupted) and os.environ.get("RANK", "0") != "0"  # by the first process of the run
        if not told:
            sys.stderr.write(" ".join(["distilora:", *str(error).splitlines()]) + "\n")
        return error.exit_code
    except KeyboardInterrupt:
        print("\ndistilora: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # what is written elsewhere has errors of its own
        if error.filename is not None or not _is_stuck(sys.stdout):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stderr.write(f"distilora: standard output: {error.strerror or error}; send it to another place\n")
        return 2
    finally:
        progress.quiet(was_quiet)  # a caller from Python is not quiet for ever


def _no_command(word: str, commands: list[str]) -> ConfigError:
    if word.startswith("-"):
        return ConfigError(f"{word}: the command comes first (distilora COMMAND ...); there are {', '.join(commands)}")
    meant = nearest(word, commands)
    hint = f"; did you mean {meant}?" if meant else f"; there are {', '.join(commands)}"
    return ConfigError(f"{word}: no such command{hint}")


def _as_setting(threads: int, words: list[str]) -> list[str]:
    """The setting that `--threads` is short for in training, which keeps it."""
    if any(word.split("=", 1)[0] == "--training.threads" for word in words):
        raise ConfigError("--threads: given beside --training.threads, which is the same; drop one of the two")
    return [f"--training.threads={threads}"]


def _is_stuck(stream: TextIO) -> bool:
    """Whether a stream takes no more. What it refused may be gone from its buffer, so the end of a line is tried."""
    try:
        stream.write("\n")
        stream.flush()
    except OSError:
        return True
    return False


def _train(words: list[str]) -> int:
    from distilora.config.parse import parse, read_recipe
    from distilora.config.schema import RunConfig

    if "-h" in words or "--help" in words:
        from distilora.config.descriptions import help_text

        print(help_text(RunConfig, TRAIN_USAGE, TRAIN_OPTIONS))
        return 0
    overwrite, dry = "--overwrite" in words, "--dry-run" in words
    words = [word for word in words if word not in ("--overwrite", "--dry-run")]
    resume = any(word.split("=")[0] == "--resume" for word in words)
    if resume:
        config = _resumed(words)
        if overwrite:
            raise ConfigError("--overwrite: given with --resume, which goes on with what is there; drop one of the two")
    else:
        from distilora.runs.resolve import check_given

        recipe = {}
        if words and not words[0].startswith("-"):
            recipe = read_recipe(words[0])
            words = words[1:]
        config = parse(RunConfig, words, recipe, options=TRAIN_OPTIONS)
        check_given(config, {word[2:].split("=")[0] for word in words if word.startswith("--")}, recipe)
    _needs_extra()
    from distilora.runs.preflight import check_run  # before anything imports torch, which takes seconds

    checked = check_run(config, overwrite=overwrite, resume=resume)
    if dry:
        from distilora.runs.dry_run import dry_run

        lines = dry_run(config, checked, overwrite=overwrite, resume=resume)
        _print_table(f"{config.output}: nothing is trained or written (--dry-run)", list(lines.items()))
        return 0
    from distilora.runs.run import train

    return _finish((config.output, train(config, overwrite=overwrite, resume=resume, checked=checked)))


def _resumed(words: list[str]) -> "RunConfig":
    parser = Parser(prog="distilora train", add_help=False)
    parser.add_argument("--resume", required=True)
    parser.add_argument("--training.threads", dest="threads", type=int)
    args, more = parser.parse_known_args(words)
    if more:
        raise ConfigError(
            f"--resume: {' '.join(more)} given, but a resumed run keeps its settings; drop it, or start another run"
        )
    from distilora.runs.resolve import resume_config

    return resume_config(args.resume, args.threads)


def _needs_extra() -> None:
    import importlib.util

    from distilora.errors import MissingExtra

    for package in ("torch", "transformers", "peft", "accelerate", "sklearn", "matplotlib", "jinja2"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "train")


def _finish(done: tuple[str, dict[str, Any]]) -> int:
    folder, summary = done
    if not summary:  # another process of this run writes it
        return 0
    first = summary["evaluations"][0]
    costs, counted = summary["costs"], summary["parameters"]
    rows: list[tuple[str, str]] = []
    rows.append(("time", f"{costs['wall_s'] / 60:.1f} minutes"))
    from distilora.runs.outcome import memory_rows

    rows += memory_rows(costs)
    rows.append(("trainable parameters", f"{counted['trained']:,} of {counted['total']:,} ({counted['share']:.1%})"))
    print()
    _print_evaluation(
        f"{folder}: {first['split']}, {first['examples']:,} examples (95% intervals)", summary["task"], first, rows
    )
    for note in summary["notes"]:
        print(f"note: {note}")
    print(f"\nThe report: {folder}/report.html\nNext:")
    folder = shlex.quote(folder)
    print(f'  distilora predict {folder} "A slow start, but the last hour is superb."')
    print(f"  distilora predict {folder} --input reviews.csv --output scored.parquet")
    print(f"  distilora evaluate {folder} --data.path DIR_OR_FILE --data.split test")
    print(f"  distilora export {folder} --to merged --output {folder}-merged")
    return 0


def _print_evaluation(title: str, task: str, evaluation: dict[str, Any], more: Sequence[tuple[str, str]] = ()) -> None:
    from distilora.evaluation.table import metric_rows
    from distilora.tasks.registry import find_task

    if evaluation.get("verdict"):
        print(f"{evaluation['verdict']}\n")
    _print_table(title, [*metric_rows(evaluation), *more])
    for line in find_task(task).lines(evaluation):
        print(line)


def _print_table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    print(title)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")


def _evaluate(words: list[str]) -> int:
    from distilora.config.parse import parse
    from distilora.config.schema import MeasureConfig

    if "-h" in words or "--help" in words:
        from distilora.config.descriptions import help_text

        print(help_text(MeasureConfig, EVALUATE_USAGE, EVALUATE_OPTIONS))
        return 0
    if not words or words[0].startswith("-"):
        raise ConfigError(f"RUN: the run's folder comes first; usage: {EVALUATE_USAGE}")
    if len(words) > 1 and not words[1].startswith("-"):
        raise ConfigError(
            f"{words[1]}: say what it is; labelled data is given with --data.path {shlex.quote(words[1])}"
        )
    config = parse(MeasureConfig, words[1:], options=EVALUATE_OPTIONS)
    if not config.data.path:
        raise ConfigError("data.path: nothing given; name the labelled data with --data.path")
    from distilora.evaluation.evaluate import evaluate

    summary, folder = evaluate(words[0], config)
    found = summary["evaluation"]
    _print_evaluation(
        f"{words[0]} on {summary['source']}, {found['split']}: {found['examples']:,} examples (95% intervals)",
        summary["task"],
        found,
    )
    print(f"\nThe report: {folder}/report.html")
    return 0


def _predict(words: list[str]) -> int:
    from distilora.cli.predict import predict_command

    return predict_command(words)


def _score(words: list[str]) -> int:
    from distilora.cli.score import score_command

    return score_command(words)


def _explain(words: list[str]) -> int:
    from distilora.cli.explain import explain_command

    return explain_command(words)


def _export(words: list[str]) -> int:
    parser = Parser(prog="distilora export", description="Writes a finished run's model in another form.")
    add_run(parser)
    parser.add_argument("--to", choices=["merged", "onnx", "onnx-int8", "transformersjs"], required=True,
                        help="merged: a Transformers folder; onnx: a graph for ONNX Runtime, onnx-int8: the same in 8 bits; "
                        "transformersjs: both, as Transformers.js wants them")  # fmt: skip
    parser.add_argument("--output", metavar="DIR", required=True, type=Path, help="folder to write; must not exist")
    parser.add_argument("--held-out", metavar="PATH",
                        help="labelled texts for the parity gate (default: the run's validation texts)")  # fmt: skip
    parser.add_argument("--accept-loss", action="store_true", help="write it though it does not pass the gate")
    parser.add_argument("--encoder", help="where the run's encoder lies now, if not where it lay in training")
    args = parser.parse_args(words)
    _needs_extra()
    from distilora.export.export import export_run

    artifact = export_run(
        args.run, args.to, args.output, encoder=args.encoder, held_out=args.held_out, accept_loss=args.accept_loss
    )
    _print_table(*_parity_table(args.output, artifact.parity))
    how = {
        "merged": "distilora, and with Transformers: from_pretrained, pipeline(..., truncation=True)",
        "transformersjs": "distilora, and with Transformers.js: pipeline('text-classification', DIR, {dtype: 'q8'})",
    }.get(args.to, "distilora, and with ONNX Runtime: input_ids, attention_mask -> logits")
    print(f"\n{args.output}: loads with {how}")
    return 0


def _parity_table(folder: Path, parity: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    rows = [
        (
            name + (" (default)" if name == parity["default"] else ""),
            f"{found['texts_per_s']:,.1f} texts/s"
            + ("" if found["agreement"] is None else f", {found['agreement']:.2%} of the labels as in fp32")
            + f", {parity['metric']} {found[parity['metric']]:.2%} (fp32 {parity['fp32']:.2%})"
            + ("" if found["passed"] else ": does not pass"),
        )
        for name, found in parity["candidates"].items()
    ]
    return f"{folder}: {parity['held_out']}, {parity['texts']:,} texts", rows


def _encoder(words: list[str]) -> int:
    parser = Parser(prog="distilora encoder", description="Writes the embedded encoder as a Transformers folder.")
    parser.add_argument("name", choices=["embedded"])
    parser.add_argument("--output", metavar="DIR", required=True, type=Path)
    args = parser.parse_args(words)
    _needs_extra()
    from distilora.model.encoders.find import write_embedded

    write_embedded(args.output)
    print(f"{args.output}: DistilBERT layout, loads with AutoModel.from_pretrained")
    return 0
