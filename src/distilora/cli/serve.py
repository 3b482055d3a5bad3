"""The command `distilora serve`: answers over HTTP with one finished run or many, until it is told to stop."""

import ipaddress
import logging
import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from distilora import progress
from distilora.cli.arguments import Parser
from distilora.errors import ConfigError, MissingExtra
from distilora.serving.limits import Limits

if TYPE_CHECKING:
    import socket

    from distilora.tasks.base import Task

EXTRA = ("fastapi", "starlette", "uvicorn", "prometheus_client", "httptools")
_NAMED = re.compile(r"([^/\\=]+)=(.+)", re.DOTALL)


def serve_command(words: Sequence[str]) -> int:
    """Serve as the arguments say, until SIGTERM or SIGINT; return the exit code."""
    about = "Answers over HTTP with finished runs, or exports; those on the same encoder share it. docs/serving.md shows the API."
    parser = Parser(prog="distilora serve", description=about)
    parser.add_argument("runs", metavar="[NAME=]RUN", nargs="+",
                        help="folder of a finished run or an export; its name is the folder's unless NAME is given")  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--port", metavar="N", type=int, default=8000, help="0: a free one, which is printed (default: 8000)"
    )
    parser.add_argument("--api-key-file", metavar="FILE", help="keys that clients must have, one a line")
    parser.add_argument(
        "--admin-key-file", metavar="FILE", help="keys to add and remove models with; without, nobody can"
    )
    parser.add_argument("--allow-anonymous", action="store_true", help="listen beyond this machine without keys")
    parser.add_argument("--corrections", metavar="FILE.jsonl",
                        help="keep what people on the page say is wrong, as data to train on (default: nothing)")  # fmt: skip
    parser.add_argument("--cors-origin", metavar="ORIGIN", action="append", default=[],
                        help="pages of this origin may ask, as https://example.org; repeatable (default: none)")  # fmt: skip
    parser.add_argument("--grace", metavar="S", type=float, default=1.0,
                        help="seconds for which requests are accepted after SIGTERM (default: 1)")  # fmt: skip
    parser.add_argument("--drain-seconds", metavar="S", type=float, default=30.0,
                        help="seconds from SIGTERM to the end, at most (default: 30)")  # fmt: skip
    parser.add_argument("--workers", metavar="N", type=int, default=1,
                        help="processes, each with models of its own (default: 1, which uses all cores)")  # fmt: skip
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32", "int8"], default="auto",
                        help="auto: for an export the choice of its parity gate, for a run bf16 where it is native")  # fmt: skip
    parser.add_argument("--access-log", choices=["on", "off"], default="on",
                        help="a line on stderr for each request (default: on; --quiet: off)")  # fmt: skip
    for limit in fields(Limits):
        shown = "one per core" if limit.default is None else f"{limit.default:,}"
        parser.add_argument(f"--limits.{limit.name}", metavar="N", type=int, default=limit.default,
                            help=f"{_about(limit.name)} (default: {shown})")  # fmt: skip
    args = parser.parse_intermixed_args(words)
    with parser.naming_options(words):
        return _serve(args)


def _about(name: str) -> str:
    return {
        "body_bytes": "most bytes of a body",
        "inputs": "most inputs of a request",
        "characters": "most characters of an input",
        "request_tokens": "most tokens of a request",
        "waiting_tokens": "most tokens that wait; requests beyond them are refused",
        "batch_tokens": "tokens computed at once",
        "lanes": "batches computed at once",
        "timeout_ms": "longest time to an answer",
        "json_depth": "deepest nesting of JSON",
    }.get(name, name)


