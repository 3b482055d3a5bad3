"""`make check` finds a claim that its rows do not give, and a figure of README or docs that its claim does not give."""

import importlib
import json
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bench import main
from bench.harness import check as module
from bench.harness import claims


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """bench/harness/check.py, looking at results and a README of its own."""
    seeds = [
        {"cell": f"train-seed{i}", "machine": "here", "commit": "abc", "wall_s": 300.0 + i, "cpu_s": 500.0,
         "peak_anonymous_mb": 900.0, "accuracy": 0.9 + i / 100, "encoder_accuracy": 0.89, "nbsvm_accuracy": 0.88} for i in range(3)
    ]  # fmt: skip
    rows = [*seeds, {"cell": "test", "machine": "here", "commit": "abc", "wall_s": 120.0, "cpu_s": 100.0}]
    monkeypatch.setattr(claims, "RESULTS", tmp_path)
    claims.write_results("main", rows, main.compute(rows), "make bench-main")
    (tmp_path / "main" / "cells").mkdir(parents=True)
    for row in rows:
        (tmp_path / "main" / "cells" / f"{row['cell']}.json").write_text(json.dumps(row), "utf-8")
    (tmp_path / "README.md").write_text("now <!-- claim main.heldout_accuracy {:.1%} -->91.0%<!-- /claim -->", "utf-8")
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def test_claims_that_hold(check: ModuleType) -> None:
    faults, values = check.check_results()
    assert faults == []
    assert values["main", "heldout_accuracy"] == pytest.approx(0.91)
    assert check.check_figures(values) == []


def test_a_claim_its_rows_do_not_give(check: ModuleType, tmp_path: Path) -> None:
    results = json.loads((tmp_path / "main.json").read_text("utf-8"))
    results["claims"][0]["value"] = 0.95
    (tmp_path / "main.json").write_text(json.dumps(results), "utf-8")
    assert ["heldout_accuracy.value" in fault for fault in check.check_results()[0]] == [True]


def test_rows_that_are_not_their_cells(check: ModuleType, tmp_path: Path) -> None:
    cells = tmp_path / "main" / "cells"
    seed = json.loads((cells / "train-seed1.json").read_text("utf-8"))
    (cells / "train-seed1.json").write_text(json.dumps({**seed, "accuracy": 0.5, "more": 1}), "utf-8")
    (cells / "test.json").rename(cells / "test-again.json")
    assert sorted(check.check_results()[0]) == [
        "main.json: a row test, but no cell of that name",
        "main.json: no row of the cell test-again",
        "main.json: the row train-seed1 is not its cell: accuracy, more",
    ]
    results = json.loads((tmp_path / "main.json").read_text("utf-8"))
    (tmp_path / "main.json").write_text(
        json.dumps({**results, "rows": [results["rows"][0], *results["rows"]]}), "utf-8"
    )
    assert "main.json: two rows of the cell train-seed0" in check.check_results()[0]


def test_a_figure_its_claim_does_not_give(check: ModuleType, tmp_path: Path) -> None:
    values = check.check_results()[1]
    (tmp_path / "README.md").write_text("now <!-- claim main.heldout_accuracy {:.1%} -->93.0%<!-- /claim -->", "utf-8")
    assert check.check_figures(values) == ["README.md: main.heldout_accuracy shown as 93.0%, its claim gives 91.0%"]


def test_figures_of_every_page(check: ModuleType, tmp_path: Path) -> None:
    values = check.check_results()[1]
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "speed.md"
    figure = "<!-- claim main.heldout_accuracy {:.1%} -->91.0%<!-- /claim -->"
    page.write_text("No figure.", "utf-8")
    assert check.check_figures(values) == []
    page.write_text(
        f"Now {figure.replace('91.0', '92.0')}, <!-- claim main.nobody_s {{:.1%}} -->1.0%<!-- /claim -->", "utf-8"
    )
    assert check.check_figures(values) == [
        "docs/speed.md: main.heldout_accuracy shown as 92.0%, its claim gives 91.0%",
        "docs/speed.md: no claim main.nobody_s",
    ]
    page.write_text(f"Now {figure}, <!-- claim main.heldout_accuracy -->91.0%<!-- /claim -->", "utf-8")
    assert check.check_figures(values) == ["docs/speed.md: a claim's markers are not whole"]
    page.write_text(f"Now\n  {figure}", "utf-8")
    assert ["a line begins with a claim's marker" in fault for fault in check.check_figures(values)] == [True]


