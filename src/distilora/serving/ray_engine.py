"""Serves from several replicas on Ray Serve: on a cluster started here, or on one that exists.

    client -> Ray's proxy, one on each machine with a replica -> a replica: models, queue and routes of its own (replica.py)

A replica that dies, or whose models stop computing what they ought to, is replaced by Ray. A request that it had not yet accepted
goes to another; one that it had accepted fails with 500. On the cluster Serve must not run already: its port and host are those
of whoever started it.
"""

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distilora.artifact.find import find_model
from distilora.errors import ConfigError, EngineError, MissingExtra
from distilora.ray_cluster import cluster_threads, connected, local_threads, silence
from distilora.serving.replica import Board, Job, Replica, carried
from distilora.serving.server import CLOSING_S, KEEP_ALIVE_S
from distilora.serving.service import MOST_FLYING
from distilora.serving.settings import Settings
from distilora.tasks.file import used_task_file

NAME = "distilora"
EXTRA = "serve-ray"
MARGIN = (
    64  # requests beyond those that a replica answers at once: it refuses them by itself, with 429 and a time to wait
)
QUEUED = 256  # requests that wait at a proxy for a replica; Ray refuses more of them with 503
HEALTH_S, HEALTH_TIMEOUT_S = 5, 30  # between two looks at a replica, and for an answer: a busy one may be slow
REPLACED_S = 5  # for a replica that is replaced to finish what it has


@dataclass(frozen=True)
class Cluster:
    """Where and how a service runs on Ray; without an `address` on a cluster of its own on this machine."""

    replicas: int
    address: str | None
    host: str
    port: int
    grace: float
    seconds: float
    log_level: int


def serve_on_ray(settings: Settings, cluster: Cluster, announce: Callable[[], None]) -> int:
    """Serve until SIGTERM or SIGINT; return 0 if everything that was accepted was answered, else 1.

    Args:
        announce: called when all replicas serve.

    Raises MissingExtra without Ray Serve, EngineError if the cluster does not serve, ConfigError for what it cannot serve.
    """
    ray, serve = _imported()
    for folder in settings.runs.values():
        find_model(folder)  # before anything is started
    models = carried(settings.runs) if cluster.address else None
    with connected(ray, cluster.address, cluster.replicas * local_threads(cluster.replicas)):
        if cluster.address:
            _check_cluster(ray, serve, cluster.replicas)
        told = _told_to_leave()
        board = ray.remote(num_cpus=0)(Board).remote()
        job = Job(
            settings=replace(settings, on_ray=True), board=board, copies=None if models is None else ray.put(models),
            threads=cluster_threads(ray, cluster.replicas) if cluster.address else local_threads(cluster.replicas),
            folder=str(Path.cwd()), task_file=used_task_file(), log_level=cluster.log_level, grace=cluster.grace,
            seconds=cluster.seconds,
        )  # fmt: skip
        try:
            _start(serve, job, cluster)
            announce()
            while not told.wait(1):
                pass
            return 0 if _drained(ray, board, cluster.seconds) else 1
        finally:
            serve.shutdown()


def _imported() -> tuple[Any, Any]:
    silence()
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise MissingExtra(error.name or "ray[serve]", EXTRA) from None
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    return ray, serve


def _check_cluster(ray: Any, serve: Any, replicas: int) -> None:
    """Raise EngineError for a cluster with another service, ConfigError for one with too few cores."""
    status = serve.status()
    if status.proxies or status.applications:
        raise EngineError(
            "--address: Ray Serve runs on that cluster already, on a port of its own; stop it (serve shutdown), or use another"
        )
    cores = int(ray.cluster_resources().get("CPU", 0))
    if replicas > cores:
        raise ConfigError(f"--replicas: {replicas} given, the cluster has {cores} cores; give at most as many")


def _told_to_leave() -> threading.Event:
    """Return an event that the first SIGTERM or SIGINT sets; a second one ends the process at once."""
    told = threading.Event()

    def leave(number: int, frame: object) -> None:
        if told.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):  # after Ray's own
        signal.signal(number, leave)
    return told


def _start(serve: Any, job: Job, cluster: Cluster) -> None:
    """Start the proxies and replicas; return when all of them serve. Raises EngineError if they do not."""
    quiet = {"log_level": "ERROR", "enable_access_log": False}  # Ray's lines have queries in them
    deployment = serve.deployment(
        name=NAME,
        num_replicas=cluster.replicas,
        ray_actor_options={"num_cpus": job.threads},
        max_ongoing_requests=MOST_FLYING + MARGIN,
        max_queued_requests=QUEUED,
        health_check_period_s=HEALTH_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=REPLACED_S,
        max_constructor_retry_count=1,  # what cannot be loaded at the start cannot be loaded a second time
        logging_config=quiet,
    )(serve.ingress()(Replica))
    http = {"host": cluster.host, "port": cluster.port, "keep_alive_timeout_s": KEEP_ALIVE_S}
    try:
        serve.start(proxy_location="EveryNode", http_options=http, logging_config=quiet)
    except (RuntimeError, TimeoutError) as error:
        raise _not_started(str(error)) from None
    try:
        serve.run(deployment.bind(job), name=NAME, route_prefix="/", logging_config=quiet)
    except (RuntimeError, TimeoutError) as error:
        deployments = serve.status().applications[NAME].deployments.values()
        raise _not_started("\n".join([str(error), *(one.message for one in deployments)])) from None


def _not_started(message: str) -> EngineError:
    return EngineError(f"--engine: Ray Serve did not start ({_reason(message)}); fix that, and start again")


def _reason(message: str) -> str:
    """Return the line of a replica's error in what Ray tells of it, else the last one."""
    own: list[str] = re.findall(r"^\s*distilora\.\S+?: (.+)$", message, re.MULTILINE)
    lines = own or [line.strip() for line in message.splitlines() if line.strip()] or ["no reason given"]
    return lines[-1].rstrip(".")


def _drained(ray: Any, board: Any, seconds: float) -> bool:
    """Let the replicas leave; return whether all that live answered what they had accepted in so many seconds."""
    until = time.monotonic() + seconds + 2 * CLOSING_S  # those that cut something off tell so after that
    ray.get(board.leave.remote())
    while time.monotonic() < until:
        actors, outcomes = ray.get(board.state.remote())
        if not any(_lives(ray, actor) for name, actor in actors.items() if name not in outcomes):
            time.sleep(CLOSING_S)  # what they said last is on its way through the proxies
            return all(outcomes.values())
        time.sleep(0.1)
    return False


def _lives(ray: Any, actor: Any) -> bool:
    try:
        ray.get(actor.__ray_ready__.remote(), timeout=1)
    except ray.exceptions.GetTimeoutError:
        return True  # but is busy
    except ray.exceptions.RayActorError:
        return False
    return True
