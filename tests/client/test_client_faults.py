"""A server that answers wrongly in every way: a typed error, the connection dropped, nothing mixed up."""

from __future__ import annotations

import functools
import re
import threading
import time
from collections.abc import Callable

import pytest

import kvclient
from kvclient.errors import (
    AuthError,
    CallTimeoutError,
    CannotConnectError,
    ConnectionLostError,
    KVError,
    LoadingError,
    PipelineAbandonedError,
    PipelineError,
    ProtocolError,
    ServerError,
)
from kvclient.retry import pause_before_retry
from tests.client.conftest import GREETING, FakeServer, Peer

Make = Callable[..., FakeServer]


def answering(*replies: bytes) -> Callable[[Peer], None]:
    """A script: greet, answer these, then close."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.answer(*replies)

    return script


def right(peer: Peer) -> None:
    """A script that answers GET and everything else rightly, for ever."""
    peer.greet()
    while peer.read():
        peer.sock.sendall(b"$5\r\nright\r\n")


@pytest.mark.parametrize("reply", [b"$5\r\nright\r\n", b"$-1\r\n", b"|1\r\n+a\r\n:1\r\n$1\r\nx\r\n", b"-ERR no\r\n"])
def test_a_reply_cut_anywhere_is_the_same_reply(fake: Make, reply: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        for cut in range(1, len(reply)):
            if not peer.read():
                return
            peer.sock.sendall(reply[:cut])
            peer.sock.sendall(reply[cut:])

    with kvclient.connect(fake(script).url) as kv:
        results = set()
        for _ in range(1, len(reply)):
            try:
                results.add(kv.get("k"))
            except ServerError as error:
                results.add(str(error).encode())
        assert len(results) == 1


@pytest.mark.parametrize(
    "reply",
    [
        b":5\r\n", b"*0\r\n", b"#t\r\n", b"%0\r\n", b"HTTP/1.1 400\r\n\r\n", b"\0\0\r\n", b"$1\r\nabc\r\n", b"$1_0\r\n",
        b"$1\r\na\r\n$1\r\nb\r\n", b"$1\r\na\r\n+", b"x" * 10_000_000, b"*1\r\n>1\r\n+x\r\n", b"*1\r\n" * 200,
    ],
)  # fmt: skip
@pytest.mark.parametrize("face", ["client", "pipeline"])
def test_a_wrong_reply_is_a_protocol_error_and_the_next_call_is_right(fake: Make, reply: bytes, face: str) -> None:
    server = fake(answering(reply), right)
    with kvclient.connect(server.url) as kv:
        ask = kv.get if face == "client" else functools.partial(ask_in_pipeline, kv)
        with pytest.raises(ProtocolError) as raised:
            ask("k")
        assert raised.value.applied == "unknown"
        assert kv.get("k") == b"right"
        assert server.accepted == 2


def ask_in_pipeline(kv: kvclient.Client, key: str) -> None:
    with kv.pipeline() as p:
        p.get(key)


@pytest.mark.parametrize("part", [b"", b"$", b"$5\r\n", b"$5\r\nrigh", b"$5\r\nright\r"])
def test_an_early_close_is_retried_once_if_the_command_only_reads(fake: Make, part: bytes) -> None:
    server = fake(answering(part), right)
    with kvclient.connect(server.url) as kv:
        assert kv.get("k") == b"right"
        assert server.accepted == 2


def test_a_write_is_not_retried_once_it_was_sent(fake: Make) -> None:
    server = fake(answering(b""), right)
    with kvclient.connect(server.url) as kv:
        with pytest.raises(ConnectionLostError) as raised:
            kv.incr("k")
        assert raised.value.applied == "unknown"
        with pytest.raises(ProtocolError):
            kv.incr("k")
        assert server.accepted == 2


def test_retrying_ends(fake: Make) -> None:
    server = fake(answering(b""))
    with kvclient.connect(server.url) as kv:
        with pytest.raises(ConnectionLostError):
            kv.get("k")
        assert server.accepted == 4


def test_it_is_tried_as_often_as_one_says(fake: Make) -> None:
    server = fake(answering(b""))
    with kvclient.connect(server.url, retries=0) as kv:
        with pytest.raises(ConnectionLostError):
            kv.get("k")
        assert server.accepted == 1


def test_no_pause_goes_beyond_the_deadline(fake: Make) -> None:
    server = fake(answering(b""))
    with kvclient.connect(server.url, retries=1000, timeout=0.3) as kv:
        before = time.monotonic()
        with pytest.raises((ConnectionLostError, CannotConnectError, CallTimeoutError)):
            kv.get("k")
        assert time.monotonic() - before < 0.6
    assert 3 <= server.accepted < 20


def test_nothing_is_asked_again_when_the_time_is_up() -> None:
    for error in (ConnectionLostError("lost", applied="no"), CannotConnectError("away"), LoadingError("LOADING", "")):
        for left in (0.0, -1.0):
            assert pause_before_retry(error, 1, safe=True, retries=3, left=left) is None
        assert pause_before_retry(error, 1, safe=True, retries=3, left=1.0) is not None


def test_a_server_that_loads_is_asked_again(fake: Make) -> None:
    def loading(peer: Peer) -> None:
        peer.greet()
        peer.answer(b"-LOADING the data is being loaded\r\n", b":1\r\n")

    with kvclient.connect(fake(loading).url) as kv:
        assert kv.incr("k") == 1  # an error says that nothing was done, so that even this may be asked again


def test_a_late_reply_is_read_by_nobody(fake: Make) -> None:
    go = threading.Event()

    def late(peer: Peer) -> None:
        peer.greet()
        peer.read()
        go.wait(10)
        peer.sock.sendall(b"$5\r\nwrong\r\n")

    with kvclient.connect(fake(late, right).url) as kv:
        with pytest.raises(CallTimeoutError, match="timeout=") as raised:
            kv.execute("GET", "k", timeout=0.05)
        go.set()
        assert raised.value.applied == "unknown"
        assert isinstance(raised.value, TimeoutError)
        assert kv.get("k") == b"right"


def test_a_reply_nobody_asked_for_costs_the_connection(fake: Make) -> None:
    got, sent = threading.Event(), threading.Event()

    def talkative(peer: Peer) -> None:
        peer.greet()
        peer.answer(b"$5\r\nright\r\n")
        got.wait(10)
        peer.sock.sendall(b"$5\r\nwrong\r\n")
        sent.set()
        peer.read()

    with kvclient.connect(fake(talkative, right).url) as kv:
        assert kv.get("k") == b"right"
        got.set()
        sent.wait(10)
        kv._pool._idle[-1].used = 0.0
        assert kv.get("k") == b"right"


def test_a_push_in_the_middle_is_not_a_reply(fake: Make) -> None:
    push = b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n"
    with kvclient.connect(fake(answering(push + b"$1\r\na\r\n", b"$1\r\nb\r\n" + push)).url) as kv:
        assert kv.get("k") == b"a"
        assert kv.get("k") == b"b"


def test_a_server_that_stops_reading_meets_the_deadline(fake: Make) -> None:
    stop = threading.Event()

    def deaf(peer: Peer) -> None:
        peer.greet()
        stop.wait(10)

    with kvclient.connect(fake(deaf).url) as kv:
        with pytest.raises(CallTimeoutError) as raised:
            kv.execute("SET", "k", b"x" * 50_000_000, timeout=0.05)
        stop.set()
        assert raised.value.applied == "no"  # it never arrived whole


def test_a_server_that_trickles_meets_the_deadline(fake: Make) -> None:
    stop = threading.Event()

    def trickle(peer: Peer) -> None:
        peer.greet()
        peer.read()
        peer.sock.sendall(b"$1000000\r\n")
        while not stop.wait(0.001):
            peer.sock.sendall(b"x")

    with kvclient.connect(fake(trickle).url) as kv:
        with pytest.raises(CallTimeoutError):
            kv.execute("GET", "k", timeout=0.05)
        stop.set()


def test_the_handshake_is_one_write_and_old_servers_get_resp2(fake: Make) -> None:
    seen: list[bytes] = []

    def old(peer: Peer) -> None:
        seen.append(peer.read())
        unknown = b"-ERR unknown command 'x'\r\n"
        peer.sock.sendall(unknown + b"-NOAUTH\r\n" * 2 + unknown * 2)
        seen.append(peer.read())
        peer.sock.sendall(b"+OK\r\n" * 3 + unknown * 2)
        peer.answer(b"$-1\r\n")

    url = fake(old).url.replace("//", "//u:p@") + "/3?name=me"
    with kvclient.connect(url) as kv:
        assert kv.get("k") is None
    words = [[w for w in re.split(rb"\r\n", s) if w[:1].isalpha() or w.isdigit()] for s in seen]
    assert words[0][:8] == [b"HELLO", b"3", b"AUTH", b"u", b"p", b"CLIENT", b"SETNAME", b"me"]
    assert words[1][:8] == [b"AUTH", b"u", b"p", b"CLIENT", b"SETNAME", b"me", b"SELECT", b"3"]


@pytest.mark.parametrize(
    ("greeting", "error"),
    [
        (b"-WRONGPASS bad\r\n" + GREETING[5:], AuthError),
        (b"-NOAUTH need\r\n" + GREETING[5:], AuthError),
        (b"-LOADING wait\r\n" + GREETING[5:], LoadingError),
        (b"-ERR max number of clients reached\r\n", CannotConnectError),
        (b"+OK\r\n", CannotConnectError),
        (b"SSH-2.0-OpenSSH\r\n", CannotConnectError),
        (b"", CannotConnectError),
    ],
)
def test_a_failed_handshake(fake: Make, greeting: bytes, error: type[KVError]) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.sock.sendall(greeting)

    with pytest.raises(error) as raised:
        kvclient.connect(fake(script).url)
    assert raised.value.applied == "no"


def test_a_silent_server_meets_the_deadline_in_the_handshake(fake: Make) -> None:
    with pytest.raises(CannotConnectError, match="in time"):
        kvclient.connect(fake(lambda peer: peer.read() and peer.read()).url, timeout=0.05)


def test_a_pipeline_cut_short_keeps_what_came(fake: Make) -> None:
    with kvclient.connect(fake(answering(b"$1\r\na\r\n-ERR no\r\n$1")).url) as kv:
        p = kv.pipeline()
        futures = [p.get("a"), p.getset("b", 1), p.get("c")]
        with pytest.raises(ConnectionLostError) as raised:
            p.run()
        assert raised.value.applied == "unknown"
        assert futures[0].result() == b"a"
        with pytest.raises(ServerError, match="no"):
            futures[1].result()
        assert futures[2].error() is raised.value


def test_an_error_inside_an_array_is_part_of_the_reply(fake: Make) -> None:
    with kvclient.connect(fake(answering(b"*2\r\n:1\r\n-ERR inner\r\n", b"*1\r\n-ERR inner\r\n")).url) as kv:
        reply = kv.execute("X")
        assert isinstance(reply, list)
        assert isinstance(reply[1], ServerError)
        with pytest.raises(ProtocolError):
            kv.mget("k")


def test_a_pipeline_left_by_an_exception_sends_nothing(own_url: str) -> None:
    with kvclient.connect(own_url) as kv:
        kv.delete("n")
        p = kv.pipeline()
        future = p.incr("n")
        with pytest.raises(ZeroDivisionError), p:
            raise ZeroDivisionError
        with pytest.raises(PipelineAbandonedError, match="nothing"):
            future.result()
        assert kv.get("n") is None


def test_an_error_in_a_pipeline_does_not_hide_the_rest(own_url: str) -> None:
    with kvclient.connect(own_url) as kv:
        kv.set("text", "abc")
        kv.delete("n")
        p = kv.pipeline()
        first, bad, last = p.incr("n"), p.incr("text"), p.incr("n")
        with pytest.raises(PipelineAbandonedError):
            first.result()
        with pytest.raises(PipelineError, match="number 2") as raised:
            p.run()
        assert raised.value.results == (1, bad.error(), 2)
        assert (first.result(), last.result()) == (1, 2)
        with kv.pipeline(raise_errors=False) as p:
            bad = p.incr("text")
        assert isinstance(bad.error(), ServerError)
        assert p.run() == ()
