"""OpenTelemetry traces of requests: gateway, calls between processes, commits, shards. Off unless an exporter is set.

OTEL_EXPORTER_OTLP_ENDPOINT, or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, turns them on; the other variables of the
OpenTelemetry SDK count as it documents them. The one module that knows it. Spans of several processes belong together
by the `traceparent` (W3C Trace Context) that S3 clients may send and that travels in the frames between peers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

_OFF: AbstractContextManager[None] = nullcontext()
_tracer: Any = None
_propagator: Any = None


def configure(environment: Mapping[str, str], service: str) -> Callable[[], None]:
    """Turn traces on where the environment says so. Returns what sends the rest at the end."""
    global _tracer, _propagator
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not any(environment.get(name) for name in names):
        return lambda: None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer, _propagator = provider.get_tracer("s4"), TraceContextTextMapPropagator()
    return provider.shutdown


def is_on() -> bool:
    return _tracer is not None


def span(name: str, parent: str = "", **attributes: Any) -> AbstractContextManager[None]:
    """What happens inside belongs to this span, a child of `parent` (a traceparent) or of the span around it."""
    return _OFF if _tracer is None else _span(name, parent, attributes)


@contextmanager
def _span(name: str, parent: str, attributes: dict[str, Any]) -> Iterator[None]:
    above = _propagator.extract({"traceparent": parent}) if parent else None
    # An exception's text may hold what the client sent: its kind is enough, the log has the rest.
    with _tracer.start_as_current_span(
        name, context=above, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as made:
        try:
            yield
        except BaseException as error:
            made.set_attribute("error.type", type(error).__name__)
            raise


def current() -> str:
    """The traceparent of the span that we are in; empty where there is none."""
    if _tracer is None:
        return ""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent", "")
