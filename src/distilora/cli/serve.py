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

    from distilora.serving.settings import Settings

EXTRA = ("fastapi", "starlette", "uvicorn", "prometheus_client", "httptools")
REPLICAS = 2
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
                        help="seconds from SIGTERM until what is not answered is cut off (default: 30)")  # fmt: skip
    parser.add_argument("--workers", metavar="N", type=int, default=1,
                        help="processes, each with models of its own (default: 1, which uses all cores)")  # fmt: skip
    parser.add_argument("--engine", choices=["local", "ray"], default="local",
                        help="ray: replicas on a Ray cluster, or on one started here (default: local)")  # fmt: skip
    parser.add_argument("--replicas", metavar="N", type=int, help="replicas of the ray engine (default: 2)")
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="the Ray cluster; auto: the one running here (default: start one)"
    )
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32", "int8"], default="auto",
                        help="auto: for an export the choice of its parity gate, for a run bf16 where it is native")  # fmt: skip
    parser.add_argument("--access-log", choices=["on", "off"], default="on",
                        help="a line on stderr for each request (default: on; --quiet: off)")  # fmt: skip
    parser.add_argument(
        "--otlp-endpoint", metavar="URL", help="send traces there, as to http://localhost:4318 (default: nowhere)"
    )
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
    _check_numbers(args)
    _check_engine(args)
    origins = [_origin(text) for text in args.cors_origin]
    _check_extra()
    from distilora.serving.corrections import check_corrections
    from distilora.serving.keys import read_keys
    from distilora.serving.settings import Settings
    from distilora.serving.traces import check_endpoint

    if args.otlp_endpoint is not None:
        check_endpoint(args.otlp_endpoint)
    if args.corrections is not None:
        check_corrections(Path(args.corrections))
    settings = Settings(
        runs, limits, args.precision, read_keys(args.api_key_file, "--api-key-file"),
        read_keys(args.admin_key_file, "--admin-key-file"), origins, args.access_log == "on",
        Path(args.corrections) if args.corrections else None, args.otlp_endpoint,
    )  # fmt: skip
    if settings.keys.shares(settings.admin_keys):
        raise ConfigError(
            "--admin-key-file: holds a key of --api-key-file, which would open both; make another for one of them"
        )
    if not (settings.keys or args.allow_anonymous or _is_loopback(args.host)):
        raise ConfigError(
            f"--host: {args.host} can be reached from other machines, and there are no keys; give --api-key-file FILE, or "
            "--allow-anonymous if everybody there may ask"
        )
    from distilora.serving.logs import to_stderr
    from distilora.serving.server import address_of, bound

    log_level = logging.WARNING if progress.is_quiet() else logging.INFO
    to_stderr(log_level)
    own = bound(args.host, args.port)
    address = address_of(own)

    def announce() -> None:
        print(f"serving {', '.join(runs)} at {address}", flush=True)

    with own:
        if args.engine == "local" and args.workers == 1:
            return _work(args, settings, own, announce)
        if args.engine == "local":
            return _work_together(args, settings, own, announce)
    from distilora.serving.ray_engine import Cluster, serve_on_ray

    port = int(address.rpartition(":")[2])  # was free just now
    cluster = Cluster(
        args.replicas or REPLICAS, args.address, args.host, port, args.grace, args.drain_seconds, log_level
    )
    return serve_on_ray(settings, cluster, announce)


def _check_numbers(args: Namespace) -> None:
    """Raise ConfigError for a number out of its range."""
    for option, value, least in (("--grace", args.grace, 0), ("--drain-seconds", args.drain_seconds, 1)):
        if not least <= value <= 3600:
            raise ConfigError(f"{option}: {value:g} given, {least} to 3600 seconds wanted")
    if not 0 <= args.port <= 65535:  # the system would take it modulo 65536
        raise ConfigError(f"--port: {args.port} given, 0 to 65535 wanted")
    for option, value in (("--workers", args.workers), ("--replicas", args.replicas)):
        if value is not None and not 1 <= value <= 256:
            raise ConfigError(f"{option}: {value} given, 1 to 256 wanted")


def _check_engine(args: Namespace) -> None:
    """Raise ConfigError for an option that does not hold with the engine, or with several processes."""
    if args.engine == "local":
        for option, value in (("--replicas", args.replicas), ("--address", args.address)):
            if value is not None:
                raise ConfigError(f"{option}: replicas are those of --engine ray; add that, or drop {option}")
    several = f"--workers {args.workers}" if args.workers > 1 else "--engine ray" if args.engine == "ray" else None
    if args.engine == "ray" and args.workers > 1:
        raise ConfigError("--workers: --engine ray has replicas instead; give --replicas N")
    if several and args.admin_key_file:
        raise ConfigError(f"--admin-key-file: models are added to one process only; drop it, or {several}")
    if several and args.corrections is not None:
        raise ConfigError(f"--corrections: one process writes them; drop it, or {several}")


def _work_together(
    args: Namespace, settings: "Settings", own: "socket.socket", announce: Callable[[], None]
) -> int:  # fmt: skip
    """Serve with several processes."""
    from distilora.hardware import threads, use_threads
    from distilora.serving.processes import serve_together

    def work(tell: Callable[[], None]) -> int:
        use_threads(max(1, threads() // args.workers))
        return _work(args, settings, own, tell)

    return serve_together(args.workers, work, announce)


def _work(args: Namespace, settings: "Settings", own: "socket.socket", ready: Callable[[], None]) -> int:
    """Load the models and serve them."""
    from distilora.serving.assembly import assemble
    from distilora.serving.server import run

    service, app = assemble(settings)
    progress.quiet()  # notes on models that are added later are no lines of JSON
    try:
        drained = run(app, service, own, args.grace, args.drain_seconds, ready)
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
