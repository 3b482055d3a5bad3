"""The command `distilora encoder`: writes the embedded encoder as a Transformers folder."""

from collections.abc import Sequence
from pathlib import Path

from distilora.cli.arguments import Parser, require_train_extra


def encoder_command(words: Sequence[str]) -> int:
    """Write the encoder to a new folder; return the exit code."""
    parser = Parser(prog="distilora encoder", description="Writes the embedded encoder as a Transformers folder.")
    parser.add_argument("name", choices=["embedded"])
    parser.add_argument("--output", metavar="DIR", required=True, type=Path)
    args = parser.parse_args(words)
    require_train_extra()
    from distilora.model.encoders.find import write_embedded

    write_embedded(args.output)
    print(f"{args.output}: DistilBERT layout, loads with AutoModel.from_pretrained")
    return 0
