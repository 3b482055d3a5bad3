"""The command `distilora`. Parses arguments, calls one function, prints; heavy imports wait until they are needed."""

import errno
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distilora import __version__
from distilora.arguments import Parser, add_answering, add_run
from distilora.errors import ConfigError, DistiloraError, Interrupted

USAGE = """usage: distilora COMMAND ...

Fine-tunes a small text encoder with LoRA, measures it honestly, and predicts with it.

commands:
  train [RECIPE.yaml] [--STAGE.FIELD VALUE ...] [--overwrite]   train, evaluate, report into a run's folder
  train --resume RUN                                            go on with a run that was stopped
  evaluate RUN --data.path PATH [--data.split SPLIT]            measure a run on other labelled data
  predict RUN TEXT [TEXT ...] [--json]                          answer texts
  predict RUN --input FILE --output FILE                        answer a csv, tsv, jsonl, parquet or txt file; - is stdin
  explain RUN TEXT [--method METHOD] [--output FILE.html]       which words, or sentences, an answer comes from
  score RUN INPUT --output DIR                                  answer tables of any size, resumably, on one machine or many
  export RUN --to merged --output DIR                           one plain Transformers model, nothing beside it needed
  export RUN --to onnx|onnx-int8|transformersjs --output DIR    a graph for ONNX Runtime, or for the browser and Node
  encoder embedded --output DIR                                 write the embedded encoder as a Transformers folder

  distilora COMMAND --help lists a command's settings; recipes/ holds commented examples.
  --quiet before the command hides progress; --version prints the version.
"""
TRAIN_USAGE = "distilora train [RECIPE.yaml] [--STAGE.FIELD VALUE ...] [--overwrite] | --resume RUN"
EVALUATE_USAGE = "distilora evaluate RUN --data.path PATH [--data.split SPLIT] [--STAGE.FIELD VALUE ...]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. Errors meant for the user are one line on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words and words[0] == "--quiet":
            from distilora.progress import quiet

            quiet()
            words = words[1:]
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
            raise ConfigError(f"{words[0]}: no such command; there are {', '.join(commands)}")
        return commands[words[0]](words[1:])
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
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stderr.write("distilora: standard output: no space left; send it to another place\n")
        return 2


def _train(words: list[str]) -> int:
    from distilora.config import RunConfig
    from distilora.settings import help_text, parse, read_recipe

    if "-h" in words or "--help" in words:
        print(help_text(RunConfig, TRAIN_USAGE))
        return 0
    overwrite = "--overwrite" in words
    words = [word for word in words if word != "--overwrite"]
    if "--resume" in words or any(word.startswith("--resume=") for word in words):
        _needs_extra()
        return _finish(_resumed(words))
    recipe = {}
    if words and not words[0].startswith("-"):
        recipe = read_recipe(words[0])
        words = words[1:]
    config = parse(RunConfig, words, recipe)
    _needs_extra()
    from distilora.run import train

    return _finish((config.output, train(config, overwrite=overwrite)))


def _resumed(words: list[str]) -> tuple[str, dict[str, Any]]:
    parser = Parser(prog="distilora train", add_help=False)
    parser.add_argument("--resume", required=True)
    args, more = parser.parse_known_args(words)
    if more:
        raise ConfigError(
            f"--resume: {' '.join(more)} given, but a resumed run keeps its settings; drop it, or start another run"
        )
    folder = args.resume
    from distilora.resolve import resume_config
    from distilora.run import train

    return folder, train(resume_config(folder), resume=True)


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
    rows = _metric_rows(first)
    rows.append(("time", f"{costs['wall_s'] / 60:.1f} minutes"))
    from distilora.outcome import memory_rows

    rows += memory_rows(costs)
    rows.append(("trainable parameters", f"{counted['trained']:,} of {counted['total']:,} ({counted['share']:.1%})"))
    print()
    _print_table(f"{folder}: {first['split']}, {first['examples']:,} examples (95% intervals)", rows)
    for note in summary["notes"]:
        print(f"note: {note}")
    print(f"\nThe report: {folder}/report.html\nNext:")
    folder = shlex.quote(folder)
    print(f'  distilora predict {folder} "A slow start, but the last hour is superb."')
    print(f"  distilora predict {folder} --input reviews.csv --output scored.parquet")
    print(f"  distilora evaluate {folder} --data.path DIR_OR_FILE --data.split test")
    print(f"  distilora export {folder} --to merged --output {folder}-merged")
    return 0


