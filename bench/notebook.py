"""Bench of the notebook: how long `quick` takes from top to bottom, as its readers run it. Renders docs/DistBert_QLoRA.html.

One cell, an otherwise idle machine. The kernel starts in an empty folder, and the installation is there already.
"""

import os
import re
import tempfile
import time
from typing import Any

from bench.harness.claims import ROOT, Rows, run_cells

NOTEBOOK = ROOT / "DistBert_QLoRA.ipynb"
PAGE = ROOT / "docs" / "DistBert_QLoRA.html"


def compute(rows: Rows) -> Rows:
    """Claims from rows."""
    minutes = [row["wall_s"] / 60 for row in rows]
    return [
        {"name": "quick_minutes", "value": minutes[0], "unit": "minutes", "goal": "<= 8", "spread": [min(minutes), max(minutes)],
         "n": len(minutes)}
    ]  # fmt: skip


def quick() -> dict[str, Any]:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    before, started = os.times(), time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        NotebookClient(notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": place}}).execute()
    wall, after = time.monotonic() - started, os.times()
    PAGE.write_text(page(notebook), "utf-8")
    return {
        "wall_s": wall,
        "cpu_s": after.children_user + after.children_system - before.children_user - before.children_system,
    }


def page(notebook: Any) -> str:
    """The executed notebook as one HTML page that asks nothing of the network but the badge."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="lab", exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.require_js_url = exporter.mathjax_url = exporter.jquery_url = exporter.mermaid_js_url = ""
    text, _ = exporter.from_notebook_node(notebook)
    text = re.sub(r"<script\b.*?</script>", "", text, flags=re.DOTALL)
    calm = (
        '<style>[data-mime-type="application/vnd.jupyter.stderr"] { background: none !important; opacity: 0.6 }</style>'
    )
    text = text.replace("</head>", f"{calm}</head>", 1)  # progress is no alarm
    return re.sub(r"(?m)[ \t]+$", "", text)


if __name__ == "__main__":
    run_cells("notebook", {"quick": quick}, compute, "make bench-notebook", __doc__)
