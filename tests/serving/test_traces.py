"""Traces: a span for each request with a line in the log, without texts, keys or queries, sent where they are wanted alone."""

import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from distilora.serving import service as service_module
from distilora.serving.keys import Keys
from distilora.serving.traces import Traces, open_traces

pytest.importorskip("opentelemetry.sdk")
SECRET = "correct-horse-battery-staple"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_span_for_each_request_and_no_text_in_any(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    traces = Traces(exporter)
    client = serve(keys=Keys([SECRET]), traces=traces, log_requests=False)
    headers = {"authorization": f"Bearer {SECRET}", "x-request-id": "seven"}
    parent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    client.post("/v1/classify?x=hidden", json={"input": "mellifluous"}, headers={**headers, **parent})
    client.get("/mellifluous", headers=headers)
    client.get("/livez")
    monkeypatch.setattr(service_module, "MOST_FLYING", -1)
    monkeypatch.setattr(client.service, "phase", "draining")
    client.post("/v1/classify", json={"input": "mellifluous"}, headers=headers)
    traces.close()
    first, second, third = exporter.get_finished_spans()
    assert [span.name for span in (first, second, third)] == ["POST /v1/classify", "GET other", "POST other"]
    attributes = dict(first.attributes)
    assert attributes["http.response.status_code"] == 200
    assert (attributes["distilora.model"], attributes["distilora.inputs"]) == ("reviews", 1)
    assert attributes["distilora.request_id"] == "seven"
    assert 0 < attributes["distilora.ms.compute"] <= attributes["distilora.ms.total"]
    assert first.end_time - first.start_time == pytest.approx(1e6 * attributes["distilora.ms.total"], rel=0.05)
    assert (f"{first.context.trace_id:032x}", f"{first.parent.span_id:016x}") == (TRACE, PARENT)
    assert second.parent is None
    assert [span.status.status_code.name for span in (first, second, third)] == ["UNSET", "UNSET", "ERROR"]
    told = "".join(span.to_json() for span in (first, second, third))
    for hidden in ("mellifluous", "hidden", SECRET, "key-", "testclient"):
        assert hidden not in told


def test_they_are_sent_to_the_endpoint(serve: Any) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    sent: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    traces = open_traces(f"http://127.0.0.1:{collector.server_port}/")
    serve(traces=traces).post("/v1/classify", json={"input": "mellifluous"})
    traces.close()
    collector.shutdown()
    collector.server_close()
    ((path, body),) = sent
    assert path == "/v1/traces"
    assert b"POST /v1/classify" in body
    assert b"mellifluous" not in body


def test_a_collector_that_is_not_there_is_told_once(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    logging.getLogger("distilora.serving").propagate = True
    traces = open_traces(f"http://{host}")
    client = serve(traces=traces, log_requests=False)
    for _ in range(2):
        client.post("/v1/classify", json={"input": "superb"})
        traces._provider.force_flush()
    traces.close()
    said = [record.getMessage() for record in caplog.records]  # threads of other tests' services may log, too
    (told,) = [message for message in said if "--otlp-endpoint" in message or host in message]
    assert told == f"--otlp-endpoint: traces cannot be sent to {host}; start a collector there, or drop the option"
