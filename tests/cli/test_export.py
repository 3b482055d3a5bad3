"""`distilora export`: an export that is impossible is refused before torch is imported."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distilora.artifact.format import sealed
from distilora.errors import ArtifactError
from distilora.export import preflight

CODE = (
    "import sys; from distilora.cli.main import main; code = main(sys.argv[1:]); "
    "sys.exit('imported torch' if 'torch' in sys.modules else code)"
)


@pytest.fixture
def exported(finished: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run's model whose artifact.json says that it is merged."""
    folder = shutil.copytree(finished / "model", tmp_path / "exported")
    fields = json.loads((folder / "artifact.json").read_text("utf-8"))
    weights = next(folder.rglob("*.safetensors"))
    shutil.copyfile(weights, folder / "model.safetensors")
    fields["files"]["model.safetensors"] = fields["files"][weights.relative_to(folder).as_posix()]
    fields = {**fields, "weights": "merged"}
    (folder / "artifact.json").write_text(json.dumps(sealed(fields)))
    return folder


def test_what_is_exported_is_refused_without_torch(exported: Path, tmp_path: Path) -> None:
    words = ["export", str(exported), "--to", "merged", "--output", str(tmp_path / "out")]
    command = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True)
    line = f"distilora: {exported}: is exported already; copy it, or export the run that it came from\n"
    assert (command.returncode, command.stdout, command.stderr) == (2, "", line)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_there_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"^--output: .* exists already; give another folder$"):
        preflight.check_export("nowhere", "merged", tmp_path)
