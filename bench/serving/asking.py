"""Requests of a cell: load from a process of its own, labels over HTTP, and what is counted of both."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.harness.claims import ROOT
from bench.serving import Row, quantile
from bench.serving.load import Sent
from bench.serving.servers import Api, Server, count, environment

CLIENTS = 4  # that ask for labels at once


class Load:
    """A load that runs in a process of its own; `sent` waits for its end."""

    def __init__(self, server: Server, path: str, bodies: Sequence[Row], **plan: Any) -> None:
        whole = {
            "host": "127.0.0.1",
            "port": server.port,
            "path": path,
            "bodies": [json.dumps(b) for b in bodies],
            **plan,
        }
        self.folder = tempfile.TemporaryDirectory()
        file = Path(self.folder.name) / "plan.json"
        file.write_text(json.dumps(whole), "utf-8")
        self.out = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open until the load has ended
        command = [sys.executable, "-m", "bench.serving.load", str(file)]
        self.process = subprocess.Popen(command, stdout=self.out, cwd=ROOT, env=environment(own=True))

    @property
    def runs(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def sent(self) -> list[Sent]:
        """Return what became of every request. Raises CalledProcessError if the load failed."""
        code = self.process.wait()
        self.out.seek(0)
        text = self.out.read()
        self.out.close()
        self.folder.cleanup()
        if code:
            raise subprocess.CalledProcessError(code, "bench.serving.load")
        return [Sent(*one) for one in json.loads(text)["sent"]]


def loaded(server: Server, path: str, bodies: Sequence[Row], **plan: Any) -> list[Sent]:
    """Run a load to its end."""
    return Load(server, path, bodies, **plan).sent()


def answered(sent: Sequence[Sent], since: float, until: float) -> int:
    """Count the requests that were answered with 200 between two moments, in seconds from the beginning."""
    return sum(one.status == 200 and since <= one.due + one.seconds < until for one in sent)


def summary(sent: Sequence[Sent], since: float, until: float) -> Row:
    """Return the raw counts of a load, and quantiles of the milliseconds of what was due and answered in the window."""
    ms = milliseconds(sent, since, until)
    quantiles = {f"p{q}_ms": round(quantile(ms, q), 2) if len(ms) > 1 else None for q in (50, 99)}
    return {"since": since, "until": until, "answered": answered(sent, since, until),
            "statuses": count(one.status for one in sent), **quantiles}  # fmt: skip


def milliseconds(sent: Sequence[Sent], since: float, until: float) -> list[float]:
    """Return the milliseconds of the requests due in the window that were answered with 200."""
    return [round(1000 * one.seconds, 1) for one in sent if one.status == 200 and since <= one.due < until]


def labels(server: Server, api: Api, texts: Sequence[str]) -> list[str]:
    """Ask for the labels of texts, several at once. Raises RuntimeError for an answer that is none."""

    def one(text: str) -> str:
        status, answer = server.ask("POST", api.path, api.body(text))
        if status != 200:
            raise RuntimeError(f"status {status}: {str(answer)[:500]}")
        return api.label(answer)

    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(one, texts))
