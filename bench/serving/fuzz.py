"""Requests that nobody should send, to a service that runs: whatever comes, no status of 500 or more, no hang, no growth.

    python -m bench.serving.fuzz http://127.0.0.1:8000 --requests 20000 --seed 0        prints counts as JSON

Bodies begin as the examples of the service's own OpenAPI document. Their values are exchanged for odd ones (huge numbers, lone
surrogates, NUL, deep nesting, wrong types), their bytes are broken, their length is a lie, they come slowly or end in the middle;
methods, paths and headers are bent, too. Every thread has a generator of its own, so a seed repeats what was sent.
"""

import argparse
import json
import random
import socket
import threading
import time
import urllib.request
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

THREADS = 8
PATIENCE = 20.0  # seconds; a request without an answer after them is a hang
Template = tuple[str, str, str, str]  # method, path, content type, body

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e308, -0.0, 0.1, "", " ", "\x00", "\ud800", "\U0010ffff",
    "\u202e", "a" * 3000, "\n", [], {}, [[]], [None], [1, "a"], {"a": 1}, ["x"] * 700, {"text": "x"}, "1e999", "NaN",
    "../../etc/passwd", "{{7*7}}", "'; drop table models; --", "<script>alert(1)</script>",
)  # fmt: skip
RAW = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999999", b"[" * 100_000, b'{"a":' * 50_000, b'"\\ud800"', b"\xff\xfe", b"", b"nul", b"{",
    b"}", b'{"input": "a", "input": "b"}', b"\x00" * 1000, b"[1,]", b"{'a': 1}", b"0" * 5000, b'"' + b"a" * 200_000 + b'"',
)  # fmt: skip
METHODS = ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW", "POST")
ENDINGS = (
    "/",
    "?model=%00",
    "?" + "a=b&" * 500,
    "?top_k=NaN&timeout_ms=1e99",
    "/%2e%2e/%2e%2e/etc/passwd",
    "//",
    "/%ff",
)
TYPES = ("text/plain", "application/xml", "application/json; charset=utf-16", "multipart/form-data", "", "a" * 500)
LINES = (
    "authorization: Bearer \x7f", "x-request-id: " + "a" * 300, "accept: " + "*," * 400, "content-length: -1",
    "expect: 100-continue",
)  # fmt: skip


def templates(base: str) -> list[Template]:
    """Collect the examples of every route in the service's OpenAPI document, and every route that wants no body."""
    with urllib.request.urlopen(f"{base}/openapi.json", timeout=PATIENCE) as answer:
        document = json.loads(answer.read())
    found: list[Template] = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            concrete = path.replace("{name}", "imdb")
            contents = operation.get("requestBody", {}).get("content", {})
            if not contents:
                found.append((method.upper(), concrete, "", ""))
            for kind, content in contents.items():
                examples = [example.get("value") for example in content.get("examples", {}).values()]
                examples += [content["example"]] if "example" in content else []
                for example in examples or [{}]:
                    body = example if isinstance(example, str) and "ndjson" in kind else json.dumps(example)
                    found.append((method.upper(), concrete, kind, body))
    return found


def bent(value: Any, rng: random.Random) -> Any:
    """Exchange, drop or add something somewhere in a JSON value."""
    if rng.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return rng.choice(ODD)
    if isinstance(value, list):
        copy = list(value)
        place = rng.randrange(len(copy))
        copy[place] = bent(copy[place], rng)
        return copy * rng.choice((1, 1, 1, 2, 50))
    keys = list(value)
    changed = dict(value)
    key = rng.choice(keys)
    move = rng.random()
    if move < 0.15:
        del changed[key]
    elif move < 0.3:
        changed[rng.choice((key.upper(), key + "s", "model", "", "\x00", "__class__", "timeout_ms", "top_k"))] = (
            rng.choice(ODD)
        )
    else:
        changed[key] = bent(changed[key], rng)
    return changed


def broken(raw: bytes, rng: random.Random) -> bytes:
    """Break the bytes of a body."""
    if rng.random() < 0.3:
        return rng.choice(RAW)
    if not raw:
        return rng.randbytes(rng.randrange(50))
    place = rng.randrange(len(raw))
    return rng.choice(
        (raw[:place], raw[:place] + rng.randbytes(rng.randrange(1, 9)) + raw[place:], raw + raw, raw[:place] + raw[place + 1 :],
         b"\xef\xbb\xbf" + raw, raw.decode("utf-8", "replace").encode("utf-16"))
    )  # fmt: skip


def made(template: Template, rng: random.Random) -> tuple[bytes, bytes, str]:
    """Make a request out of a template: head, body, and how it is sent: whole, slowly, cut, or with a length that is a lie."""
    method, path, kind, text = template
    raw = text.encode()
    move = rng.random()
    if kind and move < 0.6:
        try:
            raw = json.dumps(bent(json.loads(text), rng)).encode("utf-8", "surrogatepass")
        except ValueError:  # lines of NDJSON
            raw = broken(raw, rng)
    elif kind and move < 0.85:
        raw = broken(raw, rng)
    if rng.random() < 0.05:
        method = rng.choice(METHODS)
    if rng.random() < 0.05:
        path += rng.choice(ENDINGS)
    if rng.random() < 0.05:
        kind = rng.choice(TYPES)
    manner = rng.choices(("whole", "slow", "cut", "long", "short", "chunked"), (80, 1, 6, 4, 4, 5))[0]
    length = len(raw) + {"long": 10, "short": -min(5, len(raw))}.get(manner, 0)
    lines = [f"{method} {path} HTTP/1.1", "host: fuzz", "connection: close"]
    lines += [f"content-type: {kind}"] if kind else []
    if manner == "chunked":
        lines.append("transfer-encoding: chunked")
    elif raw or method == "POST":
        lines.append(f"content-length: {length}")
    lines += [rng.choice(LINES)] if rng.random() < 0.03 else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace"), raw, manner


def send(host: str, port: int, head: bytes, raw: bytes, manner: str) -> int:
    """Send a request; return its status, 0 where the connection was closed without one, -1 for a hang."""
    try:
        with socket.create_connection((host, port), timeout=PATIENCE) as connection:
            if manner == "chunked":
                half = len(raw) // 2
                raw = (
                    b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (raw[:half], raw[half:]) if part)
                    + b"0\r\n\r\n"
                )
            connection.sendall(head)
            if manner == "slow":
                for place in range(0, min(len(raw), 20)):
                    connection.sendall(raw[place : place + 1])
                    time.sleep(0.02)
                raw = raw[20:]
            if manner == "cut":
                connection.sendall(raw[: len(raw) // 2])
                return 0
            connection.sendall(raw)
            if manner == "long":
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while b"\r\n" not in answer:
                part = connection.recv(4096)
                if not part:
                    return 0
                answer += part
            while connection.recv(65536):
                pass
            return int(answer.split(b" ", 2)[1])
    except TimeoutError:
        return -1
    except (OSError, ValueError, IndexError):
        return 0  # it was refused so early that the service had closed already


def fuzz(base: str, count: int, seed: int = 0) -> dict[str, Any]:
    """Send so many requests; return how many of each status came back, and the first requests that ended badly."""
    address, kinds = urlsplit(base), templates(base)
    assert address.hostname is not None
    assert address.port is not None
    statuses: Counter[int] = Counter()
    bad: list[str] = []
    asked = 0  # answers of 504 to requests with a timeout_ms of their own: it was too short, as they wanted
    lock = threading.Lock()

    def work(number: int) -> None:
        nonlocal asked
        rng = random.Random(f"{seed}/{number}")
        for _ in range(count // THREADS):
            head, raw, manner = made(rng.choice(kinds), rng)
            status = send(str(address.hostname), int(address.port or 80), head, raw, manner)
            with lock:
                statuses[status] += 1
                wanted = status == 504 and b"timeout_ms" in head + raw
                asked += wanted
                if not wanted and (status >= 500 or status < 0) and len(bad) < 20:
                    bad.append(f"{status} {manner} {head[:200]!r} {raw[:200]!r}")

    started = time.monotonic()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with urllib.request.urlopen(f"{base}/readyz", timeout=PATIENCE) as answer:
        alive = answer.status == 200
    return {
        "requests": sum(statuses.values()),
        "statuses": {str(status): number for status, number in sorted(statuses.items())},
        "asked_504": asked,
        "of_500_or_more": sum(number for status, number in statuses.items() if status >= 500) - asked,
        "hangs": statuses[-1],
        "ready_afterwards": alive,
        "bad": bad,
        "seconds": round(time.monotonic() - started, 1),
    }


def main() -> None:
    """Fuzz a service and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(json.dumps(fuzz(args.base.rstrip("/"), args.requests, args.seed), indent=1))


if __name__ == "__main__":
    main()
