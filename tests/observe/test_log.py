"""What strangers can cause is logged once a minute."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog

from kvserver.observe.log import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def passed(limit: RateLimit, event: str) -> dict[str, object] | None:
    try:
        return dict(limit(None, "info", {"event": event}))
    except structlog.DropEvent:
        return None


def test_an_event_comes_through_once_a_minute_and_says_what_was_left_out() -> None:
    clock = Clock()
    limit = RateLimit({"accept"}, 60, clock)
    assert passed(limit, "accept.no_thread") == {"event": "accept.no_thread"}
    for seconds in (0, 30, 29.9):
        clock.now += seconds
        assert passed(limit, "accept.no_thread") is None
    clock.now += 0.2
    assert passed(limit, "accept.no_thread") == {"event": "accept.no_thread", "left_out": 3}
    clock.now += 60
    assert passed(limit, "accept.no_thread") == {"event": "accept.no_thread"}


def test_each_event_has_its_own_minute_and_others_are_not_limited() -> None:
    limit = RateLimit({"accept"}, 60, Clock())
    assert passed(limit, "accept.no_thread")
    assert passed(limit, "accept.out_of_resources")
    for _ in range(3):
        assert passed(limit, "server.ready") == {"event": "server.ready"}


@pytest.mark.parametrize("round_", range(20))
def test_of_many_at_once_one_comes_through(round_: int) -> None:
    limit = RateLimit({"accept"}, 60, Clock())
    barrier = threading.Barrier(8)

    def log(_: int) -> bool:
        barrier.wait(30)
        return passed(limit, "accept.no_thread") is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(log, range(8))) == 1
