"""The command `distilora compare`: compares finished runs, or evaluations, on the same examples."""

import json
from argparse import Namespace
from collections.abc import Sequence

from distilora.cli.arguments import Parser
from distilora.errors import ConfigError


def compare_command(words: Sequence[str]) -> int:
    """Compare runs as the arguments say and print or write the result; return the exit code."""
    about = "Compares finished runs with the first of them, on the same examples: paired differences, McNemar's test, texts."
    parser = Parser(prog="distilora compare", description=about)
    parser.add_argument("runs", metavar="RUN", nargs="+",
                        help="folder of a finished run, or one that distilora evaluate wrote; two or more")  # fmt: skip
    parser.add_argument(
        "--split", metavar="NAME", help="split to compare on, such as validation (default: the final test)"
    )
    parser.add_argument("--examples", metavar="N", type=int, default=20,
                        help="wins, and losses, that are shown with their texts (default: 20)")  # fmt: skip
    parser.add_argument("--resamples", metavar="N", type=int, default=1000,
                        help="resamples behind the 95%% intervals (default: 1000)")  # fmt: skip
    parser.add_argument("--output", metavar="FILE", help=".html or .json; written whole or not at all")
    parser.add_argument("--overwrite", action="store_true", help="replace the output file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_intermixed_args(words)
    if len(args.runs) < 2:
        raise ConfigError("RUN: one given, two or more are compared; name another")
    if args.json and args.output:
        raise ConfigError("--json: prints, --output writes; give one of them (FILE.json is the same JSON)")
    with parser.naming_options(words):
        return _compare(args)


def _compare(args: Namespace) -> int:
    from distilora.evaluation.compare import compare
    from distilora.evaluation.comparison import check_output, lines, write_comparison
    from distilora.files.output import check_free

    if args.output:
        check_output(args.output)
        check_free(args.output, args.overwrite)
    comparison = compare(args.runs, split=args.split, resamples=args.resamples, examples=args.examples)
    if args.json:
        print(json.dumps(comparison.record(), ensure_ascii=False))
        return 0
    print("\n".join(lines(comparison)))
    if args.output:
        write_comparison(comparison, args.output)
        print(f"\nWritten: {args.output}")
    return 0
