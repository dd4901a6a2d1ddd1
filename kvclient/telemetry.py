"""OpenTelemetry: a span for each call, and a histogram of durations. Needs the extra `opentelemetry`.

    kvclient.connect(url, observer=telemetry.OpenTelemetryObserver())

Spans and metrics follow the semantic conventions for databases, and hold no keys and no values.

Not here: when an observer is called (observer.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry import metrics, trace

if TYPE_CHECKING:
    from kvclient.observer import CallEvent, ConnectionEvent

_SYSTEM: Final = "redis"  # as the conventions call all that speak this protocol


class OpenTelemetryObserver:
    """Makes spans and metrics of what a client does.

    Args:
        tracer_provider: where spans go; default: the global one.
        meter_provider: where metrics go; default: the global one.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer("kvclient", tracer_provider=tracer_provider)
        meter = metrics.get_meter("kvclient", meter_provider=meter_provider)
        self._durations = meter.create_histogram(
            "db.client.operation.duration", unit="s", description="Duration of calls, retries included."
        )
        self._connections = meter.create_counter(
            "kvclient.connections", description="What has become of connections: opened, failed, lost, closed."
        )

    def call(self, event: CallEvent, /) -> None:
        """A span of the time that the call took, below the current one; and its duration."""
        host, _, port = event.address.rpartition(":")
        attributes: dict[str, str | int] = {
            "db.system.name": _SYSTEM,
            "db.operation.name": event.command,
            "db.namespace": str(event.db),
            "server.address": host or event.address,
        }
        if host and port.isdigit():
            attributes["server.port"] = int(port)
        if event.count > 1:
            attributes["db.operation.batch.size"] = event.count
        if event.error is not None:
            attributes["error.type"] = event.error
        span = self._tracer.start_span(
            event.command, kind=trace.SpanKind.CLIENT, attributes=attributes, start_time=event.began
        )
        if event.error is not None:
            span.set_status(trace.StatusCode.ERROR)
        span.end(event.began + int(event.seconds * 1e9))
        self._durations.record(event.seconds, attributes)

    def connection(self, event: ConnectionEvent, /) -> None:
        """Count it."""
        self._connections.add(1, {"state": event.kind, "server.address": event.address})
