"""The command `distilora explain`: explains the answer to one text, on the terminal or in a file."""

import json
from argparse import Namespace
from collections.abc import Sequence

from distilora.cli.arguments import Parser, add_loading, add_run
from distilora.errors import ConfigError


def explain_command(words: Sequence[str]) -> int:
    """Explain a text as the arguments say and print or write the result; return the exit code."""
    parser = Parser(prog="distilora explain", description="Explains the answer to a text: which words it comes from.")
    add_run(parser)
    parser.add_argument("texts", metavar="TEXT", nargs="+", help="the text whose answer is explained, in quotes")
    parser.add_argument("--method", choices=["leave-one-out", "integrated-gradients", "gradient-x-input"],
                        default="leave-one-out", help="the others need distilora[explain]")  # fmt: skip
    parser.add_argument("--level", choices=["word", "sentence"], default="word", help="unit that a weight is given to")
    parser.add_argument("--label", metavar="NAME", help="the label to explain (default: the one answered)")
    parser.add_argument("--steps", metavar="N", type=int, help="number of points on the path of integrated gradients")
    parser.add_argument("--output", metavar="FILE", help=".html or .json; written whole or not at all")
    parser.add_argument("--overwrite", action="store_true", help="replace the output file")
    parser.add_argument("--json", action="store_true", help="print JSON, with all words")
    parser.add_argument("--question", metavar="TEXT", help="the question, of which TEXT is the context")
    add_loading(parser)
    args = parser.parse_intermixed_args(words)
    text, *more = args.texts
    if more:
        raise ConfigError(
            f"TEXT: {len(args.texts)} given, one is explained at a time; put a text of several words in quotes"
        )
    if args.json and args.output:
        raise ConfigError("--json: prints, --output writes; give one of them (FILE.json is the same JSON)")

    with parser.naming_options(words):
        return _explain(args, text)


def _explain(args: Namespace, text: str) -> int:
    from distilora.explanation.explain import check_choice, explain
    from distilora.explanation.page import check_output, table, write_explanation
    from distilora.files.output import check_free
    from distilora.inference.predictor import load

    check_choice(args.method, args.level, args.steps)  # before the model is loaded
    if args.output:
        check_output(args.output)
        check_free(args.output, args.overwrite)
    predictor = load(
        args.run, args.precision, args.device, args.encoder, args.base, backend=args.backend, lexicon=args.lexicon
    )
    record = text if args.question is None else {"question": args.question, "context": text}
    explanation = explain(predictor, record, args.method, args.level, args.label, args.steps)
    if args.output:
        write_explanation(explanation, args.output)
        cut = f", {explanation.cut:,} of them cut off unread" if explanation.cut else ""
        print(f"{args.output}: {explanation.answered}, {len(explanation.parts):,} {args.level}s{cut}")
        return 0
    print(json.dumps(explanation.record(), ensure_ascii=False) if args.json else table(explanation))
    return 0
