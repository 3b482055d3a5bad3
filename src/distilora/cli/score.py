"""The command `distilora score`: scores tables of any size into shards, resumably."""

from collections.abc import Sequence

from distilora.cli.arguments import Parser, add_answering, add_run


def score_command(words: Sequence[str]) -> int:
    """Score as the arguments say and print the counts and the speed; return the exit code."""
    about = (
        "Scores tables of any size into a folder of shards, rows in order. "
        "Repeated after a kill, the same command continues where it stopped."
    )
    parser = Parser(prog="distilora score", description=about)
    add_run(parser)
    parser.add_argument(
        "source",
        metavar="INPUT",
        help="parquet, csv, tsv, jsonl, json, xlsx or txt: a file, a folder, a glob in quotes, "
        "or an address such as s3://bucket/in/*.csv",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        required=True,
        help="folder or address of the shards; new, or begun by the same command",
    )
    parser.add_argument("--text-column", metavar="NAME", help="column of the text (default: found by its name)")
    parser.add_argument(
        "--separator", metavar="C", help="between the cells of a csv or tsv, such as ';' or tab (default: found)"
    )
    parser.add_argument("--limit", metavar="N", type=int, help="score only the first N rows (default: all)")
    parser.add_argument("--shard-rows", metavar="N", type=int, default=50_000, help="rows per shard (default: 50000)")
    parser.add_argument("--format", dest="kind", choices=["parquet", "csv", "jsonl"], default="parquet",
                        help="format of the shards (default: parquet)")  # fmt: skip
    parser.add_argument("--engine", choices=["local", "ray"], default="local",
                        help="ray: workers of a cluster, or of one started here (default: local)")  # fmt: skip
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="the Ray cluster; auto: the one running here (default: start one)"
    )
    parser.add_argument("--workers", metavar="N", type=int, help="processes of the ray engine (default: 2)")
    parser.add_argument("--overwrite", action="store_true", help="score anew into a folder that holds scores")
    add_answering(parser)
    args = parser.parse_args(words)
    from distilora.scoring.score import Scoring, score

    with parser.naming_options(words):
        counts = score(Scoring(**vars(args)))
    new_rows = counts["rows"] + counts["rejects"] - counts["resumed"]
    rejects = f", {counts['rejects']:,} rejects (rejects.jsonl)" if counts["rejects"] else ""
    print(f"{args.output}: {counts['rows']:,} rows in {counts['shards']:,} shards{rejects}")
    if new_rows:
        speed = new_rows / counts["seconds"]
        print(f"{new_rows:,} rows in {counts['seconds']:,.1f} s: {speed:,.1f} rows/s, start included")
    else:
        print("nothing was left to do")
    return 0