def _serve(args: Namespace) -> int:
    limits = Limits(**{limit.name: getattr(args, f"limits.{limit.name}") for limit in fields(Limits)})
    runs = named_runs(args.runs)
    for option, value, least in (("--grace", args.grace, 0), ("--drain-seconds", args.drain_seconds, 1)):
        if not least <= value <= 3600:
            raise ConfigError(f"{option}: {value:g} given, {least} to 3600 seconds wanted")
    if not 0 <= args.port <= 65535:  # the system would take it modulo 65536
        raise ConfigError(f"--port: {args.port} given, 0 to 65535 wanted")
    if not 1 <= args.workers <= 256:
        raise ConfigError(f"--workers: {args.workers} given, 1 to 256 wanted")
    if args.workers > 1 and args.admin_key_file:
        raise ConfigError("--workers: models are added to one process only; drop --admin-key-file, or serve with one")
    origins = [_origin(text) for text in args.cors_origin]
    _check_extra()
    from distilora.serving.corrections import check_corrections
    from distilora.serving.keys import read_keys

    if args.corrections is not None:
        check_corrections(Path(args.corrections))
        if args.workers > 1:
            raise ConfigError("--workers: one process writes corrections; drop --corrections, or serve with one")
    keys = read_keys(args.api_key_file, "--api-key-file")
    read_keys(args.admin_key_file, "--admin-key-file")
    if not (keys or args.allow_anonymous or _is_loopback(args.host)):
        raise ConfigError(
            f"--host: {args.host} can be reached from other machines, and there are no keys; give --api-key-file FILE, or "
            "--allow-anonymous if everybody there may ask"
        )
    from distilora.serving.logs import to_stderr
    from distilora.serving.server import address_of, bound

    to_stderr(logging.WARNING if progress.is_quiet() else logging.INFO)
    own = bound(args.host, args.port)

    def announce() -> None:
        print(f"serving {', '.join(runs)} at {address_of(own)}", flush=True)

    with own:
        if args.workers == 1:
            return _work(args, limits, runs, origins, own, announce)
        from distilora.hardware import threads, use_threads
        from distilora.serving.processes import serve_together

        def work(tell: Callable[[], None]) -> int:
            use_threads(max(1, threads() // args.workers))
            return _work(args, limits, runs, origins, own, tell)

        return serve_together(args.workers, work, announce)


def _work(
    args: Namespace, limits: Limits, runs: dict[str, str], origins: list[str], own: "socket.socket", ready: Callable[[], None]
) -> int:  # fmt: skip
    """Load the models and serve them."""
    from distilora.serving.app import application
    from distilora.serving.corrections import corrections
    from distilora.serving.keys import read_keys
    from distilora.serving.pool import Pool
    from distilora.serving.server import run
    from distilora.serving.service import Service

    pool = Pool(args.precision)
    for name, folder in runs.items():
        pool.add(name, folder)
    service = Service(
        pool, limits, read_keys(args.api_key_file, "--api-key-file"), read_keys(args.admin_key_file, "--admin-key-file"),
        origins=origins, log_requests=args.access_log == "on", corrections=args.corrections is not None,
    )  # fmt: skip

    def model(name: str | None) -> tuple[str, "Task"]:
        chosen = pool.get(name)
        return chosen.name, chosen.predictor.task

    kept = corrections(Path(args.corrections) if args.corrections else None, model, limits)
    progress.quiet()  # notes on models that are added later are no lines of JSON
    try:
        drained = run(application(service, kept), service, own, args.grace, args.drain_seconds, ready)
    finally:
        service.close()
    return 0 if drained else 1


def named_runs(words: Sequence[str]) -> dict[str, str]:
    """Return the folder of each name. Raises ConfigError for a name that cannot be one, and for two alike."""
    from distilora.serving.names import check_name

    runs: dict[str, str] = {}
    for word in words:
        match = None if Path(word).exists() else _NAMED.fullmatch(word)
        if match:
            name, folder = match.groups()
        else:
            folder = word
            path = Path(word).expanduser()
            named = path.absolute() if word in (".", "..") or path.exists() else path
            named = named.resolve() if word in (".", "..") else named
            name = named.parent.name if named.name == "model" else named.name
        check_name(name, word)
        if name in runs:
            raise ConfigError(f"{word}: two models are called {name}; name one of them, as OTHER={folder}")
        runs[name] = folder
    return runs


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or text != f"{parts.scheme}://{parts.netloc}":
        raise ConfigError(f"--cors-origin: {text!r} given, an origin such as https://example.org wanted")
    return text


def _check_extra() -> None:
    import importlib.util

    for package in EXTRA:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "serve")
