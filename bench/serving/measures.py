"""Cells of speed: the best settings of the peers, interleaved rounds, load up to 4x capacity, 32 adapters mixed."""

import sys
import tempfile
from itertools import cycle
from pathlib import Path
from typing import Any

from bench.score_memory import anonymous_mb
from bench.serving import EXPORTS, OURS, PEERS, Row
from bench.serving.asking import answered, labels, loaded, milliseconds, summary
from bench.serving.model import RUN, WORK, reviews
from bench.serving.servers import (
    APIS,
    OURS_API,
    OURS_AS,
    VARIABLES,
    Server,
    python_of,
    started_contender,
    started_ours,
    versions,
)

CONNECTIONS = (1, 4, 16)
ROUND_S, SEARCH_S, WARM_S = 10, 6, 2
LABELLED = 200  # reviews of a round whose labels are compared
SHARES, SHARE_S, LONGER_S, SETTLE_S = (0.5, 0.8, 1.0, 2.0, 4.0), 30, 90, 5
SHOWN = 0.8  # of capacity, where p99 is compared with p50
QUEUE = 65_536  # tokens that may wait under overload: seconds of work, so that an accepted request is answered before its deadline
ADAPTERS, PAIRS, PAIR_S = (2, 8, 16, 24, 32), 5, 10
KEY = "a-key-for-the-bench-alone"
OURS_HOW: dict[str, Row] = {OURS: {"form": "run"}, **{name: {"form": form} for name, form in EXPORTS.items()}}

