"""Part of `make check`: every claim follows from its raw rows, every row is a cell's, every figure in README and docs a
claim's, and the reference page follows from code.

A figure in README or docs/*.md stands between `<!-- claim NAME.CLAIM FORMAT -->` and `<!-- /claim -->`; FORMAT is Python's, applied
to the value, or, of NAME.CLAIM.low and NAME.CLAIM.high, to an end of its spread.
"""

import importlib
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

from bench.harness.claims import FIELDS, RESULTS, ROOT

FIGURE = re.compile(r"<!-- claim (\w+)\.(\w+(?:\.low|\.high)?) (\{[^}]*\}\S*) -->(.*?)<!-- /claim -->", re.DOTALL)


def check_results() -> tuple[list[str], dict[tuple[str, str], float]]:
    """Faults found in results/*.json, and the value of every claim."""
    faults, values = [], {}
    for path in sorted(RESULTS.glob("*.json")):
        results = json.loads(path.read_text("utf-8"))
        faults += check_cells(path.stem, results["rows"])
        computed = {
            claim["name"]: claim for claim in importlib.import_module(f"bench.{path.stem}").compute(results["rows"])
        }
        if set(computed) != {claim["name"] for claim in results["claims"]}:
            faults.append(
                f"{path.name}: claims {sorted(c['name'] for c in results['claims'])}, computed {sorted(computed)}"
            )
        for claim in results["claims"]:
            if missing := [field for field in FIELDS if field not in claim]:
                faults.append(f"{path.name}: {claim.get('name')} lacks {', '.join(missing)}")
            for field, value in computed.get(claim["name"], {}).items():
                if not same(claim.get(field), value):
                    faults.append(f"{path.name}: {claim['name']}.{field} is {claim.get(field)}, its rows give {value}")
            values[path.stem, claim["name"]] = claim["value"]
            for end, value in zip(("low", "high"), claim["spread"], strict=True):
                values[path.stem, f"{claim['name']}.{end}"] = value
    return faults, values


def check_cells(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """Rows of results/NAME.json that are not what results/NAME/cells holds, and cells that are left out of it."""
    cells = {path.stem: json.loads(path.read_text("utf-8")) for path in (RESULTS / name / "cells").glob("*.json")}
    names = [row["cell"] for row in rows]
    faults = [f"{name}.json: two rows of the cell {cell}" for cell in sorted({n for n in names if names.count(n) > 1})]
    faults += [f"{name}.json: no row of the cell {cell}" for cell in sorted(cells.keys() - set(names))]
    for row in rows:
        if row["cell"] not in cells:
            faults.append(f"{name}.json: a row {row['cell']}, but no cell of that name")
        elif row != (cell := cells[row["cell"]]):
            fields = sorted(key for key in row.keys() | cell.keys() if row.get(key) != cell.get(key))
            faults.append(f"{name}.json: the row {row['cell']} is not its cell: {', '.join(fields)}")
    return faults


def same(recorded: object, computed: object) -> bool:
    """Equal, numbers within 1e-9 relative."""
    if isinstance(recorded, list) and isinstance(computed, list):
        return len(recorded) == len(computed) and all(map(same, recorded, computed))
    if isinstance(recorded, int | float) and isinstance(computed, int | float):
        return math.isclose(recorded, computed, rel_tol=1e-9)
    return recorded == computed


def pages() -> list[Path]:
    """README and the pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def check_figures(values: dict[tuple[str, str], float]) -> list[str]:
    """Return the figures in README and docs that are not what their claim says, and markers that are not whole."""
    faults = []
    for path in pages():
        page, text = path.relative_to(ROOT).as_posix(), path.read_text("utf-8")
        figures = FIGURE.findall(text)
        for bench, name, pattern, shown in figures:
            if (bench, name) not in values:
                faults.append(f"{page}: no claim {bench}.{name}")
            elif shown.strip() != (expected := pattern.format(values[bench, name])):
                faults.append(f"{page}: {bench}.{name} shown as {shown.strip()}, its claim gives {expected}")
        if not len(figures) == text.count("<!-- claim") == text.count("<!-- /claim -->"):
            faults.append(f"{page}: a claim's markers are not whole")
        if re.search(r"^\s*<!-- claim", text, re.MULTILINE):
            faults.append(f"{page}: a line begins with a claim's marker, which Markdown takes for a block; move it")
        if values and not figures and page == "README.md":
            faults.append(f"{page}: shows no claim")
    return faults


def check_docs() -> list[str]:
    """Whether docs/configuration.md is what `make docs` writes."""
    from distilora.config.reference import reference_page

    if (ROOT / "docs" / "configuration.md").read_text("utf-8") != reference_page():
        return ["docs/configuration.md: behind src/distilora/config/schema.py; run make docs"]
    return []


if __name__ == "__main__":
    faults, values = check_results()
    faults += check_figures(values) + check_docs()
    print("\n".join(faults) or f"{sum('.' not in name for _, name in values)} claims follow from their rows")
    sys.exit(bool(faults))
