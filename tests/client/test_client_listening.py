"""Subscriptions and MONITOR, each on its own connection."""

from __future__ import annotations

import threading
import time

import pytest

import kvclient
from kvclient import Message
from kvclient.errors import ClientClosedError, ConnectionLostError, ProtocolError, ServerError


def test_messages_come_in_order(kv: kvclient.Client) -> None:
    with kv.listen("news", patterns=["n*"]) as messages:
        assert kv.publish("news", "one") == 2
        assert kv.publish("nothing", b"\0\r\n") == 1
        assert next(messages) == Message(b"news", b"one")
        assert next(messages) == Message(b"news", b"one", b"n*")
        assert next(messages) == Message(b"nothing", b"\0\r\n", b"n*")
        assert messages.next(timeout=0.01) is None


def test_a_wait_in_vain_does_not_shorten_the_next(kv: kvclient.Client) -> None:
    with kv.listen("news") as messages:
        assert messages.next(timeout=0.05) is None
        later = threading.Timer(0.3, kv.publish, ("news", "late"))
        later.start()
        assert messages.next(timeout=30) == Message(b"news", b"late")
        later.join()


def test_listening_to_more_and_to_less(kv: kvclient.Client) -> None:
    with kv.listen("a") as messages:
        kv.publish("a", "kept")
        messages.subscribe("b", "c", patterns=["x*", "y*"], shards=["s"])
        assert kv.pubsub_numsub("a", "b", "c") == {b"a": 1, b"b": 1, b"c": 1}
        messages.unsubscribe("a", "b", patterns=["x*"])
        assert kv.pubsub_numsub("a", "b", "c") == {b"a": 0, b"b": 0, b"c": 1}
        assert kv.pubsub_numpat() == 1
        assert kv.spublish("s", "shard") == 1
        assert [next(messages), next(messages)] == [Message(b"a", b"kept"), Message(b"s", b"shard")]
        messages.unsubscribe("c", patterns=["y*"], shards=["s"])
        messages.subscribe("a")
        kv.publish("a", "again")
        assert next(messages) == Message(b"a", b"again")


def test_after_the_block_nobody_listens(kv: kvclient.Client) -> None:
    with kv.listen("a"):
        pass
    while kv.pubsub_numsub("a")[b"a"]:
        pass  # the server finds the connection closed in its own time


def test_closing_ends_the_loop_of_another_thread(kv: kvclient.Client) -> None:
    got: list[Message] = []
    first = threading.Event()
    messages = kv.listen("a")

    def read() -> None:
        for message in messages:
            got.append(message)
            first.set()

    thread = threading.Thread(target=read)
    thread.start()
    kv.publish("a", "one")
    assert first.wait(10)
    messages.close()
    thread.join(10)
    assert got == [Message(b"a", b"one")]
    with pytest.raises(ClientClosedError):
        messages.next()
    messages.__exit__()


def test_a_connection_that_is_lost_is_told(own_kv: kvclient.Client) -> None:
    with own_kv.listen("a", reconnect=False) as messages:
        assert own_kv.client_kill(type="pubsub") == 1
        with pytest.raises(ConnectionLostError):
            next(messages)
        with pytest.raises(ConnectionLostError):
            messages.subscribe("b")


def test_many_messages(kv: kvclient.Client) -> None:
    with kv.listen("a") as messages:
        with kv.pipeline() as p:
            for number in range(10_000):
                p.publish("a", number)
        assert [int(next(messages).data) for _ in range(10_000)] == list(range(10_000))


def test_a_name_that_is_refused(own_url: str) -> None:
    with kvclient.connect(own_url) as client, pytest.raises(ServerError), client.listen() as messages:
        messages._ask(((b"SUBSCRIBE x", ("a",)),), time.monotonic() + 5)


def test_what_no_server_sends(own_url: str) -> None:
    with kvclient.connect(own_url) as client, client.listen("a") as messages:
        for reply in (1, [], [1], [b"other", b"a", b"b"], [b"message", b"a"], [b"message", 1, 2]):
            with pytest.raises(ProtocolError):
                messages._take(reply)  # type: ignore[arg-type]


def test_monitor(kv: kvclient.Client) -> None:
    with kv.monitor() as lines:
        kv.set("k", "v w")
        line = next(lines)
        while '"SET"' not in line:
            line = next(lines)
        assert line.endswith('"SET" "k" "v w"')
        with pytest.raises(ProtocolError):
            lines._take(5)
