"""Measures the service for Prometheus: requests, refusals, inputs and tokens, time by stage, the queue, the batches.

Labels are the templates of routes, names of models, kinds of refusals: never anything that a client makes up. Where several
processes serve one port, PROMETHEUS_MULTIPROC_DIR is set before this module is imported, and every one of them tells of all.
"""

import os
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from distilora.serving.batcher import Batcher
    from distilora.serving.pool import Pool

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
INPUTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
STAGES = ("tokenise", "queue", "compute", "decode")


class Measures:
    """Counters, histograms and gauges of one application."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self._requests = Counter("distilora_requests", "Requests answered", ["route", "method", "status"], registry=own)
        self._refusals = Counter("distilora_refusals", "Requests refused or failed", ["kind"], registry=own)
        self._inputs = Counter("distilora_inputs", "Inputs answered", ["model"], registry=own)
        self._tokens = Counter("distilora_tokens", "Tokens computed", ["model"], registry=own)
        self._truncated = Counter("distilora_truncated", "Inputs cut to what the model reads", ["model"], registry=own)
        self._seconds = Histogram(
            "distilora_request_seconds",
            "From a request's arrival to its answer",
            ["route"],
            buckets=SECONDS,
            registry=own,
        )
        self._stages = Histogram(
            "distilora_stage_seconds", "Time of a request in a stage", ["stage"], buckets=SECONDS, registry=own
        )
        self._batch_inputs = Histogram(
            "distilora_batch_inputs", "Inputs computed together", buckets=INPUTS, registry=own
        )
        self._batch_tokens = Histogram(
            "distilora_batch_tokens", "Tokens computed together", buckets=TOKENS, registry=own
        )
        gauges = {
            "depth": ("distilora_queue_inputs", "Inputs that wait"),
            "tokens": ("distilora_queue_tokens", "Tokens that wait"),
            "flying": ("distilora_requests_in_flight", "Requests being answered"),
            "models": ("distilora_models", "Models served"),
        }
        self._gauges = {
            key: Gauge(name, about, registry=own, multiprocess_mode="livemax" if key == "models" else "livesum")
            for key, (name, about) in gauges.items()
        }

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def refused(self, kind: str) -> None:
        """Count a refusal."""
        self._refusals.labels(kind).inc()

    def computed(self, model: str, inputs: int, tokens: int, truncated: int) -> None:
        """Count what was computed for a request."""
        self._inputs.labels(model).inc(inputs)
        self._tokens.labels(model).inc(tokens)
        self._truncated.labels(model).inc(truncated)

    def spent(self, stage: str, seconds: float) -> None:
        """Observe the time of a request in one of STAGES."""
        self._stages.labels(stage).observe(seconds)

    @property
    def shared(self) -> bool:
        """Whether other processes show what this one measures, so that it must keep its gauges up to date."""
        return "PROMETHEUS_MULTIPROC_DIR" in os.environ

    def look(self, batcher: "Batcher", pool: "Pool", flying: int) -> None:
        """Read the gauges and the sizes of the latest batches."""
        values = {
            "depth": batcher.depth, "tokens": batcher.waiting_tokens, "flying": flying, "models": len(pool.models)
        }  # fmt: skip
        for key, value in values.items():
            self._gauges[key].set(value)
        sizes = batcher.batch_sizes
        while sizes:
            inputs, tokens = sizes.popleft()
            self._batch_inputs.observe(inputs)
            self._batch_tokens.observe(tokens)

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format, of all processes that serve together."""
        if not self.shared:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