def _metric_rows(evaluation: dict[str, Any]) -> list[tuple[str, str]]:
    from distilora.report import METRICS, metric_text

    wanted = ("accuracy", "macro_f1", "auroc", "ece")
    metrics = evaluation["metrics"]
    names = [name for name in wanted if name in metrics] or list(metrics)
    return [(METRICS.get(name, (name, ""))[0], metric_text(name, metrics[name])) for name in names]


def _print_table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    print(title)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")


def _evaluate(words: list[str]) -> int:
    from distilora.config import MeasureConfig
    from distilora.settings import help_text, parse

    if "-h" in words or "--help" in words:
        print(help_text(MeasureConfig, EVALUATE_USAGE))
        return 0
    if not words or words[0].startswith("-"):
        raise ConfigError(f"RUN: the run's folder comes first; usage: {EVALUATE_USAGE}")
    config = parse(MeasureConfig, words[1:])
    if not config.data.path:
        raise ConfigError("data.path: nothing given; name the labelled data with --data.path")
    from distilora.evaluation import evaluate

    summary, folder = evaluate(words[0], config)
    found = summary["evaluation"]
    _print_table(f"{words[0]} on {summary['source']}, {found['split']}: {found['examples']:,} examples (95% intervals)",
                 _metric_rows(found))  # fmt: skip
    print(f"\nThe report: {folder}/report.html")
    return 0


def _predict(words: list[str]) -> int:
    parser = Parser(prog="distilora predict", description="Answers texts, or a table of them, with a finished run.")
    add_run(parser)
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="texts to answer")
    parser.add_argument("--input", metavar="FILE", help="csv, tsv, jsonl, parquet or txt (a text a line); - is stdin")
    parser.add_argument("--output", metavar="FILE", help="csv, tsv, jsonl or parquet; appears when it is whole")
    parser.add_argument(
        "--input-format", choices=["csv", "tsv", "jsonl", "txt"], help="of standard input (default: txt)"
    )
    parser.add_argument("--text-column", metavar="NAME", help="column of the text, where its name does not tell")
    parser.add_argument("--strict", action="store_true", help="a blank text is an error, not an empty answer")
    add_answering(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object for each text")
    args = parser.parse_intermixed_args(words)  # a text may follow an option
    if bool(args.texts) == bool(args.input):
        raise ConfigError('predict: give either texts ("A fine film.") or --input FILE --output FILE')
    if bool(args.input) != bool(args.output):
        raise ConfigError("predict: --input and --output go together; give both")

    from distilora.predict import load, predict_table
    from distilora.tables import TableWriter, format_of

    if args.input:
        TableWriter(args.output)  # refuses what cannot be written before the model is loaded
        if args.input != "-":
            format_of(args.input)
            if not Path(args.input).is_file():
                raise ConfigError(f"--input: no such file: {args.input}; check the path")
            if Path(args.output).exists() and Path(args.output).samefile(args.input):
                raise ConfigError("--output: the same file as --input; give another name")
    predictor = load(args.run, args.precision, args.device, args.encoder, args.base, args.abstain_below, args.backend)
    if args.input:
        counts = predict_table(
            predictor,
            args.input,
            args.output,
            input_format=args.input_format,
            text_column=args.text_column,
            strict=args.strict,
        )
        blank = f", {counts['blank']:,} of them blank and without an answer" if counts["blank"] else ""
        print(f"{args.output}: {counts['rows']:,} rows{blank}")
        return 0
    for text, answer in zip(args.texts, predictor(args.texts), strict=True):
        print(json.dumps({"text": text, **answer}, ensure_ascii=False) if args.json else _answer_line(answer))
    return 0


def _score(words: list[str]) -> int:
    from distilora.score_command import score_command

    return score_command(words)


def _answer_line(answer: dict[str, Any]) -> str:
    if "label" not in answer:
        return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in answer.items())
    shares = sorted(((p, n[2:]) for n, p in answer.items() if n.startswith("p_")), reverse=True)
    line = f"{answer['label']}  " + "  ".join(f"{name} {p:.1%}" for p, name in shares)
    line += "  (abstains)" if answer["abstain"] else ""
    return line + ("  (longer than the model reads: cut)" if answer["truncated"] else "")


def _explain(words: list[str]) -> int:
    from distilora.explain_command import explain_command

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
    from distilora.export import export_run

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
    from distilora.encoders import write_embedded

    write_embedded(args.output)
    print(f"{args.output}: DistilBERT layout, loads with AutoModel.from_pretrained")
    return 0
