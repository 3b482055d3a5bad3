"""The reviews every contender reads: distilora's own parts of the embedded source, as JSON lines, and the encoder's folder.

FOLDER/train.jsonl  validation.jsonl  heldout.jsonl  encoder/
"""

import json
import subprocess
import sys
from pathlib import Path

from distilora.config.schema import DataConfig
from distilora.data.parts import read_parts
from distilora.data.sources import open_source
from distilora.tasks.classification import Classification


def prepare(folder: Path) -> Path:
    """Writes the parts, if they are not there: 1,000 reviews to validate on, a tenth held out, the rest to train on."""
    if (folder / "encoder").is_dir():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    config = DataConfig(path="embedded", labels=("negative", "positive"), test_split="heldout", validation_size=1000)
    parts = read_parts(config, Classification.from_source(config, open_source(config.path)))
    assert parts.read_test is not None
    for name, part in {"train": parts.train, "validation": parts.validation, "heldout": parts.read_test()}.items():
        lines = [json.dumps({"text": example.texts[0], "label": example.target}) for example in part.items]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    command = [
        str(Path(sys.executable).parent / "distilora"),
        "encoder",
        "embedded",
        "--output",
        str(folder / "encoder"),
    ]
    subprocess.run(command, check=True)
    return folder