def test_the_ends_of_a_spread(check: ModuleType, tmp_path: Path) -> None:
    values = check.check_results()[1]
    spread = (
        "from <!-- claim main.heldout_accuracy.low {:.0%} -->90%<!-- /claim --> to "
        "<!-- claim main.heldout_accuracy.high {:.0%} -->HIGH<!-- /claim -->"
    )
    (tmp_path / "README.md").write_text(spread.replace("HIGH", "92%"), "utf-8")
    assert check.check_figures(values) == []
    (tmp_path / "README.md").write_text(spread.replace("HIGH", "91%"), "utf-8")
    assert check.check_figures(values) == ["README.md: main.heldout_accuracy.high shown as 91%, its claim gives 92%"]


def test_kills_in_a_run_that_ended_otherwise_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = importlib.import_module("bench.kill_resume").compute
    same = {"adapter_sha256": "a", "metrics_sha256": "m"}
    rows = [
        {"cell": "untouched", **same},
        {"cell": "chain-1", **same, "kills": [{}, {}, {}]},
        {"cell": "chain-2", **same, "adapter_sha256": "b", "kills": [{}, {}]},
        {"cell": "chain-3", **same, "metrics_sha256": "n", "kills": [{}]},
    ]
    claims = {claim["name"]: (claim["value"], claim["n"]) for claim in compute(rows)}
    assert claims == {"kills": (6, 3), "identical": (3, 1)}


