"""The bench of the service computes its claims from made-up rows, and what is missing is said to be."""

import asyncio
import importlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from bench import serving
from bench.serving import load, report
from bench.serving.asking import answered, milliseconds
from bench.serving.load import Sent

RATES = {
    "distilora": [90.0, 90.0, 90.0], "distilora_openvino": [100.0, 120.0, 110.0],
    "distilora_onnx_int8": [200.0, 200.0, 200.0], "litserve": [40.0, 30.0, 50.0],
    "infinity": [20.0, 60.0, 20.0], "pipeline": [10.0, 10.0, 10.0],
}  # fmt: skip


def counts(answered: int, until: float = 12.0, **statuses: int) -> dict[str, Any]:
    return {"since": 2.0, "until": until, "answered": answered, "p50_ms": 1.0, "p99_ms": 2.0,
            "statuses": {"200": answered, **{name.strip("_"): number for name, number in statuses.items()}}}  # fmt: skip


def round_row(name: str, number: int) -> dict[str, Any]:
    rate = RATES[name][number - 1]
    rates = {"1": {"requests_per_s": rate / 2}, "16": {"requests_per_s": rate}, "4": {"requests_per_s": rate / 3}}
    labels = ["a", "b", "a", "b" if name == "distilora_onnx_int8" else "a"]
    return {"cell": f"round-{number}-{name}", "rates": rates, "labels": labels, "targets": ["a", "b", "b", "a"],
            "how": {"form": "x"}, "versions": {"python": "3"}}  # fmt: skip


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Rows of every cell."""
    rounds = [round_row(name, number) for number in (1, 2, 3) for name in RATES]
    loads = [
        {"cell": f"load-{number}", "capacity": {"requests_per_s": 10.0}, "levels": [
            {"share": 0.8, **counts(80), "ms": [10.0] * 99 + [20.0 * number] * 2},
            {"share": 4.0, **counts(90 + number, _429=300, _504=number - 1)},
        ]}
        for number in (1, 2, 3)
    ]  # fmt: skip
    parts = [
        {"what": "SIGTERM", "expected": [200, 503, -1], "statuses": {"-1": 5, "200": 50, "503": 2}, "given": {"200": 50},
         "code": 0},
        {"what": "adapter swap", "expected": [200], "statuses": {"200": 70}, "given": {"200": 70}},
    ]  # fmt: skip
    samples = [[float(at), 100.0 if at < 180 else 100.5 if at > 600 else 150.0] for at in range(720)]
    pairs = [{"mixed": {"requests_per_s": rate}, "one": {"requests_per_s": 100.0}} for rate in (90.0, 86.0, 88.0)]
    return [
        {"cell": "model"}, {"cell": "search"}, *rounds, *loads, {"cell": "lost", "parts": parts},
        {"cell": "fuzz", "requests": 20_000, "statuses": {"0": 100, "200": 19_900}, "hangs": 0, "ready_afterwards": True},
        {"cell": "schemathesis", "requests": 500, "statuses": {"422": 500}, "ready_afterwards": True,
         "failures": [{"code": "ST1", "title": "Odd", "count": 2, "operations": ["POST /x"]}]},
        {"cell": "soak", "samples_s_mb": samples, "from_s": 120, "to_s": 720},
        {"cell": "mixed", "adapters": 32, "pairs": pairs,
         "memory": [{"adapters": 2, "mb": 100.0}, {"adapters": 8, "mb": 112.0}, {"adapters": 32, "mb": 130.0}]},
    ]  # fmt: skip


def row(rows: list[dict[str, Any]], cell: str) -> dict[str, Any]:
    return next(one for one in rows if one["cell"] == cell)


def values(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {claim["name"]: claim for claim in serving.compute(rows)}


def test_ratios_are_those_of_the_fastest_peer_of_each_round(rows: list[dict[str, Any]]) -> None:
    claims = values(rows)
    assert claims["rps_vs_best_peer"]["value"] == pytest.approx(2.2)  # of 100 / 40, 120 / 60, 110 / 50
    assert claims["rps_vs_best_peer"]["spread"] == pytest.approx([2.0, 2.5])
    assert claims["onnx_int8_rps_vs_best_peer"]["spread"] == pytest.approx([200 / 60, 5.0])
    assert claims["run_rps_vs_best_peer"]["spread"] == pytest.approx([1.5, 2.25])
    assert claims["accuracy_loss"]["value"] == 0
    assert claims["onnx_int8_accuracy_loss"]["value"] == pytest.approx(25.0)
    assert claims["onnx_int8_accuracy_loss"]["n"] == 12


def test_load(rows: list[dict[str, Any]]) -> None:
    claims = values(rows)
    assert claims["p99_over_p50_at_80"]["spread"] == pytest.approx([2.0, 6.0])
    assert claims["goodput_at_4x"]["value"] == pytest.approx(0.92)
    assert claims["refusals_not_429"]["value"] == 3
    assert claims["refusals_not_429"]["n"] == 3 * 80 + (391 + 393 + 395)


def test_an_answer_that_the_service_gave_and_the_client_never_got_is_lost(rows: list[dict[str, Any]]) -> None:
    assert values(rows)["lost_requests"]["value"] == 0
    stopped, swap = row(rows, "lost")["parts"]
    stopped["given"]["200"], swap["statuses"]["0"] = 53, 4
    assert values(rows)["lost_requests"]["value"] == 7
    stopped["code"] = 1  # the service says that it had to cut something off
    assert values(rows)["lost_requests"]["value"] == 8


def test_what_is_500_or_more_counts(rows: list[dict[str, Any]]) -> None:
    claims = values(rows)
    assert (claims["fuzz_requests"]["value"], claims["fuzz_5xx"]["value"]) == (20_500, 0)
    row(rows, "fuzz")["hangs"] = 1
    row(rows, "schemathesis")["statuses"]["504"] = 2
    assert values(rows)["fuzz_5xx"]["value"] == 3
    row(rows, "schemathesis")["asked_504"] = 2  # by a timeout_ms of their own
    assert values(rows)["fuzz_5xx"]["value"] == 1
    row(rows, "schemathesis")["asked_504"] = 0
    row(rows, "fuzz")["ready_afterwards"] = False
    assert values(rows)["fuzz_5xx"]["value"] == 4


def test_memory(rows: list[dict[str, Any]]) -> None:
    claims = values(rows)
    assert claims["soak_growth"]["value"] == pytest.approx(0.005)
    assert claims["mb_per_adapter"]["value"] == pytest.approx(1.0)
    assert claims["mb_per_adapter"]["spread"] == pytest.approx([0.75, 2.0])
    assert claims["mixed_32_adapters"]["value"] == pytest.approx(0.88)


def test_every_goal_is_that_of_a_claim(rows: list[dict[str, Any]]) -> None:
    assert {name for name, claim in values(rows).items() if claim["goal"] != "none"} == set(serving.GOALS)


def test_what_is_missing_is_said_to_be(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    absent = {"cell": "round-1-infinity", "missing": "infinity is MISSING"}
    rows[rows.index(row(rows, "round-1-infinity"))] = absent
    rows[rows.index(row(rows, "schemathesis"))] = {"cell": "schemathesis", "missing": "schemathesis is MISSING"}
    claims = values(rows)
    assert claims["rps_vs_best_peer"]["spread"] == pytest.approx([2.2, 4.0])  # litserve alone is the fastest
    assert "MISSING: infinity" in claims["rps_vs_best_peer"]["unit"]
    assert (claims["fuzz_requests"]["value"], claims["fuzz_requests"]["unit"][-22:]) == (
        20_000,
        "(MISSING: schemathesis)"[-22:],
    )
    page = report.tables(rows)
    assert "| **infinity** | **missing** |" in page
    assert "| **schemathesis** | **missing** |" in page
    report.draw(rows, tmp_path / "serving.png")
    assert (tmp_path / "serving.png").stat().st_size > 1000


def test_a_window_counts_answers_by_their_end_and_times_by_their_beginning() -> None:
    sent = [Sent(0.5, 2.0, 200), Sent(3.0, 0.01, 200), Sent(3.5, 0.1, 429), Sent(3.9, 0.5, 200)]
    assert answered(sent, 2.0, 4.0) == 2
    assert milliseconds(sent, 2.0, 4.0) == [10.0, 500.0]


def test_a_service_that_is_gone_is_no_lost_answer() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    plan = {"host": "127.0.0.1", "port": port, "path": "/", "bodies": ["{}"], "seconds": 0.05, "connections": 1}
    assert {one.status for one in asyncio.run(load.closed(plan))} == {-1}


def test_cells_of_what_was_missing_are_measured_once_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = importlib.import_module("bench.serving.__main__")
    monkeypatch.setattr(main, "CELLS", tmp_path)
    monkeypatch.setattr(main, "WORK", tmp_path)
    rows = {"round-1-litserve": {"missing": "x", "wants": "SERVING_LITSERVE"}, "round-1-infinity": {"missing": "x"},
            "round-1-pipeline": {}, "search": {}, "model": {}}  # fmt: skip
    for name, one in rows.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(one), "utf-8")
    (tmp_path / "reviews.jsonl").touch()
    monkeypatch.delenv("SERVING_LITSERVE", raising=False)
    main.forget_outdated()
    assert {path.stem for path in tmp_path.glob("*.json")} == set(rows)
    monkeypatch.setenv("SERVING_LITSERVE", "python")
    main.forget_outdated()
    assert {path.stem for path in tmp_path.glob("*.json")} == {"round-1-infinity", "round-1-pipeline", "model"}
    (tmp_path / "reviews.jsonl").unlink()
    main.forget_outdated()
    assert not (tmp_path / "model.json").exists()
