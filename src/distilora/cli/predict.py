"""The command `distilora predict`: answers texts, a table or standard input, on the terminal, into a file or into a pipe.

Wherever standard output may be a pipe it holds answers and nothing else.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilora.cli.arguments import Parser, add_answering, add_run
from distilora.errors import ConfigError
from distilora.files.separators import separator_from
from distilora.progress import say

if TYPE_CHECKING:
    from distilora.inference.predictor import Predictor
    from distilora.tasks.base import Task

MOST_SHOWN = 8  # labels of an answer on the terminal
WAYS = (
    'predict: give either texts ("A fine film."), or --input FILE --output FILE, or texts on standard input, one a line'
)


def predict_command(words: Sequence[str]) -> int:
    """Answer as the arguments say; return the exit code."""
    parser = Parser(prog="distilora predict", description="Answers texts, or a table of them, with a finished run.")
    add_run(parser)
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="texts to answer (default: lines of standard input)")
    parser.add_argument(
        "--input", metavar="FILE",
        help="csv, tsv, jsonl, json, parquet, xlsx or txt (one text a line), also .csv.gz, .jsonl.zst ...; - is standard input",
    )  # fmt: skip
    parser.add_argument(
        "--output", metavar="FILE", help="csv, tsv, jsonl or parquet, written whole or not at all; - is standard output"
    )
    parser.add_argument(
        "--input-format", choices=["csv", "tsv", "jsonl", "json", "txt"], help="format of standard input (default: txt)"
    )
    parser.add_argument(
        "--output-format", choices=["csv", "tsv", "jsonl"], help="format of standard output (default: jsonl)"
    )
    parser.add_argument(
        "--question", metavar="TEXT", action="append", help="question to answer from the --context; repeatable"
    )
    parser.add_argument("--context", metavar="FILE", help="text file that holds the answer; - is standard input")
    parser.add_argument(
        "--sentences", metavar="N", type=int, help="sentences of a summary (default: as the run's settings say)"
    )
    parser.add_argument(
        "--words", metavar="N", type=int, help="most words of a summary, which has one sentence at least"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output file")
    parser.add_argument("--text-column", metavar="NAME", help="column of the text (default: found by its name)")
    parser.add_argument(
        "--separator", metavar="C", help="between the cells of a csv or tsv, such as ';' or tab (default: found)"
    )
    parser.add_argument("--limit", metavar="N", type=int, help="answer only the first N rows or texts")
    parser.add_argument("--strict", action="store_true", help="a blank text is an error, not an empty answer")
    add_answering(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object for each text")
    args = parser.parse_intermixed_args(words)  # a text may follow an option
    _settle(args)
    with parser.naming_options(words):
        if args.input:
            _check_files(args)
        predictor = _load(args)
        code = _predict(predictor, args)
        if predictor.cascade is not None:
            say(f"note: {predictor.cascade.sentence()}")
        return code


def _load(args: Namespace) -> "Predictor":
    from distilora.inference.predictor import load

    predictor = load(
        args.run, args.precision, args.device, args.encoder, args.base, args.abstain_below, args.backend,
        lexicon=args.lexicon, abstain_error=args.abstain_error, cascade=args.cascade,
    )  # fmt: skip
    if args.sentences is not None or args.words is not None:
        predictor.task = _lengthened(predictor.task, args.sentences, args.words)
    return predictor


def _predict(predictor: "Predictor", args: Namespace) -> int:
    if args.question and predictor.task.name != "question_answering":
        raise ConfigError(f"--question: given, but task {predictor.task.name} answers no questions; drop it")
    if args.texts and predictor.task.name == "question_answering":
        raise ConfigError("predict: task question_answering answers --question TEXT from --context FILE; give both")
    if args.question:
        context = _context(args.context)
        asked = [{"question": question, "context": context} for question in args.question]
        for record, answer in zip(asked, predictor(asked, strict=True), strict=True):
            shown = {"question": record["question"], **answer}
            print(json.dumps(shown, ensure_ascii=False) if args.json else answer_line(answer))
        return 0
    if predictor.task.reads_documents and args.input and _is_text(args):
        if args.output not in (None, "-"):
            raise ConfigError(
                f"--output: a text file is one document of task {predictor.task.name}, which is printed; drop it, or give a table"
            )
        args.texts, args.json = [_context(args.input)], args.json or args.output == "-"
    if args.texts:
        texts = args.texts[: args.limit]
        for text, answer in zip(texts, predictor(texts, strict=args.strict), strict=True):
            print(json.dumps({"text": text, **answer}, ensure_ascii=False) if args.json else answer_line(answer))
        return 0
    from distilora.inference.table import answered, input_records, predict_table

    if not args.output:
        records = input_records(args.input, args.input_format, args.separator, args.limit)
        for rows in answered(predictor, records, args.text_column, args.strict):
            print(*(answer_line(row.answer) for row in rows), sep="\n", flush=True)
        return 0
    counts = predict_table(
        predictor, args.input, args.output, input_format=args.input_format, output_format=args.output_format or "jsonl",
        text_column=args.text_column, separator=args.separator, limit=args.limit, strict=args.strict,
    )  # fmt: skip
    blank = f", {counts['blank']:,} of them blank and without an answer" if counts["blank"] else ""
    if args.output == "-":
        say(f"standard output: {counts['rows']:,} rows{blank}")
    else:
        print(f"{args.output}: {counts['rows']:,} rows{blank}")
    return 0


def _lengthened(task: "Task", sentences: int | None, words: int | None) -> "Task":
    """Return the task for summaries of another length. Raises ConfigError for a task without."""
    from distilora.tasks.summarization import Summarization

    if not isinstance(task, Summarization):
        option = "--words" if sentences is None else "--sentences"
        raise ConfigError(f"{option}: given, but task {task.name} chooses no sentences; drop it")
    return task.with_length(sentences, words)


def _settle(args: Namespace) -> None:
    """Settle where texts come from and answers go. Raises ConfigError if arguments contradict each other."""
    if bool(args.question) != bool(args.context):
        given, missing = ("--question", "--context FILE") if args.question else ("--context", "--question TEXT")
        raise ConfigError(f"{given}: given without {missing}; give both")
    if args.question:
        if args.texts or args.input or args.output:
            raise ConfigError("--question: goes with --context alone; a table of questions is an --input")
        return
    if args.sentences is not None and args.words is not None:
        raise ConfigError("--words: given beside --sentences; drop one of the two")
    if not args.texts and args.input is None and _is_piped():
        args.input = "-"
    if bool(args.texts) == bool(args.input):
        raise ConfigError(WAYS)
    if args.texts and args.output:
        raise ConfigError("--output: goes with --input or standard input; with texts, use --json and redirect it")
    if args.json and args.output not in (None, "-"):
        raise ConfigError("--json: prints, --output writes; give one of them (FILE.jsonl is the same JSON)")
    if args.json and args.output_format not in (None, "jsonl"):
        raise ConfigError(f"--json: given with --output-format {args.output_format}; give one of them")
    if args.json and args.input:
        args.output = "-"
    if args.input not in (None, "-") and not args.output and not args.input.endswith(".txt"):
        raise ConfigError("predict: --input and --output go together; give both (--output - is standard output)")
    if args.output_format and args.output != "-":
        raise ConfigError("--output-format: goes with --output -; a file's name tells its format")
    if args.separator is not None:
        args.separator = separator_from(args.separator, "--separator")
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit: {args.limit} given, at least 1 wanted")


def _is_text(args: Namespace) -> bool:
    """Tell whether the input is a text file, or standard input that is one."""
    return (args.input_format or "txt") == "txt" if args.input == "-" else str(args.input).endswith(".txt")


def _context(name: str) -> str:
    """Read a text file, or standard input. Raises ConfigError if it cannot be read."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(f"{name}: cannot be read ({reason}); give a text file in UTF-8") from None