def test_methods_are_compared_review_by_review(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = importlib.import_module("bench.qlora")
    correct = {"qlora": "1100", "lora": "1110", "full": "1111", "head": "1000"}
    rows = [{"cell": f"accuracy-{method}", "method": method, "correct": bits} for method, bits in correct.items()]
    rows += [
        {"cell": f"memory-{method}-{n}", "weights_mb": weights, "peak_mb": weights * 10 + n}
        for n in range(2) for method, weights in (("qlora", 30.0), ("lora", 45.0), ("full", 90.0), ("head", 40.0))
    ]  # fmt: skip
    claims = {claim["name"]: claim for claim in bench.compute(rows)}
    assert claims["qlora_accuracy"]["value"] == 0.5
    assert claims["qlora_minus_full"]["value"] == pytest.approx(-0.5)
    assert claims["qlora_minus_full"]["spread"] == pytest.approx(
        [-0.5 - 1.96 * 0.5 / 3**0.5, -0.5 + 1.96 * 0.5 / 3**0.5]
    )
    assert claims["qlora_minus_lora"]["spread"] == pytest.approx([-0.25 - 1.96 * 0.25, -0.25 + 1.96 * 0.25])
    assert claims["weights_bytes_vs_full"]["value"] == pytest.approx(1 / 3)
    assert claims["peak_memory_vs_full"]["value"] == pytest.approx((300 / 900 + 301 / 901) / 2)


def test_precision_of_an_audit_is_that_of_its_top(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = importlib.import_module("bench.audit")
    top = {"a": [1] * 45 + [0] * 5, "b": [1, 0] * 25, "c": [1] * 50}
    rows = [{"cell": cell, "flipped_of_top": bits, "flipped": 40, "flipped_found": 30} for cell, bits in top.items()]
    precision, recall = bench.compute(rows)
    assert (precision["name"], precision["spread"], precision["n"]) == ("audit_precision_at_50", [0.5, 1.0], 3)
    assert precision["value"] == pytest.approx(0.8)
    assert (recall["name"], recall["value"]) == ("audit_recall", 0.75)


def test_memory_of_scoring_is_compared_with_that_of_the_fewest_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = importlib.import_module("bench.score_memory")
    peaks = {1_000_000: 168.0, 10_000: 160.0, 100_000: 176.0}
    rows = [{"cell": f"rows-{rows}", "rows": rows, "peak_mb": peak} for rows, peak in peaks.items()]
    growth, peak = bench.compute(rows)
    assert (growth["name"], growth["value"], growth["spread"]) == ("memory_growth", 1.05, [1.05, 1.1])
    assert growth["unit"] == "peak at 1,000,000 rows / peak at 10,000 rows"
    assert (peak["name"], peak["value"], peak["spread"], peak["n"]) == ("peak_mb", 168.0, [160.0, 176.0], 3)
    assert len(set(bench.texts(1_000))) == 1_000
    assert bench.anonymous_mb(os.getpid()) > 10


def test_a_learning_curve_has_a_claim_for_each_size_and_method(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = importlib.import_module("bench.curve")
    methods = [
        {"name": name, "value": value, "low": value - 0.02, "high": value + 0.01, "seconds": 1.0}
        for name, value in (("nbsvm", 0.7), ("encoder", 0.6))
    ]
    rows = [
        {"cell": "labels-100", "labels": "100", "size": 100, "examples": 2_490, "methods": methods},
        {"cell": "labels-all", "labels": "all", "size": 21_912, "examples": 2_490, "methods": methods[1:]},
        {"cell": "setfit-100", "labels": "100", "size": 100, "examples": 2_490, "methods": [{**methods[0], "name": "setfit"}]},
    ]  # fmt: skip
    claims = {claim["name"]: claim for claim in bench.compute(rows)}
    assert list(claims) == ["accuracy_100_nbsvm", "accuracy_100_encoder", "accuracy_all_encoder", "accuracy_100_setfit"]
    assert claims["accuracy_all_encoder"]["unit"] == "share of held-out reviews, 21,912 labels"
    assert claims["accuracy_100_nbsvm"]["spread"] == pytest.approx([0.68, 0.71])
    assert claims["accuracy_100_nbsvm"]["n"] == 2_490
    monkeypatch.delenv("CURVE_SETFIT", raising=False)
    assert [name for name in bench.cells() if name.startswith("labels-")] == [f"labels-{n}" for n in bench.SIZES]
    monkeypatch.setenv("CURVE_SETFIT", "python")
    assert {"setfit-100", "setfit-300"} <= set(bench.cells())


def test_speed_is_compared_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = importlib.import_module("bench.speed")
    rates = {
        "reference": 1.0,
        "tuned": 8.0,
        "tuned_16": 6.0,
        "tuned_dropout": 4.0,
        "full": 5.0,
        "distilora": 24.0,
        "distilora_3_epochs": 40.0,
    }
    rows = [
        {"cell": f"rate-{n}-{name}", "reviews_per_s": rate * (1 + n), "startup_s": 10.0}
        for n in range(2) for name, rate in rates.items()
    ]  # fmt: skip
    rows[0]["reviews_per_s"] = 1.25
    curve = [
        {"reviews": 1000, "accuracy": 0.8},
        {"reviews": 2000, "accuracy": 0.91},
        {"reviews": 3000, "accuracy": 0.89},
    ]
    rows += [
        {"cell": "curve-reference", "points": curve}, {"cell": "curve-tuned", "points": curve[:1]},
        {"cell": "whole-0", "right": [1, 1, 0, 1],
         "points": [{"seconds": 50.0, "accuracy": 0.8}, {"seconds": 67.0, "accuracy": 0.9}]},
        {"cell": "final-reference", "right": [1, 0, 0, 1]},
        {"cell": "roofline", "rounds": [{"share": 0.6}, {"share": 0.7}, {"share": 0.8}]},
        {"cell": "memory-full-0", "peak_mb": 900.0}, {"cell": "memory-distilora-0", "peak_mb": 300.0},
    ]  # fmt: skip
    claims = {claim["name"]: claim for claim in bench.compute(rows)}
    assert claims["reviews_per_s_vs_reference"]["spread"] == [32.0, 40.0]
    assert claims["reviews_per_s_vs_tuned"]["value"] == 5.0  # of the faster tuned one
    assert claims["one_epoch_vs_tuned"]["value"] == 3.0
    assert claims["time_to_90_vs_reference"]["spread"] == pytest.approx([(10 + 2000 / 2) / 67, (10 + 2000 / 1.25) / 67])
    assert claims["time_to_90_vs_tuned"]["spread"] == pytest.approx([(10 + 1000 / 16) / 67, (10 + 1000 / 8) / 67])
    assert "at least" in claims["time_to_90_vs_tuned"]["unit"]  # its curve ended below
    assert claims["time_to_90_s"]["value"] == 67.0
    assert claims["share_of_peak"]["value"] == 0.7
    assert claims["peak_memory_vs_full"]["value"] == pytest.approx(1 / 3)
    assert claims["accuracy_difference_vs_reference"]["value"] == 0.25
    assert claims["accuracy_difference_vs_reference"]["spread"] == pytest.approx(
        [0.25 - 1.96 * 0.25, 0.25 + 1.96 * 0.25]
    )


def test_operations_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    roofline = importlib.import_module("bench.speed.roofline")
    forward = 8 * 4**2 + 4 * 4 * 16 + 4 * 4  # of one token alone, width 4, inner 16
    adapters = 4 * 2 * (4 * 8 + 2 * 20)
    last = 12 * 2 * 4  # two heads
    expected = 4 * forward + (2 * forward + 4 * 4 + adapters - 6 * 4**2) + last
    assert roofline.operations(np.asarray([1]), 6, 2, 2, 4, 16, 2) == expected
    assert roofline.operations(np.asarray([1, 1]), 6, 2, 2, 4, 16, 2) == 2 * expected