CHOICES: dict[str, list[Row]] = {
    "litserve": [
        {"workers": workers, "threads": 2 // workers, "batch": batch, "wait_s": 0.005}
        for workers in (1, 2) for batch in (1, 4, 16)
    ],
    "infinity": [
        {"engine": "torch", "dtype": "float32", "batch": 8}, {"engine": "torch", "dtype": "float32", "batch": 32},
        {"engine": "torch", "dtype": "bfloat16", "batch": 32}, {"engine": "optimum", "dtype": "float32", "batch": 32},
    ],
    "pipeline": [
        {"dtype": dtype, "threaded": threaded} for dtype in ("float32", "bfloat16") for threaded in (True, False)
    ],
}  # fmt: skip


def missing(name: str) -> Row | None:
    """Return the row of a contender or tool that is not there, and say so on stderr; None if it is there."""
    if python_of(name):
        return None
    variable = VARIABLES[name]
    return {**lacking(name, f"{variable} does not name the Python of an environment with it"), "wants": variable}


def lacking(name: str, why: str) -> Row:
    """Make the row of a contender or tool that could not be measured, and say so on stderr."""
    print(f"bench-serving: {name} is MISSING: {why}", file=sys.stderr)
    return {"missing": f"{name} is MISSING: {why}"}


def search() -> Row:
    """Try the settings of every peer: requests/s at the most connections, what failed, and the fastest without a failure."""
    tried: list[Row] = []
    for name in PEERS:
        for how in [] if missing(name) else CHOICES[name]:
            try:
                with started_contender(name, RUN, WORK, how) as server:
                    tried.append({"name": name, "how": how, **rate(server, name, CONNECTIONS[-1], SEARCH_S)})
            except RuntimeError as error:
                tried.append({"name": name, "how": how, "failed": without_paths(str(error))})
                print(f"bench-serving: {name} {how}: {error}", file=sys.stderr)
    best = {}
    for name in PEERS:
        whole = [row for row in tried if row["name"] == name and set(row.get("statuses", {"none": 0})) == {"200"}]
        if whole:
            best[name] = max(whole, key=lambda row: row["requests_per_s"])["how"]
    return {"tried": tried, "best": best}


def without_paths(text: str) -> str:
    """Return the last line of an error, with its paths cut to the files' names."""
    last = text.strip().splitlines()[-1]
    return " ".join(Path(word).name if "/" in word else word for word in last.split())[:300]


def rate(server: Server, name: str, connections: int, seconds: float, start: int = 0) -> Row:
    """Measure a closed loop, WARM_S after it began."""
    api, texts = APIS[name], reviews()[0]
    bodies = [api.body(text) for text in texts[start : start + 500]]
    sent = loaded(server, api.path, bodies, seconds=seconds + WARM_S, connections=connections)
    counts = summary(sent, WARM_S, WARM_S + seconds)
    return {"requests_per_s": counts["answered"] / seconds, **counts}


def one_round(number: int, name: str, best: Row) -> Row:
    """Measure a contender alone: labels of a round's reviews, then requests/s at several numbers of connections."""
    if row := missing(name):
        return row
    if name in PEERS and name not in best:
        return lacking(name, "none of its settings answered every request (cell search)")
    how = best[name] if name in PEERS else OURS_HOW[name]
    start = (number - 1) * LABELLED
    texts, targets = (part[start : start + LABELLED] for part in reviews())
    with started_contender(name, RUN, WORK, how) as server:
        own = {"model": server.ask("GET", "/v1/models")[1]["models"][0]["engine"]} if name not in PEERS else {}
        answers = labels(server, APIS[name], texts)
        rates = {str(connections): rate(server, name, connections, ROUND_S, start) for connections in CONNECTIONS}
    return {"how": {**how, **own}, "versions": versions(name), "labels": answers, "targets": targets, "rates": rates}


def load_round(number: int) -> Row:
    """Measure capacity in a closed loop, then open loops at shares of it."""
    words = ["--limits.waiting_tokens", str(QUEUE), "--access-log", "off"]
    bodies = [OURS_API.body(text) for text in reviews()[0][:500]]
    with started_ours(f"{OURS_AS}={RUN}", *words) as server:
        capacity = rate(server, "distilora", CONNECTIONS[-1], SHARE_S)
        levels = []
        for share in SHARES:
            until = LONGER_S if share == SHOWN else SHARE_S
            plan = {"rate": share * capacity["requests_per_s"], "seconds": until, "seed": number}
            sent = loaded(server, OURS_API.path, bodies, **plan)
            level = {"share": share, "rate": plan["rate"], **summary(sent, SETTLE_S, until)}
            levels.append(level | ({"ms": milliseconds(sent, SETTLE_S, until)} if share == SHOWN else {}))
    return {"capacity": capacity, "levels": levels, "waiting_tokens": QUEUE}


def mixed() -> Row:
    """Measure one adapter, and 32 in turn, on one shared encoder in one process; and memory as adapters are added."""
    names = [f"adapter{number}" for number in range(ADAPTERS[-1])]
    texts = reviews()[0][:500]
    memory, pairs = [], []

    def turn(server: Server, chosen: list[str], seconds: float) -> Any:
        bodies = [{**OURS_API.body(text), "model": name} for text, name in zip(texts, cycle(chosen), strict=False)]
        return loaded(server, OURS_API.path, bodies, seconds=seconds, connections=CONNECTIONS[-1])

    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "keys").write_text(KEY + "\n", "utf-8")
        first = [f"{name}={RUN}" for name in names[: ADAPTERS[0]]]
        with started_ours(*first, "--admin-key-file", str(Path(place) / "keys"), "--access-log", "off") as server:
            turn(server, names[: ADAPTERS[0]], PAIR_S)  # warms up
            there = ADAPTERS[0]
            for size in ADAPTERS:
                for name in names[there:size]:
                    add(server, name)
                there = size
                turn(server, names[:size], PAIR_S)
                memory.append({"adapters": size, "mb": anonymous_mb(server.process.pid)})
            for _ in range(PAIRS):
                pair = {}
                for what, chosen in (("mixed", names), ("one", names[:1])):
                    sent = turn(server, chosen, PAIR_S + WARM_S)
                    pair[what] = {"requests_per_s": answered(sent, WARM_S, WARM_S + PAIR_S) / PAIR_S,
                                  **summary(sent, WARM_S, WARM_S + PAIR_S)}  # fmt: skip
                pairs.append(pair)
    return {"adapters": ADAPTERS[-1], "memory": memory, "pairs": pairs}


def add(server: Server, name: str) -> None:
    """Give the run another name. Raises RuntimeError if the service refuses."""
    status, answer = server.ask(
        "PUT", f"/admin/models/{name}", {"folder": str(RUN.resolve())}, {"authorization": f"Bearer {KEY}"}
    )
    if status != 200:
        raise RuntimeError(f"{name}: status {status}: {answer}")
