"""The live stream: what it tells, for how long, and to whom."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from web.asking import Web
from web.conftest import Serve

from kvserver.observe import usage
from kvserver.web import sampler
from kvserver.web.sampler import Delays, estimate


@pytest.fixture(autouse=True)
def _samples_come_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "_EVERY", 0.2)


def first(events: Any, wanted: str) -> Any:
    return next(content for name, content in events if name == wanted)


def test_what_happens_is_told_within_moments(web: Web) -> None:
    with redis.Redis(port=web.server.port) as client, web.events() as events:
        assert first(events, "history") == []
        for _ in range(50):
            client.set("k", "v")
            client.get("k")
        client.get("none")
        told = first(events, "sample")
        while told["values"]["commands"] == 0:
            told = first(events, "sample")
    values = told["values"]
    assert values["keys"] == 1
    assert values["clients"] == 1
    assert values["memory"] > 0
    assert 0 < values["p50"] <= values["p99"] <= values["p999"]
    assert {"set", "get"} <= {command["name"] for command in told["commands"]}
    assert sum(command["share"] for command in told["commands"]) == pytest.approx(1)
    assert told["server"]["trouble"] is None


def test_who_comes_later_sees_what_was(web: Web) -> None:
    with web.events() as events:
        first(events, "sample")
        told = first(events, "sample")
    with web.events() as events:
        history = first(events, "history")
    assert told["values"] in history


def test_slow_commands_only_to_those_who_may_see_them(serve: Serve) -> None:
    web = serve(slowlog_log_slower_than=0)
    with redis.Redis(port=web.server.port) as client:
        client.set("a-key", "v")
        with web.events() as events:
            extra = first(events, "extra")
        assert any(entry["command"] == "SET a-key v" for entry in extra["slow"])
        client.acl_setuser("default", enabled=True, nopass=True, categories=["-@all"], commands=["+info"])
        with web.events() as events:
            assert first(events, "extra") == {"slow": None, "hot": None}


def test_what_would_change_the_text_around_it_is_told_apart(serve: Serve) -> None:
    """Such as the sign that turns the direction of all that follows."""
    web = serve(slowlog_log_slower_than=0)
    web.server.direct("HOTKEYS", "START", "METRICS", "1", "CPU")
    with redis.Redis(port=web.server.port) as client:
        client.set("a\u202eb\x1b[31m\xfc", b"\xff")
    with web.events() as events:
        extra = first(events, "extra")
    shown = [entry["command"] for entry in extra["slow"]] + [key["key"] for key in extra["hot"]["time"]]
    assert "SET a\\u202eb\\x1b[31m\xfc \\xff" in shown
    assert "a\\u202eb\\x1b[31m\xfc" in shown
    assert all(text.isprintable() for text in shown)


def test_a_user_who_may_no_longer_look(serve: Serve) -> None:
    web = serve()
    with redis.Redis(port=web.server.port) as client, web.events() as events:
        first(events, "sample")
        client.acl_setuser("default", enabled=True, nopass=True, commands=["-info"])
        assert "denied" in [name for name, _ in events]


def test_it_ends_with_the_server(serve: Serve) -> None:
    web = serve()
    ended = threading.Event()

    def watch() -> None:
        with web.events() as events:
            for name, _ in events:
                if name == "sample":
                    watching.set()
        ended.set()

    watching = threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    assert watching.wait(30)
    assert web.server.stop()
    assert ended.wait(30)
    thread.join(30)


def test_those_who_do_not_read_hold_up_no_stop(serve: Serve) -> None:
    web = serve()
    with ExitStack() as stack:
        for _ in range(10):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", web.port), 30))
            sock.sendall(b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 200"
        began = time.monotonic()
        assert web.server.stop()
        assert time.monotonic() - began < 5


def test_it_costs_nobody_a_command(web: Web) -> None:
    """Whoever watches an idle server sees an idle server."""
    with web.events() as events:
        first(events, "sample")
        first(events, "sample")
        assert first(events, "sample")["values"]["commands"] == 0


def test_samples_are_taken_less_often_when_each_takes_long(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "_EVERY", 0.0)
    ticks: list[float] = []
    clock = FakeClock()
    monkeypatch.setattr(sampler, "time", clock)
    taker = sampler.Sampler(web.state)

    def take(now: float) -> None:
        ticks.append(now)
        clock.now += 0.1  # a tenth of a second for each

    def wait() -> bool:
        clock.now += 0.1
        return len(ticks) == 4

    monkeypatch.setattr(taker, "_take", take)
    monkeypatch.setattr(taker, "_wait_a_tick", wait)
    taker._run()
    pauses = [after - before for before, after in itertools.pairwise(ticks)]
    assert all(pause >= sampler._SHARE * 0.1 for pause in pauses)


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now


def test_a_sample_that_fails_is_the_only_one(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "memory_resident", lambda: 1 // 0)
    with web.events() as events:
        assert first(events, "history") == []
        monkeypatch.undo()
        assert first(events, "sample")["values"]["resident"] > 0


def test_an_estimate_lies_within_its_bounds() -> None:
    tally = usage.new_tally()
    assert estimate(tally, 50) == 0
    tally[1 + 4] = 100  # 8 to 16 microseconds
    assert estimate(tally, 50) == 12
    assert estimate(tally, 100) == 16
    tally[1 + 10] = 1
    assert estimate(tally, 50) < 16 < 512 < estimate(tally, 100) <= 1024


def test_delays_are_counted_once() -> None:
    delays = Delays()
    for seconds in (0.0, 0.00005, 0.003, 5.0):
        delays.add(seconds)
    assert sum(delays.counts) == 4
    assert delays.counts[0] == 2
    assert delays.counts[-1] == 1
    assert (delays.take_worst(), delays.take_worst()) == (5.0, 0.0)
