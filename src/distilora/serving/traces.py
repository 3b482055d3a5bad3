"""Traces for OpenTelemetry, sent where `--otlp-endpoint` says and nowhere else: a span for each request that has a line in the log.

A span has what the line has, but the client: route, status, model, counts, milliseconds by stage; no text, no key, no query. It
continues the trace in the request's `traceparent`, if there is one.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from distilora.errors import ConfigError, MissingExtra
from distilora.serving.logs import log

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

EXTRA = "tracing"
PATH = "/v1/traces"
SEND_S = 3  # for sending, at the end of the service, too


class Traces:
    """Spans of requests, sent by a thread in the background. Nothing else in the process is traced."""

    def __init__(self, exporter: "SpanExporter") -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = TracerProvider(resource=Resource.create({"service.name": "distilora"}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("distilora.serving")
        self._parents = TraceContextTextMapPropagator()

    def record(self, headers: Mapping[str, str], seconds: float, line: Mapping[str, Any]) -> None:
        """Record a request that has just been answered, and took so many seconds, by the fields of its log line."""
        from opentelemetry.trace import SpanKind, StatusCode

        end = time.time_ns()
        attributes = {
            "http.request.method": line["method"],
            "http.route": line["route"],
            "http.response.status_code": line["status"],
            **{f"distilora.{name}": line[name] for name in ("request_id", "model", "inputs", "tokens") if name in line},
            **{f"distilora.ms.{stage}": spent for stage, spent in line["ms"].items()},
        }
        span = self._tracer.start_span(
            f"{line['method']} {line['route']}", self._parents.extract(headers), SpanKind.SERVER, attributes,
            start_time=end - round(seconds * 1e9),
        )  # fmt: skip
        if line["status"] >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(end)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


class Told:
    """Span exporter that tells once, naming the option, that another one cannot send, until that can again."""

    def __init__(self, exporter: "SpanExporter", host: str) -> None:
        self._exporter, self._host = exporter, host
        self._failing = False
        self.shutdown, self.force_flush = exporter.shutdown, exporter.force_flush

    def export(self, spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
        """Send spans."""
        result = self._exporter.export(spans)
        failed = result.name != "SUCCESS"
        if failed and not self._failing:
            remedy = "start a collector there, or drop the option"
            log(logging.WARNING, f"--otlp-endpoint: traces cannot be sent to {self._host}; {remedy}")
        self._failing = failed
        return result


def check_endpoint(endpoint: str) -> None:
    """Raise ConfigError for what is no address of a collector, MissingExtra if nothing could be sent."""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ConfigError(f"--otlp-endpoint: {endpoint!r} given, an address such as http://localhost:4318 wanted")
    try:
        installed = find_spec("opentelemetry.sdk") and find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        installed = None
    if not installed:
        raise MissingExtra("opentelemetry-exporter-otlp-proto-http", EXTRA)


def open_traces(endpoint: str) -> Traces:
    """Return traces that are sent to a collector at an address, by OTLP over HTTP."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    logging.getLogger("opentelemetry.exporter").setLevel(
        logging.CRITICAL
    )  # Told tells in one line, by the option's name
    address = endpoint.rstrip("/")
    exporter = OTLPSpanExporter(address if address.endswith(PATH) else address + PATH, timeout=SEND_S)
    return Traces(cast("SpanExporter", Told(exporter, urlsplit(endpoint).netloc)))
