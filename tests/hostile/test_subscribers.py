"""Subscribers that do not read, die, or are very many; clients killed in MULTI, in MONITOR and in a subscription.

A publisher never waits for any of them. (Rows 9, 27 and 28 of the hostile inputs.)
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from conformance.oracle import Wire
from hostile.conftest import Besiege
from hostile.siege import PATIENCE, Siege, read_all, request, reset

from kvserver.observe.stats import End

MEGABYTE = 1024**2
SMALL = "pubsub 4mb 1mb 60"


def wait_for(done: Callable[[], bool]) -> None:
    """Until the server has noticed what its client did, which it does by itself."""
    until = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < until
        threading.Event().wait(0.005)


def subscribe(siege: Siege, *words: bytes) -> socket.socket:
    """A subscriber that reads no more than its confirmation."""
    sock = siege.arena.connect(receive_buffer=4096)
    sock.sendall(request(*words))
    assert sock.recv(1)
    return sock


@pytest.mark.parametrize("words", [(b"SUBSCRIBE", b"c"), (b"PSUBSCRIBE", b"c*"), (b"MONITOR",)])
def test_28_who_does_not_read_is_closed_and_delays_nobody(besiege: Besiege, words: tuple[bytes, ...]) -> None:
    with besiege(client_output_buffer_limit=SMALL) as siege, Wire(siege.arena.server.port) as publisher:
        slow = subscribe(siege, *words)
        with Wire(siege.arena.server.port) as good:
            good.ask("SUBSCRIBE", "c")
            received = 0
            began = time.monotonic()
            for _ in range(60):
                publisher.ask("PUBLISH", "c", b"x" * (MEGABYTE // 4))
                received += len(good.read())
            assert time.monotonic() - began < PATIENCE
            assert received > 15 * MEGABYTE
        wait_for(lambda: len(siege.arena.state.clients) == 2)
        assert len(read_all(slow)) < 12 * MEGABYTE
        slow.close()
        assert siege.arena.state.stats.ends[End.TOO_SLOW] == 1
        assert siege.log()[0].startswith("connection.too_slow")


def test_28_a_soft_limit_gives_time(besiege: Besiege, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("kvserver.pushes.time.monotonic", lambda: now[0])
    with besiege(client_output_buffer_limit="pubsub 100mb 1mb 60") as siege, Wire(siege.arena.server.port) as publisher:
        slow = subscribe(siege, b"SUBSCRIBE", b"c")
        state = siege.arena.state

        def publish() -> None:
            publisher.ask("PUBLISH", "c", b"x" * MEGABYTE)

        for _ in range(12):
            publish()
        now[0] += 59
        publish()
        assert state.stats.ends[End.TOO_SLOW] == 0
        now[0] += 2
        publish()
        assert state.stats.ends[End.TOO_SLOW] == 1
        wait_for(lambda: len(state.clients) == 2)
        slow.close()


def test_28_a_subscriber_that_catches_up_is_kept(besiege: Besiege) -> None:
    with besiege(0, client_output_buffer_limit="pubsub 32mb 1mb 1") as siege:
        with Wire(siege.arena.server.port) as publisher, Wire(siege.arena.server.port) as subscriber:
            subscriber.ask("SUBSCRIBE", "c")
            for _ in range(20):
                for _ in range(8):
                    publisher.ask("PUBLISH", "c", b"x" * (MEGABYTE // 2))
                for _ in range(8):
                    assert len(subscriber.read()) > MEGABYTE // 2
        assert siege.arena.state.stats.ends[End.TOO_SLOW] == 0


def test_28_a_subscriber_dies_while_it_is_published_to(siege: Siege) -> None:
    with Wire(siege.arena.server.port) as publisher:
        for _ in range(100):
            sock = subscribe(siege, b"SUBSCRIBE", b"c")
            publisher.send(request(b"PUBLISH", b"c", b"x" * 10_000) * 3)
            reset(sock)
            for _ in range(3):
                assert publisher.read() in (b":0\r\n", b":1\r\n")
            wait_for(lambda: publisher.ask("PUBSUB", "NUMSUB", "c") == b"*2\r\n$1\r\nc\r\n:0\r\n")


def test_28_a_storm_of_subscriptions(siege: Siege) -> None:
    """A hundred thousand channels and patterns by one client, given up at once by its end."""
    channels = [b"channel:%d" % number for number in range(100_000)]
    with Wire(siege.arena.server.port) as wire, Wire(siege.arena.server.port) as other:
        wire.send(request(b"SUBSCRIBE", *channels))
        for number in range(1, len(channels) + 1):
            assert wire.read().endswith(b":%d\r\n" % number)
        assert other.ask("PUBLISH", channels[-1], "hello") == b":1\r\n"
        assert wire.read().endswith(b"hello\r\n")
        wire.send(request(b"UNSUBSCRIBE"))
        for number in reversed(range(len(channels))):
            assert wire.read().endswith(b":%d\r\n" % number)
        wire.send(request(b"SUBSCRIBE", *channels[:1000]) * 3)
    wait_for(lambda: siege.arena.ask(b"PUBSUB", b"CHANNELS") == b"*0\r\n")


def test_28_who_publishes_to_itself(siege: Siege) -> None:
    with Wire(siege.arena.server.port) as wire:
        wire.ask("HELLO", 3)
        wire.ask("SUBSCRIBE", "c")
        wire.send(request(b"PUBLISH", b"c", b"m") * 5000)
        seen = [wire.read()[:1] for _ in range(10_000)]
        assert seen == [b":", b">"] * 5000


def test_many_subscribe_publish_and_leave_at_once(siege: Siege) -> None:
    def churn(number: int) -> None:
        for turn in range(30):
            with Wire(siege.arena.server.port) as wire:
                wire.ask("HELLO", 3)
                wire.ask("SUBSCRIBE", f"c{(number + turn) % 5}")
                wire.ask("PSUBSCRIBE", "c*")
                for channel in range(5):
                    wire.send(request(b"PUBLISH", b"c%d" % channel, b"m"))
                wire.read()

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    wait_for(lambda: siege.arena.ask(b"PUBSUB", b"NUMPAT") == b":0\r\n")


BEFORE_DEATH = {
    "in MULTI": [b"MULTI", b"SET k v"],
    "that watches": [b"WATCH k"],
    "in MULTI, watching": [b"WATCH k", b"MULTI", b"SET k v"],
    "in MONITOR": [b"MONITOR"],
    "subscribed": [b"SUBSCRIBE a"],
    "subscribed by pattern": [b"PSUBSCRIBE a*"],
    "that tracks": [b"HELLO 3", b"CLIENT TRACKING ON", b"GET k"],
    "that tracks prefixes": [b"HELLO 3", b"CLIENT TRACKING ON BCAST"],
}


@pytest.mark.parametrize("state", BEFORE_DEATH)
@pytest.mark.parametrize("how", ["killed", "reset", "closed"])
def test_27_nothing_is_left_of_a_client(siege: Siege, state: str, how: str) -> None:
    victim = siege.arena.connect()
    with victim, victim.makefile("rb") as replies, Wire(siege.arena.server.port) as other:
        victim.sendall(b"CLIENT ID\r\n")
        number = replies.readline()[1:].strip()
        for line in BEFORE_DEATH[state]:
            victim.sendall(line + b"\r\n")
            assert replies.readline()
        if how == "killed":
            assert other.ask("CLIENT", "KILL", "ID", number) == b":1\r\n"
        elif how == "reset":
            replies.close()
            reset(victim)
        else:
            victim.shutdown(socket.SHUT_WR)
        wait_for(lambda: len(siege.arena.state.clients) == 2)
        for words in ((b"SET", b"k", b"new"), (b"PUBLISH", b"a", b"m"), (b"FLUSHALL",)):
            other.run(list(words))
    shared = siege.arena.state
    wait_for(lambda: not shared.monitors.sessions and not shared.tracking.sessions and shared.keyspace.listener is None)
    assert shared.pubsub.count(0) == shared.pubsub.count(1) == 0  # type: ignore[arg-type]
    assert not shared.changes._watchers
    assert not shared.tracking._prefixes


def test_27_a_subscriber_is_killed_while_it_is_sent_to(siege: Siege) -> None:
    with ExitStack() as stack:
        publisher = stack.enter_context(Wire(siege.arena.server.port))
        victims = [subscribe(siege, b"SUBSCRIBE", b"c") for _ in range(10)]
        for _ in range(4):
            publisher.ask("PUBLISH", "c", b"x" * MEGABYTE)  # more than the sockets take
        assert publisher.ask("CLIENT", "KILL", "TYPE", "pubsub") == b":10\r\n"
        wait_for(lambda: len(siege.arena.state.clients) == 2)
        for victim in victims:
            victim.close()
        assert publisher.ask("PUBLISH", "c", "x") == b":0\r\n"


def test_a_server_stops_while_subscribers_do_not_read(besiege: Besiege) -> None:
    with besiege(10) as siege, Wire(siege.arena.server.port) as publisher:
        subscribers = [subscribe(siege, b"SUBSCRIBE", b"c") for _ in range(5)]
        for _ in range(4):
            publisher.ask("PUBLISH", "c", b"x" * MEGABYTE)
        for subscriber in subscribers:
            subscriber.close()


def test_tracking_remembers_a_bounded_number_of_keys(besiege: Besiege) -> None:
    with besiege(tracking_table_max_keys=100) as siege, Wire(siege.arena.server.port) as wire:
        wire.ask("HELLO", 3)
        wire.ask("CLIENT", "TRACKING", "ON")
        wire.send(b"".join(request(b"GET", b"key:%d" % number) for number in range(1000)))
        replies = [wire.read() for _ in range(1900)]
        told = [reply for reply in replies if reply[:1] == b">"]
        assert told == [
            b">2\r\n$10\r\ninvalidate\r\n*1\r\n$%d\r\nkey:%d\r\n" % (4 + len(str(number)), number)
            for number in range(900)
        ]
        assert siege.arena.state.tracking.counts[0] == 100
