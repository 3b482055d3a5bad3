"""The command `distilora serve`: what it refuses, and a process of its own that is asked, abused and stopped."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.command import failed
from support.service_process import KEY, Served

from distilora.cli.serve import named_runs
from distilora.errors import ConfigError

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: "),
        (["nowhere"], "nowhere: no such run; train one with"),
        (["RUN", "--host", "0.0.0.0"], "--host: 0.0.0.0 can be reached from other machines, and there are no keys"),
        (["RUN", "--host", "::"], "--host: :: can be reached from other machines"),
        (["RUN", "--host", "no.such.host.invalid", "--allow-anonymous"], "--host: no.such.host.invalid is no address"),
        (["RUN", "--port", "70000"], "--port: 70000 given, 0 to 65535 wanted"),
        (["RUN", "--port", "TAKEN"], "--port: "),
        (["RUN", "--api-key-file", "nowhere"], "--api-key-file: nowhere cannot be read"),
        (["RUN", "RUN"], "two models are called tiny"),
        (["a b=RUN"], "a b=RUN: 'a b' given, up to 64 letters"),
        (["RUN", "--limits.inputs", "0"], "limits.inputs: 0 given, at least 1 wanted"),
        (
            ["RUN", "--limits.input", "9"],
            "--limits.input: distilora serve has no such option; did you mean --limits.inputs?",
        ),
        (["RUN", "--grace", "-1"], "--grace: -1 given, 0 to 3600 seconds wanted"),
        (["RUN", "--drain-seconds", "0"], "--drain-seconds: 0 given, 1 to 3600 seconds wanted"),
        (["RUN", "--workers", "0"], "--workers: 0 given"),
        (["RUN", "--workers", "2", "--admin-key-file", "x"], "--admin-key-file: models are added to one process only"),
        (["RUN", "--workers", "2", "--corrections", "x.jsonl"], "--corrections: one process writes them; drop it, or "),
        (
            ["RUN", "--otlp-endpoint", "localhost:4318"],
            "--otlp-endpoint: 'localhost:4318' given, an address such as http",
        ),
        (["RUN", "--otlp-endpoint", "http://a?key=b"], "--otlp-endpoint: 'http://a?key=b' given"),
        (["RUN", "--engine", "rey"], "--engine: 'rey' given, local, ray wanted"),
        (["RUN", "--replicas", "2"], "--replicas: replicas are those of --engine ray; add that, or drop --replicas"),
        (["RUN", "--address", "auto"], "--address: replicas are those of --engine ray; add that, or drop --address"),
        (["RUN", "--engine", "ray", "--replicas", "0"], "--replicas: 0 given, 1 to 256 wanted"),
        (
            ["RUN", "--engine", "ray", "--workers", "2"],
            "--workers: --engine ray has replicas instead; give --replicas N",
        ),
        (
            ["RUN", "--engine", "ray", "--admin-key-file", "x"],
            "--admin-key-file: models are added to one process only; drop it, or --engine ray",
        ),
        (
            ["RUN", "--engine", "ray", "--corrections", "x.jsonl"],
            "--corrections: one process writes them; drop it, or --engine ray",
        ),
        (["RUN", "--cors-origin", "*"], "--cors-origin: '*' given, an origin such as"),
        (["RUN", "--cors-origin", "https://a.example/path"], "--cors-origin: "),
        (["RUN", "--corrections", "x.csv"], "--corrections: x.csv given, a file ending in .jsonl wanted"),
        (["RUN", "--precision", "int4"], "--precision: 'int4' given"),
    ],
)
def test_refused(words: list[str], said: str, finished: Path, capsys: Captured) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        given = [word.replace("RUN", str(finished)).replace("TAKEN", port) for word in words]
        if "--port" not in words:
            given += ["--port", "0"]
        assert said.replace("RUN", str(finished)) in failed(["serve", *given], capsys)


def test_a_key_that_would_open_both(finished: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "keys").write_text(f"another-key-of-somebody\n{KEY}\n")
    (tmp_path / "admin").write_text(KEY + "\n")
    files = ["--api-key-file", str(tmp_path / "keys"), "--admin-key-file", str(tmp_path / "admin")]
    told = failed(["serve", str(finished), "--port", "0", *files], capsys)
    assert "--admin-key-file: holds a key of --api-key-file, which would open both" in told
    assert KEY not in told


def test_without_ray_serve_it_says_what_to_install(
    finished: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["serve", str(finished), "--engine", "ray", "--port", "0"]
    assert "pip install 'distilora[serve-ray]'" in failed(words, capsys)


def test_without_opentelemetry_it_says_what_to_install(
    finished: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter", None)
    words = ["serve", str(finished), "--otlp-endpoint", "http://localhost:4318", "--port", "0"]
    assert "pip install 'distilora[tracing]'" in failed(words, capsys)


def test_names_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "imdb" / "model").mkdir(parents=True)
    (tmp_path / "odd=name").mkdir()
    monkeypatch.chdir(tmp_path)
    assert named_runs(["runs/imdb", "b=runs/imdb", "c=odd=name"]) == {
        "imdb": "runs/imdb",
        "b": "runs/imdb",
        "c": "odd=name",
    }
    assert named_runs(["runs/imdb/model/"]) == {"imdb": "runs/imdb/model/"}
    monkeypatch.chdir(tmp_path / "runs" / "imdb")
    assert named_runs(["."]) == {"imdb": "."}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="odd=name: 'odd=name' given"):
        named_runs(["odd=name"])


@pytest.fixture
def served(finished: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    (tmp_path / "keys").write_text(KEY + "\n")
    started: list[Served] = []

    def start(*words: str) -> Served:
        started.append(Served(f"reviews={finished}", "--api-key-file", str(tmp_path / "keys"), *words))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate(timeout=30)


def test_a_process_is_asked_abused_and_drained(served: Callable[..., Served]) -> None:
    service = served("--grace", "0.4", "--drain-seconds", "20", "--limits.body_bytes", "10000")
    assert service.names == ["reviews"]
    assert service.ask("/v1/classify", {"input": "superb"})[1]["answers"][0]["label"] == "pos"
    assert service.ask("/v1/classify", {"input": "superb"}, authorization="Bearer no")[0] == 401
    assert service.ask("/readyz") == (200, {"status": "ready"})

    head = f"POST /v1/classify HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n".encode()
    assert service.send(head + b"content-length: 99999999\r\n\r\n").startswith(b"HTTP/1.1 413 ")
    chunk = b"2000\r\n" + b"x" * 0x2000 + b"\r\n"
    assert service.send(head + b"transfer-encoding: chunked\r\n\r\n" + 2 * chunk).startswith(b"HTTP/1.1 413 ")
    assert service.send(b"\x16\x03\x01\x00\xff\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert service.send(b"GET /livez HTTP/1.1\r\nx: " + b"y" * 1_000_000).split(b"\r\n")[0] in (
        b"",
        b"HTTP/1.1 400 Bad Request",
    )
    odd = f"GET /%00%ff/../etc HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {KEY}\r\n\r\n".encode()
    assert service.send(odd).startswith(b"HTTP/1.1 404 ")
    with socket.create_connection(("127.0.0.1", service.port)) as half:
        half.sendall(head + b"content-length: 50\r\n\r\n{")

    answers: list[int] = []
    slow = socket.create_connection(("127.0.0.1", service.port))
    slow.sendall(head + b'content-length: 19\r\nconnection: close\r\n\r\n{"input":')  # accepted before the signal

    def finish() -> None:
        time.sleep(0.2)
        answers.append(service.ask("/v1/classify", {"input": "superb"})[0])  # within the grace
        answers.append(service.ask("/readyz")[0])
        time.sleep(0.5)
        answers.append(service.ask("/v1/classify", {"input": "superb"})[0])  # beyond it
        answers.append(service.ask("/livez")[0])
        slow.sendall(b' "superb"}')

    thread = threading.Thread(target=finish)
    thread.start()
    code, out, err = service.stop()
    thread.join()
    assert answers == [200, 503, 503, 200]
    slow.settimeout(10)
    assert slow.recv(65536).startswith(b"HTTP/1.1 200 ")
    slow.close()
    assert (code, out) == (0, "")
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["event"] for line in lines if line["event"] in ("leaving", "draining")] == ["leaving", "draining"]
    assert "superb" not in err
    assert KEY not in err


def test_what_is_cut_off_has_had_all_of_its_time(served: Callable[..., Served]) -> None:
    service = served("--grace", "0", "--drain-seconds", "1.5")
    head = f"POST /v1/classify HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as slow:
        slow.sendall(head.encode() + b'content-length: 19\r\n\r\n{"input":')
        assert service.ask("/readyz")[0] == 200
        service.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        raw = b"".join(iter(lambda: slow.recv(65536), b""))
        assert time.monotonic() - begun > 1.4
    code, _, err = service.stop()
    assert code == 1
    assert raw.startswith(b"HTTP/1.1 503 ")
    told = json.loads(raw.partition(b"\r\n\r\n")[2])
    assert told["error"]["kind"] == "draining"
    assert told["request_id"]
    assert "trace" not in err


def test_of_two_that_start_at_once_one_serves(finished: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "distilora", "serve", str(finished), "--port", str(port)]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        until = time.monotonic() + 60
        while (lost := next((one for one in both if one.poll() is not None), None)) is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        out, err = lost.communicate()
        assert (lost.returncode, out) == (2, "")
        assert re.fullmatch(
            rf"distilora: --port: {port} on 127.0.0.1 cannot be used \(.*\); give another --port\n", err
        )
        (won,) = [one for one in both if one is not lost]
        assert won.stdout is not None
        assert won.stdout.readline().endswith(f":{port}\n")
    finally:
        for one in both:
            one.kill()
            one.communicate(timeout=30)


def test_an_interrupt_ends_it_as_well_and_quiet_says_nothing(served: Callable[..., Served]) -> None:
    service = served("--grace", "0", "--quiet")
    service.ask("/v1/classify", {"input": "superb"})
    assert service.stop(signal.SIGINT) == (0, "", "")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forks")
def test_several_processes_on_one_port(served: Callable[..., Served]) -> None:
    service = served("--workers", "2", "--grace", "0")
    for _ in range(8):
        assert service.ask("/v1/classify", {"input": "superb"})[0] == 200
    text = service.ask("/metrics")[1].decode()
    assert 'distilora_requests_total{method="POST",route="/v1/classify",status="200"} 8.0' in text
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    assert len(children) == 2
    os.kill(int(children[0]), signal.SIGKILL)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        now = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
        if len(now) == 2 and children[0] not in now:
            break
        time.sleep(0.1)
    assert service.ask("/v1/classify", {"input": "superb"})[0] == 200
    code, _, err = service.stop()
    assert code == 0
    assert '"event": "process died"' in err


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forks")
def test_processes_leave_when_their_parent_is_killed(served: Callable[..., Served]) -> None:
    service = served("--workers", "2", "--grace", "0")
    service.process.kill()
    service.process.communicate(timeout=30)  # their ends of its pipes are closed, too
    with pytest.raises(OSError, match="refused"):
        service.ask("/livez")