def _is_piped() -> bool:
    return sys.stdin is not None and not sys.stdin.isatty()


def _check_files(args: Namespace) -> None:
    """Refuse, before the model is loaded, an input that cannot be read and an output that cannot be written."""
    from distilora.files.output import check_free
    from distilora.files.tables import TableWriter
    from distilora.inference.table import input_records

    if args.output not in (None, "-"):
        TableWriter(args.output)
    if args.input != "-" and Path(args.input).is_dir():
        raise ConfigError(
            f"--input: {args.input} is a folder; answer its files with distilora score RUN {args.input} --output DIR"
        )
    input_records(args.input, args.input_format, args.separator)
    if args.input != "-" and not Path(args.input).is_file():
        raise ConfigError(f"--input: no such file: {args.input}; check the path")
    if args.output not in (None, "-"):
        if args.input != "-" and Path(args.output).exists() and Path(args.output).samefile(args.input):
            raise ConfigError("--output: the same file as --input; give another name")
        check_free(args.output, args.overwrite)
    peek = getattr(sys.stdin.buffer, "peek", None) if args.input == "-" else None
    if peek is not None and not peek(1):
        raise ConfigError(f"{WAYS} (there is none)")


def answer_line(answer: dict[str, Any]) -> str:
    """Format an answer for the terminal: its label, and the probability of each; a blank text has none."""
    if all(part is None for part in answer.values()):
        return "(blank: no answer)"
    if "spans" in answer:
        places, sentences = json.loads(answer["spans"]), answer["summary"].split("\n")
        return "\n".join(f"{start}-{end}  {text}" for (start, end), text in zip(places, sentences, strict=True))
    shares = sorted(((p, n[2:]) for n, p in answer.items() if n.startswith("p_")), reverse=True)
    if "label" in answer or "labels" in answer:
        line = f"{answer.get('label', answer.get('labels')) or '(no label)'}  "
    else:
        parts = {k: v for k, v in answer.items() if not k.startswith("p_") and k not in ("truncated", "abstain")}
        line = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in parts.items())
    line += "  ".join(f"{name} {p:.1%}" for p, name in shares[:MOST_SHOWN])
    line += f"  and {len(shares) - MOST_SHOWN:,} more" if len(shares) > MOST_SHOWN else ""
    line += "  (abstains)" if answer["abstain"] else ""
    return line + ("  (longer than the model reads: cut)" if answer["truncated"] else "")
