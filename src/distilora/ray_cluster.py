"""Connects to a Ray cluster, or starts one on this machine that ends with the command; no telemetry is sent from it."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distilora import hardware
from distilora.errors import EngineError

OBJECTS = 128 << 20  # bytes of a local cluster's object store
UNREACHABLE = (ConnectionError, RuntimeError, ValueError, TimeoutError)  # raised by ray.init if no cluster answers


def silence() -> None:
    """Set what Ray reads when it is imported: no telemetry from a cluster started here, and none of Ray's log lines."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")


@contextmanager
def connected(ray: Any, address: str | None, cpus: int) -> Iterator[None]:
    """Connect to the cluster at the address, or start a local one of so many CPUs; at the end disconnect or stop it.

    Raises EngineError if there is no such cluster.
    """
    starting = not ray.is_initialized()
    try:
        if starting and address:
            _check_reachable(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        elif starting:
            ray.init(
                address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
                object_store_memory=OBJECTS,
            )  # fmt: skip
    except UNREACHABLE as error:
        where = f"the cluster at {address}" if address else "a local cluster"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EngineError(f"--engine: Ray cannot reach or start {where} ({reason}); check --address") from None
    try:
        yield
    finally:
        if starting:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing listens at HOST:PORT, which Ray would retry for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def local_threads(count: int) -> int:
    """Return the threads of each of so many workers on this machine: `--threads`, else an equal share of the cores."""
    return hardware.threads(max(1, hardware.cores() // count))


def cluster_threads(ray: Any, count: int) -> int:
    """Return the threads of each of so many workers on the cluster: `--threads`, else an equal share of the cores.

    They exceed neither that share nor the cores of the smallest machine, or Ray would wait forever.
    """
    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    share = max(1, min(sum(cores) // count, min(filter(None, cores), default=1)))
    return min(share, hardware.threads(share))
