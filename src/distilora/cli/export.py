"""The command `distilora export`: writes a finished run's model in another form and prints its parity with the run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distilora.cli.arguments import Parser, add_run, require_train_extra

LOADERS = {
    "merged": "distilora, and with Transformers: from_pretrained, pipeline(..., truncation=True)",
    "onnx": "distilora, and with ONNX Runtime: input_ids, attention_mask -> logits",
    "onnx-int8": "distilora, and with ONNX Runtime: input_ids, attention_mask -> logits",
    "openvino": "distilora, and with OpenVINO: input_ids, attention_mask -> logits",
    "transformersjs": "distilora, and with Transformers.js: pipeline('text-classification', DIR, {dtype: 'q8'})",
}
FINISHED = "distilora; Transformers' from_pretrained loads it, too, but its logits are not yet the answers of this task"


def export_command(words: Sequence[str]) -> int:
    """Export as the arguments say and print the parity table; return the exit code."""
    parser = Parser(prog="distilora export", description="Writes a finished run's model in another form.")
    add_run(parser)
    parser.add_argument("--to", choices=list(LOADERS), required=True,
                        help="merged: a Transformers folder; onnx: a graph for ONNX Runtime, onnx-int8: the same in 8 bits; "
                        "openvino: a graph for OpenVINO, in 8 bits if its answers allow it; "
                        "transformersjs: both, in the layout of Transformers.js")  # fmt: skip
    parser.add_argument("--output", metavar="DIR", required=True, type=Path, help="folder to write; must not exist")
    parser.add_argument("--held-out", metavar="PATH",
                        help="labelled texts for the parity gate (default: the run's validation texts)")  # fmt: skip
    parser.add_argument("--accept-loss", action="store_true", help="write the model even if it fails the gate")
    parser.add_argument("--encoder", help="path of the run's encoder, if it has moved since training")
    args = parser.parse_args(words)
    require_train_extra()
    from distilora.export.preflight import check_export

    check_export(args.run, args.to, args.output)  # before anything imports torch, which takes seconds
    from distilora.cli.console import print_table
    from distilora.export.export import export_run
    from distilora.tasks.registry import restore

    artifact = export_run(
        args.run, args.to, args.output, encoder=args.encoder, held_out=args.held_out, accept_loss=args.accept_loss
    )
    print_table(
        f"{args.output}: {artifact.parity['held_out']}, {artifact.parity['texts']:,} texts",
        _parity_rows(artifact.parity),
    )
    task = restore(artifact.task["name"], artifact.task["settings"])
    print(f"\n{args.output}: loads with {FINISHED if args.to == 'merged' and task.finished else LOADERS[args.to]}")
    return 0


def _parity_rows(parity: dict[str, Any]) -> list[tuple[str, str]]:
    """List the candidates of an export as pairs (name, its speed and its agreement with fp32)."""
    from distilora.tasks.metrics.names import metric_text

    rows, metric = [], parity["metric"]
    for name, candidate in parity["candidates"].items():
        agreement = candidate["agreement"]
        row = f"{candidate['texts_per_s']:,.1f} texts/s"
        row += "" if agreement is None else f", {agreement:.2%} of the answers as in fp32"
        ours, original = (metric_text(metric, {"value": value}) for value in (candidate[metric], parity["fp32"]))
        row += f", {metric} {ours} (fp32 {original})"
        row += "" if candidate["passed"] else ": does not pass"
        rows.append((f"{name} (default)" if name == parity["default"] else name, row))
    return rows
