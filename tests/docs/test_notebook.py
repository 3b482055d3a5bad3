"""The notebook runs from top to bottom, holds no outputs in git, and its rendered copy holds those of a real run."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "DistBert_QLoRA.ipynb"
PAGE = ROOT / "docs" / "DistBert_QLoRA.html"


def cells(kind: str) -> list[dict]:
    return [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_it_is_clean_of_outputs() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells("code"))


def test_its_cells_can_be_read_aloud() -> None:
    order = [cell["cell_type"] for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]]
    assert order[:2] == ["markdown", "markdown"]
    assert len(cells("markdown")) >= 15
    assert max(len(source(cell).splitlines()) for cell in cells("code")) <= 12


def test_its_figures_are_not_written_by_hand() -> None:
    prose = " ".join(source(cell) for cell in cells("markdown")).replace("95% interval", "")
    assert not re.search(r"\d ?%|\d+ minutes", prose)


def test_the_rendered_copy_is_of_this_notebook_and_asks_nothing_of_the_network() -> None:
    import html

    page = PAGE.read_text("utf-8")
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    for cell in cells("code"):
        first = source(cell).splitlines()[0]
        assert first in text
    assert "<script" not in page
    fetched = re.findall(r'(?:src|href)="(https?://[^"]+)"', page)
    assert [url for url in fetched if not url.startswith("https://colab.research.google.com/")] == []  # the badge
    assert len(re.findall(r'<img[^>]+src="data:image/', page)) >= 5
    assert "round trip: a fresh process gives back the outputs of 32 texts" in text
    assert re.search(r"accuracy +\d\d\.\d\d%", text)


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.delenv("OMP_NUM_THREADS")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (chosen,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    assert "REVIEWS = None" in chosen.source
    chosen.source = chosen.source.replace("REVIEWS = None", "REVIEWS = 160")
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute(env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})

    said = "".join(
        str(out.get("text", out.get("data", ""))) for cell in notebook.cells for out in cell.get("outputs", [])
    )
    assert "lora.Linear4bit" in said
    assert "a fresh process gives back" in said
    assert "'torch fp32'" in said
    assert (tmp_path / "runs/notebook/metrics.json").is_file()
    assert (tmp_path / "runs/notebook-merged/model.safetensors").is_file()
