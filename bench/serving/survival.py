"""Cells of reliability: what is lost under SIGTERM, swaps and a full queue; fuzz, schemathesis; memory in a soak."""

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.harness.claims import ROOT
from bench.score_memory import anonymous_mb
from bench.serving import Row
from bench.serving.asking import Load
from bench.serving.measures import KEY, missing
from bench.serving.model import RUN, reviews
from bench.serving.servers import OURS_API, OURS_AS, count, environment, python_of, started_ours, versions

STOPS, LOAD_S, SWAP_S, CLIENTS, CROWD = 5, 8, 30, 12, 60
FULL = ("--limits.waiting_tokens", "4096", "--limits.request_tokens", "2048")  # some sixteen reviews
REQUESTS, SEED = 20_000, 0
EXAMPLES = 100  # of schemathesis, for each operation
SOAK_S, SETTLE_S, SOAK_CLIENTS, CHUNK = 600, 120, 4, 200


def lost() -> Row:
    """Count what the client was answered and what the service says it answered, in every kind of upheaval."""
    parts = [stopped(number) for number in range(STOPS)]
    return {"parts": [*parts, swapped(), full()]}


def part(what: str, expected: list[int], sent: list[Any], given: Row, **more: Any) -> Row:
    """Make the raw counts of an upheaval: statuses the client may see, those it saw, and those that the service logged."""
    return {"what": what, "expected": expected, "statuses": count(one.status for one in sent), "given": given, **more}


def bodies(*names: str) -> list[Row]:
    """Return requests for models in turn."""
    texts = reviews()[0][:200]
    return [{**OURS_API.body(text), "model": names[number % len(names)]} for number, text in enumerate(texts)]


def stopped(number: int) -> Row:
    """SIGTERM at a random moment of a closed loop; afterwards nobody listens."""
    after = random.Random(number).uniform(2, LOAD_S - 2)
    with started_ours(f"{OURS_AS}={RUN}", "--grace", "0.5") as server:
        load = Load(server, OURS_API.path, bodies(OURS_AS), seconds=LOAD_S, connections=CLIENTS)
        time.sleep(after)
        code = server.stop()
        sent = load.sent()
        return part("SIGTERM", [200, 503, -1], sent, server.answered(OURS_API.path), after_s=after, code=code)


def swapped() -> Row:
    """Replace two adapters of a shared encoder, by turns, in a closed loop."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "keys").write_text(KEY + "\n", "utf-8")
        other = shutil.copytree(RUN / "model", Path(place) / "other" / "model").parent
        words = [f"one={RUN}", f"two={other}", "--admin-key-file", str(Path(place) / "keys")]
        with started_ours(*words) as server:
            load = Load(server, OURS_API.path, bodies("one", "two"), seconds=SWAP_S, connections=CLIENTS)
            swaps, refused = 0, []
            while load.runs:
                for name, folder in (("two", RUN), ("one", other), ("two", other), ("one", RUN)):
                    status, _ = server.ask(
                        "PUT", f"/admin/models/{name}", {"folder": str(folder)}, {"authorization": f"Bearer {KEY}"}
                    )
                    swaps += status == 200
                    refused += [status] if status != 200 else []
            sent = load.sent()
            return part(
                "adapter swap", [200], sent, server.answered(OURS_API.path), swaps=swaps, swaps_refused=count(refused)
            )


def full() -> Row:
    """Crowd a short queue in a closed loop."""
    with started_ours(f"{OURS_AS}={RUN}", *FULL) as server:
        sent = Load(server, OURS_API.path, bodies(OURS_AS), seconds=LOAD_S, connections=CROWD).sent()
        return part("full queue", [200, 429], sent, server.answered(OURS_API.path))


def fuzz() -> Row:
    """Send broken requests (fuzz.py) to the service."""
    with started_ours(f"{OURS_AS}={RUN}", "--access-log", "off") as server:
        return {"seed": SEED, **fuzzed(server.base, REQUESTS, SEED)}


def fuzzed(base: str, requests: int, seed: int) -> Row:
    """Run fuzz.py, in a process of its own."""
    command = [sys.executable, "-m", "bench.serving.fuzz", base, "--requests", str(requests), "--seed", str(seed)]
    done = subprocess.run(command, check=True, cwd=ROOT, env=environment(own=True), capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def schemathesis() -> Row:
    """Let schemathesis derive requests from the OpenAPI document: statuses, and what its checks object to."""
    if row := missing("schemathesis"):
        return row
    with tempfile.TemporaryDirectory() as place, started_ours(f"{OURS_AS}={RUN}", "--access-log", "off") as server:
        words = ["run", f"{server.base}/openapi.json", "--max-examples", str(EXAMPLES), "--seed", str(SEED), "--no-color",
                 "--continue-on-failure", "--request-timeout", "60", "--report", "har,json", "--report-har-path", "all.har",
                 "--report-json-path", "all.json"]  # fmt: skip
        command = [python_of("schemathesis"), "-m", "schemathesis.cli", *words]
        done = subprocess.run(command, cwd=place, env=environment(own=False), capture_output=True, text=True)
        if not (Path(place) / "all.json").is_file():
            raise RuntimeError(f"schemathesis did not run:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        har = json.loads((Path(place) / "all.har").read_text("utf-8"))
        report = json.loads((Path(place) / "all.json").read_text("utf-8"))
        ready = server.ask("GET", "/readyz")[0] == 200
    statuses = count(int(entry["response"]["status"]) for entry in har["log"]["entries"])
    asked = sum(
        entry["response"]["status"] == 504 and "timeout_ms" in json.dumps(entry["request"])
        for entry in har["log"]["entries"]
    )
    failures = [{key: one[key] for key in ("code", "title", "count", "operations")} for one in report["failures"]]
    return {
        "requests": sum(statuses.values()), "statuses": statuses, "asked_504": asked, "failures": failures,
        "errors": report["errors"],
        "operations": report["operations"]["tested"], "ready_afterwards": ready, "versions": versions("schemathesis"),
    }  # fmt: skip


def soak() -> Row:
    """Sample the memory of the service once a second, under reviews in a closed loop and fuzz beside them."""
    samples: list[list[float]] = []
    fuzzes: list[Future[Row]] = []
    with started_ours(f"{OURS_AS}={RUN}", "--access-log", "off") as server, ThreadPoolExecutor(1) as beside:
        whole = SETTLE_S + SOAK_S
        load = Load(server, OURS_API.path, bodies(OURS_AS), seconds=whole, connections=SOAK_CLIENTS)
        begun = time.monotonic()
        while load.runs:
            if not fuzzes or fuzzes[-1].done():
                fuzzes.append(beside.submit(fuzzed, server.base, CHUNK, len(fuzzes) + 1))
            samples.append([round(time.monotonic() - begun, 2), round(anonymous_mb(server.process.pid), 3)])
            time.sleep(1)
        sent, broken = load.sent(), [each.result() for each in fuzzes]
    return {
        "from_s": SETTLE_S, "to_s": whole, "samples_s_mb": samples, "statuses": count(one.status for one in sent),
        "fuzz_requests": sum(each["requests"] for each in broken),
        "fuzz_of_500_or_more": sum(each["of_500_or_more"] + each["hangs"] for each in broken),
    }  # fmt: skip
