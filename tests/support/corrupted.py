"""Models with one changed weight, which their checksums do not give away."""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from distilora.artifact.format import sealed
from distilora.files.atomic import sha256

ADAPTER = "adapter/adapter_model.safetensors"


def corrupt(model: Path, value: float) -> None:
    """Add `value` to one weight of the head, and correct the checksums of the model's artifact.json, if it has one."""
    weights = load_file(model / ADAPTER)
    name = next(name for name in weights if name.endswith("classifier.bias"))
    weights[name][0] += value
    save_file(weights, model / ADAPTER, {"format": "pt"})
    path = model / "artifact.json"
    if path.exists():
        fields = json.loads(path.read_text())
        fields["files"][ADAPTER] = sha256(model / ADAPTER)
        path.write_text(json.dumps(sealed(fields)))
