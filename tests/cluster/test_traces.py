"""Traces: one request is one trace through gateway, primary and shards, sent to a real OTLP collector's port."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cluster.dev import DevCluster
from cluster.etcd_process import needs_etcd
from process import wait_until

pytestmark = needs_etcd

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector(ThreadingHTTPServer):
    """Keeps what is exported: (trace id, service, span's name)."""

    def __init__(self) -> None:
        spans = self.spans = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    service = next(
                        one.value.string_value for one in resource.resource.attributes if one.key == "service.name"
                    )
                    spans.extend(
                        (span.trace_id.hex(), service, span.name)
                        for scope in resource.scope_spans
                        for span in scope.spans
                    )
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_request_is_one_trace_through_all_processes(tmp_path: Path, collector: Collector) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    cluster = DevCluster(tmp_path / "dev", nodes=3, erasure="2+1", gateways=1, environment=environment)
    try:
        client = cluster.start().client("gateway-1")
        client.create_bucket(Bucket="bucket")
        client.meta.events.register(
            "before-send.s3.PutObject",
            lambda request, **_: request.headers.update(traceparent=f"00-{TRACE}-b7ad6b7169203331-01"),
        )
        client.put_object(Bucket="bucket", Key="k", Body=b"x" * 100_000)
        wanted = {
            ("s4-gateway", "S3 PUT"),
            ("s4-gateway", "call append"),
            ("s4-node", "serve append"),
            ("s4-gateway", "call execute"),
            ("s4-node", "serve execute"),
            ("s4-node", "commit"),
        }
        wait_until(
            lambda: wanted <= {(service, name) for trace, service, name in collector.spans if trace == TRACE},
            "all spans of the trace",
        )
    finally:
        cluster.stop()


def test_without_an_exporter_there_is_none(tmp_path: Path) -> None:
    from s4.telemetry import tracing

    tracing.configure({}, "s4")
    with tracing.span("nothing"):
        assert tracing.current() == ""
