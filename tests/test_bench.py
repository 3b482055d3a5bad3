"""`make check` finds a claim that its rows do not give, and a README figure that its claim does not give."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parent.parent / "bench"


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """bench/check.py, looking at results and a README of its own."""
    monkeypatch.syspath_prepend(str(BENCH))
    for name in ("check", "claims", "main"):
        sys.modules.pop(name, None)
    main, claims, module = (importlib.import_module(name) for name in ("main", "claims", "check"))
    seeds = [
        {"cell": f"train-seed{i}", "machine": "here", "commit": "abc", "wall_s": 300.0 + i, "cpu_s": 500.0,
         "peak_memory_mb": 900.0, "accuracy": 0.9 + i / 100} for i in range(3)
    ]  # fmt: skip
    rows = [*seeds, {"cell": "test", "machine": "here", "commit": "abc", "wall_s": 120.0, "cpu_s": 100.0}]
    monkeypatch.setattr(claims, "RESULTS", tmp_path)
    claims.write_results("main", rows, main.compute(rows), "make bench-main")
    (tmp_path / "README.md").write_text("<!-- claim main.heldout_accuracy {:.1%} -->91.0%<!-- /claim -->", "utf-8")
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def test_claims_that_hold(check: ModuleType) -> None:
    faults, values = check.check_results()
    assert faults == []
    assert values["main", "heldout_accuracy"] == pytest.approx(0.91)
    assert check.check_readme(values) == []


def test_a_claim_its_rows_do_not_give(check: ModuleType, tmp_path: Path) -> None:
    held = json.loads((tmp_path / "main.json").read_text("utf-8"))
    held["claims"][0]["value"] = 0.95
    (tmp_path / "main.json").write_text(json.dumps(held), "utf-8")
    assert ["heldout_accuracy.value" in fault for fault in check.check_results()[0]] == [True]


def test_a_figure_its_claim_does_not_give(check: ModuleType, tmp_path: Path) -> None:
    values = check.check_results()[1]
    (tmp_path / "README.md").write_text("<!-- claim main.heldout_accuracy {:.1%} -->93.0%<!-- /claim -->", "utf-8")
    assert check.check_readme(values) == ["README: main.heldout_accuracy shown as 93.0%, its claim gives 91.0%"]
