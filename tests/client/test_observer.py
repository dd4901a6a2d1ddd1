"""What observers are told: each call once, each connection's fate; and never a key, a value or a password."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable
from typing import Any

import pytest
from client.conftest import FakeServer, Peer
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import kvclient
import kvclient.aio
from kvclient.commands import Commands
from kvclient.commands.base import _commands_of
from kvclient.errors import CannotConnectError, ConnectionLostError, KVError, ServerError
from kvclient.observer import CallEvent, ConnectionEvent, LoggingObserver, name_of
from kvclient.telemetry import OpenTelemetryObserver

Make = Callable[..., FakeServer]
SECRET = "S3CRET"


class Recorder:
    def __init__(self) -> None:
        self.calls: list[CallEvent] = []
        self.connections: list[tuple[str, str | None]] = []

    def call(self, event: CallEvent, /) -> None:
        self.calls.append(event)

    def connection(self, event: ConnectionEvent, /) -> None:
        self.connections.append((event.kind, event.error))

    @property
    def told(self) -> list[tuple[str, int, str | None]]:
        return [(event.command, event.count, event.error) for event in self.calls]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_calls(own_url: str, recorder: Recorder) -> None:
    with kvclient.connect(own_url, observer=recorder) as kv:
        kv.set("k", "v")
        with pytest.raises(ServerError):
            kv.incr("k")
        with kv.pipeline() as p:
            p.get("k")
            p.get("k")
        with kv.transaction() as t:
            t.get("k")
        kv.transaction(lambda t: t.set("k", t.now.get("k") or b""), watch=["k"])
        kv.execute("get", "k")
        kv.once.incr("n")
        kv.ns("a:").get("k")
    assert recorder.told == [
        ("SET", 1, None),
        ("INCR", 1, "ServerError"),
        ("PIPELINE", 2, None),
        ("MULTI", 1, None),
        ("MULTI", 1, None),
        ("GET", 1, None),
        ("KV.ONCE", 1, None),
        ("GET", 1, None),
    ]
    assert all(0 < event.seconds < 5 for event in recorder.calls)
    assert {event.address for event in recorder.calls} == {own_url.removeprefix("redis://")}
    assert recorder.connections == [("opened", None), ("closed", None)]


def test_what_becomes_of_connections(fake: Make, recorder: Recorder) -> None:
    def losing(peer: Peer) -> None:
        peer.greet()
        peer.read()

    def refusing(peer: Peer) -> None:
        peer.read()

    server = fake(losing, losing, refusing)
    with kvclient.connect(server.url, observer=recorder, retries=1) as kv, pytest.raises(KVError):
        kv.get("k")
    assert recorder.told[0][2] in {"ConnectionLostError", "CannotConnectError"}
    assert len(recorder.calls) == 1
    assert recorder.connections == [
        ("opened", None),
        ("lost", "ConnectionLostError"),
        ("opened", None),
        ("lost", "ConnectionLostError"),
    ]
    with pytest.raises(CannotConnectError):
        kvclient.connect(server.url, observer=recorder)
    assert recorder.connections[-1] == ("failed", "CannotConnectError")


def test_why_a_connection_was_closed(own_url: str, recorder: Recorder) -> None:
    """Not for the error that its caller happens to be handling."""
    with kvclient.connect(own_url, observer=recorder, max_idle=1e-9) as kv:
        kv.set("k", "v")
        with pytest.raises(ServerError):
            kv.incr("k")
        with contextlib.suppress(ZeroDivisionError):
            try:
                kv.get(str(1 // 0))
            except ZeroDivisionError:
                kv.close()
                raise
    assert recorder.connections == [("opened", None), ("closed", None)] * (len(recorder.connections) // 2)
    recorder.connections.clear()
    with kvclient.connect(own_url) as other, kvclient.connect(own_url, observer=recorder) as kv:
        other.client_kill(type="normal", skip_me=True)
        assert kv.ping() == b"PONG"
    assert recorder.connections == [
        ("opened", None),
        ("lost", "ConnectionLostError"),
        ("opened", None),
        ("closed", None),
    ]


def test_by_tasks(own_url: str, recorder: Recorder) -> None:
    async def main() -> None:
        async with kvclient.aio.connect(own_url, observer=recorder) as kv:
            await kv.set("k", "v")
            with pytest.raises(ServerError):
                await kv.incr("k")
            async with kv.pipeline() as p:
                p.get("k")
            async with kv.transaction() as t:
                t.get("k")
            await kv.execute("GET", "k")
            await kv.once.incr("n")
            await kv.client_kill(type="normal", skip_me=False)
            await _until_lost(kv)

    asyncio.run(main())
    assert [name for name, *_ in recorder.told][:6] == ["SET", "INCR", "PIPELINE", "MULTI", "GET", "KV.ONCE"]
    assert recorder.told[1][2] == "ServerError"
    assert recorder.connections[0] == ("opened", None)
    assert ("lost", "ConnectionLostError") in recorder.connections


async def _until_lost(kv: kvclient.aio.AsyncClient) -> None:
    with contextlib.suppress(ConnectionLostError):
        while True:
            await kv.incr("n")


def every_call(kv: kvclient.Client) -> None:
    """Each typed command with secrets for arguments, wrong or not."""
    for name, command in _commands_of(Commands):
        if name in {"shutdown", "flushall", "client_kill", "debug_sleep", "client_pause", "wait", "waitaof", "monitor"}:
            continue
        parameters = list(inspect.signature(command.build).parameters.values())[1:]
        args: list[Any] = [
            {f"{SECRET}k": f"{SECRET}v"} if each.name == "items" else SECRET
            for each in parameters
            if each.default is each.empty and each.kind is not each.KEYWORD_ONLY
        ]
        try:
            getattr(kv, name)(*args)
        except (KVError, TypeError, ValueError, AttributeError):
            continue


def test_no_key_and_no_value_is_told(own_url: str, caplog: pytest.LogCaptureFixture) -> None:
    spans, metrics = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    opentelemetry = OpenTelemetryObserver(tracers, MeterProvider([metrics]))
    caplog.set_level(logging.DEBUG, "kvclient")
    recorder = Recorder()
    for observer in (LoggingObserver(), opentelemetry, recorder):
        with kvclient.connect(own_url, observer=observer, timeout=2) as kv:
            every_call(kv)
            with pytest.raises(KVError):
                kv.execute(SECRET + " x", SECRET)
            kv.flushall()
    assert len(recorder.calls) > 80
    assert SECRET not in repr(recorder.calls)
    assert len(caplog.records) > 80
    assert all(SECRET not in record.getMessage() + repr(vars(record)) for record in caplog.records)
    assert len(spans.get_finished_spans()) > 80
    assert all(SECRET not in span.to_json() for span in spans.get_finished_spans())
    data = metrics.get_metrics_data()
    assert data is not None
    assert SECRET not in data.to_json()


def test_spans_are_where_they_belong(own_url: str) -> None:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    observer = OpenTelemetryObserver(provider, MeterProvider([reader]))
    with kvclient.connect(own_url, observer=observer) as kv:
        with provider.get_tracer("test").start_as_current_span("parent") as parent:
            kv.set("k", "v")
        with pytest.raises(ServerError):
            kv.incr("k")
        with kv.pipeline() as p:
            p.get("k")
            p.get("k")
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans["SET"].parent is not None
    assert spans["SET"].parent.span_id == parent.get_span_context().span_id
    assert spans["SET"].kind is trace.SpanKind.CLIENT
    assert spans["SET"].attributes is not None
    assert dict(spans["SET"].attributes) == {
        "db.system.name": "redis",
        "db.operation.name": "SET",
        "db.namespace": "0",
        "server.address": "127.0.0.1",
        "server.port": int(own_url.rpartition(":")[2]),
    }
    assert spans["SET"].start_time is not None
    assert spans["SET"].end_time is not None
    assert 0 < spans["SET"].end_time - spans["SET"].start_time < 5e9
    assert not spans["INCR"].status.is_ok
    assert (spans["INCR"].attributes or {})["error.type"] == "ServerError"
    assert (spans["PIPELINE"].attributes or {})["db.operation.batch.size"] == 2
    data = reader.get_metrics_data()
    assert data is not None
    names = {metric.name for each in data.resource_metrics for scope in each.scope_metrics for metric in scope.metrics}
    assert names == {"db.client.operation.duration", "kvclient.connections"}


def test_what_is_no_name_is_not_told() -> None:
    assert name_of((b"kv.once", b"x")) == "KV.ONCE"
    assert name_of(("get",)) == "GET"
    assert [name_of((word,)) for word in ("a" * 33, "a b", "1", "", b"\xff", 5, bytearray(b"x"))] == ["?"] * 7
