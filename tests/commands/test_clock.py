"""KV.CLOCK: time that stands still, steps forwards and backwards; off unless it is allowed."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator

import pytest

import kvclient
import kvserver
from kvclient.errors import ServerError
from kvserver.clock import MovableClock

WEEK = 7 * 86_400


@pytest.fixture
def kv() -> Iterator[kvclient.Client]:
    with kvserver.Server(port=0, clock_command="local") as server, kvclient.connect(server.url) as client:
        yield client


def test_a_week_takes_a_moment(kv: kvclient.Client) -> None:
    start = time.monotonic()
    kv.clock(freeze=True)
    kv.set("k", "v", ttl=WEEK)
    kv.set("longer", "v", ttl=WEEK + 1)
    kv.clock(advance=WEEK - 0.001)
    assert kv.pttl("k") == 1
    assert kv.pttl("longer") == 1001
    kv.clock(advance=dt.timedelta(milliseconds=1))
    assert kv.mget("k", "longer") == [None, b"v"]
    assert time.monotonic() - start < 5


def test_keys_are_removed_though_nobody_asks_for_them(kv: kvclient.Client) -> None:
    kv.clock(freeze=True)
    kv.mset({f"k{number}": "v" for number in range(100)})
    for number in range(100):
        kv.expire(f"k{number}", WEEK)
    kv.clock(advance=WEEK)
    deadline = time.monotonic() + 10
    while kv.dbsize():
        assert time.monotonic() < deadline
    assert kv.info("stats")["expired_keys"] == "100"


def test_backwards(kv: kvclient.Client) -> None:
    kv.clock(freeze=True)
    kv.set("k", "v", ttl=100)
    kv.clock(advance=-WEEK)
    assert kv.ttl("k") == WEEK + 100
    kv.set("new", "v", ttl=10)
    kv.clock(advance=10)
    assert kv.exists("k", "new") == 1
    moment = kv.clock(set_to=dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
    assert moment == 1_893_456_000_000
    assert kv.time()[0] == 1_893_456_000
    assert not kv.exists("k")


def test_it_goes_on_unless_it_is_stopped(kv: kvclient.Client) -> None:
    before = kv.clock(advance=WEEK)
    assert before - time.time() * 1000 == pytest.approx(WEEK * 1000, abs=2000)
    while kv.clock() == before:
        pass
    still = kv.clock(freeze=True)
    assert kv.clock() == still
    assert kv.clock(resume=True) == pytest.approx(time.time() * 1000, abs=2000)


def test_what_is_refused(kv: kvclient.Client) -> None:
    for words in (("FREEZE", "1"), ("ADVANCE",), ("SET",), ("NONSENSE",), ("SET", "1", "2")):
        with pytest.raises(ServerError, match="syntax error"):
            kv.execute("KV.CLOCK", *words)
    for words in (("SET", "-1"), ("SET", "x"), ("ADVANCE", str(-(10**16))), ("SET", str(2**62)), ("ADVANCE", "1.5")):
        with pytest.raises(ServerError, match="not an integer or out of range"):
            kv.execute("KV.CLOCK", *words)
    assert kv.clock() == pytest.approx(time.time() * 1000, abs=2000)


def test_it_is_off_by_itself(server: kvserver.Server) -> None:
    with kvclient.connect(server.url) as client, pytest.raises(ServerError, match="--clock-command local"):
        client.clock(freeze=True)


def test_a_command_sees_one_time(kv: kvclient.Client) -> None:
    """Whoever moves the clock waits for the commands under way: a transaction's keys have one deadline."""
    ended = threading.Event()

    def move() -> None:
        while not ended.is_set():
            kv.clock(advance=1)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(50):
            with kv.transaction() as transaction:
                transaction.set("a", "v", ttl=WEEK)
                transaction.set("b", "v", ttl=WEEK)
                ends = transaction.pexpiretime("a"), transaction.pexpiretime("b")
            assert ends[0].result() == ends[1].result()
    finally:
        ended.set()
        mover.join()


def test_the_clock_by_itself() -> None:
    now = 1000
    clock = MovableClock(lambda: now)
    assert clock() == 1000
    clock.freeze()
    now = 2000
    assert (clock(), clock.stands_still) == (1000, True)
    clock.advance(5)
    assert clock() == 1005
    clock.set(7)
    assert clock() == 7
    clock.resume()
    assert (clock(), clock.stands_still) == (2000, False)
    clock.advance(-500)
    now = 3000
    assert clock() == 2500
    clock.freeze()
    now = 4000
    assert clock() == 2500
