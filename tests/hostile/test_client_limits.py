"""Every limit that ends or delays a client: that it is kept, that INFO counts it, and that nobody else notices."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from conformance.oracle import Wire
from hostile.conftest import Besiege
from hostile.siege import PATIENCE, Siege, read_all, request

import kvserver
from kvserver.connection import Connection
from kvserver.session import Session

MEGABYTE = 1024**2
PING, PONG = request(b"PING"), b"+PONG\r\n"


def counter(siege: Siege, name: str) -> int:
    with Wire(siege.arena.server.port) as wire:
        info = wire.ask("INFO", "stats").decode()
    return int(info.split(f"\n{name}:")[1].split()[0])


@contextmanager
def subscriber(siege: Siege, *words: bytes) -> Iterator[socket.socket]:
    with siege.arena.connect(receive_buffer=4096) as sock:
        sock.sendall(request(*words))
        assert sock.recv(100)
        yield sock


def has_ended(siege: Siege, number: int) -> bool:
    """Whether a connection is gone, soon."""
    until = time.monotonic() + PATIENCE
    while any(session.id == number for session in siege.arena.state.clients.sessions()):
        if time.monotonic() > until:
            return False
        threading.Event().wait(0.01)
    return True


def number_of(sock: socket.socket) -> int:
    sock.sendall(request(b"CLIENT", b"ID"))
    return int(sock.recv(100)[1:])


# Time


def test_who_sends_nothing_is_closed(besiege: Besiege) -> None:
    with besiege(timeout=1, log_lines=2) as siege:
        with siege.arena.connect() as silent, siege.arena.connect() as after_one:
            after_one.sendall(PING)
            assert after_one.recv(100) == PONG
            began = time.monotonic()
            assert read_all(silent) == read_all(after_one) == b""
            assert 0.5 < time.monotonic() - began < PATIENCE / 2
        assert counter(siege, "client_idle_timeout_disconnections") == 2
        assert all("connection.timed_out" in line and "idle" in line for line in siege.log())


@pytest.mark.parametrize("words", [(b"SUBSCRIBE", b"c"), (b"MONITOR",)])
def test_who_waits_for_messages_is_not_idle(besiege: Besiege, words: tuple[bytes, ...]) -> None:
    with besiege(timeout=1) as siege, subscriber(siege, *words) as waiting, siege.arena.connect() as silent:
        assert read_all(silent) == b""
        threading.Event().wait(1)  # a second limit's worth
        assert siege.arena.ask(b"PUBLISH", b"c", b"hello")
        waiting.setblocking(True)
        assert waiting.recv(100)


def test_a_subscription_that_has_ended_exempts_no_more(besiege: Besiege) -> None:
    with besiege(timeout=1) as siege, subscriber(siege, b"SUBSCRIBE", b"c") as sock:
        sock.sendall(request(b"UNSUBSCRIBE"))
        assert read_all(sock).startswith(b"*3\r\n$11\r\nunsubscribe")


def test_the_idle_limit_can_be_set_and_taken_back(besiege: Besiege) -> None:
    with besiege() as siege, siege.arena.connect() as closed, siege.arena.connect() as kept:
        kept.sendall(request(b"CONFIG", b"SET", b"timeout", b"1"))
        assert kept.recv(100) == b"+OK\r\n"
        closed.sendall(PING)
        assert read_all(closed) == PONG
        kept_again = request(b"CONFIG", b"SET", b"timeout", b"0")
        with siege.arena.connect() as sock:
            sock.sendall(kept_again)
            assert sock.recv(100) == b"+OK\r\n"
            threading.Event().wait(1.3)
            sock.sendall(PING)
            assert sock.recv(100) == PONG
        read_all(kept)


def test_half_a_command_is_counted_apart_from_idleness(besiege: Besiege) -> None:
    with besiege(request_timeout=1, timeout=5) as siege, siege.arena.connect() as sock:
        sock.sendall(PING + PING[:5])
        assert read_all(sock) == PONG
        assert counter(siege, "client_request_timeout_disconnections") == 1
        assert counter(siege, "client_idle_timeout_disconnections") == 0


def test_an_idle_limit_comes_back_after_half_a_command(besiege: Besiege) -> None:
    with besiege(request_timeout=300, timeout=1) as siege, siege.arena.connect() as sock:
        sock.sendall(PING[:5])
        sock.sendall(PING[5:])
        assert read_all(sock) == PONG
        assert counter(siege, "client_idle_timeout_disconnections") == 1


def test_who_takes_no_reply_is_counted(besiege: Besiege) -> None:
    with besiege(write_timeout=1) as siege:
        siege.arena.state.keyspace.databases[0].values[b"large"] = b"v" * (20 * MEGABYTE)
        with siege.arena.connect(receive_buffer=4096) as sock:
            number = number_of(sock)
            sock.sendall(request(b"GET", b"large"))
            assert has_ended(siege, number)
        assert counter(siege, "client_write_timeout_disconnections") == 1
        siege.arena.state.keyspace.databases[0].values.clear()


def test_a_machine_that_is_gone_is_counted(siege: Siege) -> None:
    """Loopback cannot lose a machine, so the socket is one that says what the system would, after its probes."""

    class Gone(socket.socket):
        def recv(self, *_: object) -> bytes:
            raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    ours, theirs = socket.socketpair()
    with theirs:
        state = siege.arena.state
        gone = Gone(fileno=ours.detach())
        Connection(gone, Session(state, state.clients.next_id(), "", "", -1)).run()
    assert counter(siege, "client_keepalive_disconnections") == 1
    assert counter(siege, "client_idle_timeout_disconnections") == 0


# Length


@pytest.mark.parametrize(
    "command",
    [b"*65\r\n", b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048577\r\n", b"PING " + b"x" * 70_000, b"*1\r\n$" + b"1" * 70_000],
)
def test_what_is_too_long_is_counted(besiege: Besiege, command: bytes) -> None:
    with besiege(max_arguments=64, max_bulk_length=MEGABYTE) as siege:
        assert siege.arena.answer(command).startswith(b"-ERR Protocol error: ")
        assert counter(siege, "client_query_buffer_limit_disconnections") == 1


def test_as_many_arguments_as_allowed(besiege: Besiege) -> None:
    with besiege(max_arguments=64) as siege:
        assert siege.arena.ask(b"DEL", *[b"k"] * 63) == b":0\r\n"


def test_a_transaction_is_no_longer_than_a_command_may_be(besiege: Besiege) -> None:
    value = b"v" * (MEGABYTE // 4)
    with besiege(max_command_length=MEGABYTE) as siege:
        answer = siege.arena.answer(request(b"MULTI") + request(b"SET", b"k", value) * 5 + PING)
        queued = answer.count(b"+QUEUED\r\n")
        assert queued in (3, 4)
        assert answer == (
            b"+OK\r\n" + b"+QUEUED\r\n" * queued
            + b"-ERR Protocol error: transaction exceeds client-query-buffer-limit\r\n"
        )  # fmt: skip
        assert siege.arena.ask(b"GET", b"k") == b"$-1\r\n"
        assert counter(siege, "client_query_buffer_limit_disconnections") == 1


def test_short_commands_in_a_transaction_count_with_what_they_cost(besiege: Besiege) -> None:
    with besiege(max_command_length=MEGABYTE) as siege:
        answer = siege.arena.answer(request(b"MULTI") + PING * 10_000)
        assert 1000 < answer.count(b"QUEUED") < 5000


# Memory for all clients together

LIMIT = 8 * MEGABYTE


def half_a_command(siege: Siege, stack: ExitStack) -> tuple[socket.socket, int]:
    sock = stack.enter_context(siege.arena.connect())
    number = number_of(sock)
    sock.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % (6 * MEGABYTE) + b"v" * (5 * MEGABYTE))
    return sock, number


def a_transaction(siege: Siege, stack: ExitStack) -> tuple[socket.socket, int]:
    sock = stack.enter_context(siege.arena.connect())
    number = number_of(sock)
    sock.sendall(request(b"MULTI") + request(b"SET", b"k", b"v" * MEGABYTE) * 5)
    return sock, number


def a_reply_not_taken(siege: Siege, stack: ExitStack) -> tuple[socket.socket, int]:
    siege.arena.state.keyspace.databases[0].values[b"large"] = b"v" * (5 * MEGABYTE)
    sock = stack.enter_context(siege.arena.connect(receive_buffer=4096))
    number = number_of(sock)
    sock.sendall(request(b"GET", b"large"))
    return sock, number


def messages_not_taken(siege: Siege, stack: ExitStack) -> tuple[socket.socket, int]:
    sock = stack.enter_context(siege.arena.connect(receive_buffer=4096))
    number = number_of(sock)
    sock.sendall(request(b"SUBSCRIBE", b"c"))
    assert sock.recv(100)
    for _ in range(10):  # some are in the sockets' buffers, which the system counts
        siege.arena.ask(b"PUBLISH", b"c", b"m" * MEGABYTE)
    return sock, number


def many_subscriptions(siege: Siege, stack: ExitStack) -> tuple[socket.socket, int]:
    sock = stack.enter_context(siege.arena.connect())
    number = number_of(sock)
    names = [b"%01000d" % i for i in range(4500)]
    sock.sendall(request(b"SUBSCRIBE", *names))
    replies = sock.makefile("rb")
    for _ in names:
        for _ in range(6):
            replies.readline()
    return sock, number


@pytest.mark.parametrize(
    "hold", [half_a_command, a_transaction, a_reply_not_taken, messages_not_taken, many_subscriptions]
)
def test_who_holds_most_goes(besiege: Besiege, hold: object) -> None:
    assert callable(hold)
    with besiege(maxmemory_clients="8mb", log_lines=2) as siege, ExitStack() as stack:
        modest = stack.enter_context(siege.arena.connect())
        modest.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % (4 * MEGABYTE) + b"v" * (4 * MEGABYTE - 10))
        _, number = hold(siege, stack)
        assert has_ended(siege, number)
        modest.sendall(b"v" * 10 + b"\r\n" + PING)
        assert modest.recv(100) == b"+OK\r\n" + PONG
        assert counter(siege, "evicted_clients") == 1
        assert ["connection.evicted" in line for line in siege.log()] == [True]
        stack.close()
        siege.arena.state.keyspace.databases[0].values.clear()


def test_an_exempt_connection_stays_and_another_goes(besiege: Besiege) -> None:
    with besiege(maxmemory_clients="8mb") as siege, ExitStack() as stack:
        exempt, other = (stack.enter_context(siege.arena.connect()) for _ in range(2))
        exempt.sendall(request(b"CLIENT", b"NO-EVICT", b"ON"))
        assert exempt.recv(100) == b"+OK\r\n"
        number = number_of(other)
        rest = 7 * MEGABYTE
        exempt.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % rest + b"v" * (rest - 1))
        other.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\no\r\n$%d\r\n" % rest + b"v" * (2 * MEGABYTE))
        assert has_ended(siege, number)
        exempt.sendall(b"v\r\n")
        assert exempt.recv(100) == b"+OK\r\n"
        siege.arena.state.keyspace.databases[0].values.clear()


def test_what_is_held_is_given_back(besiege: Besiege) -> None:
    """After each way to hold memory has ended in order, nothing is counted any more."""
    with besiege(maxmemory_clients="0", log_lines=0) as siege, ExitStack() as stack:
        sock, _ = half_a_command(siege, stack)
        sock.sendall(b"v" * MEGABYTE + b"\r\n")
        assert sock.recv(100) == b"+OK\r\n"
        sock, _ = a_transaction(siege, stack)
        sock.sendall(request(b"DISCARD"))
        assert read_until(sock, b"QUEUED\r\n+OK\r\n")
        sock, _ = many_subscriptions(siege, stack)
        assert siege.arena.state.buffers.total > 4 * MEGABYTE
        sock.sendall(request(b"UNSUBSCRIBE") + PING)
        assert read_until(sock, b":0\r\n" + PONG)
        sock, number = a_reply_not_taken(siege, stack)
        sock.close()
        assert has_ended(siege, number)
        sock, number = messages_not_taken(siege, stack)
        sock.close()
        assert has_ended(siege, number)
        stack.close()
        until = time.monotonic() + PATIENCE
        while siege.arena.state.buffers.total and time.monotonic() < until:
            threading.Event().wait(0.01)
        assert siege.arena.state.buffers.total == 0
        siege.arena.state.keyspace.databases[0].values.clear()


def read_until(sock: socket.socket, end: bytes) -> bool:
    received = b""
    while not received.endswith(end):
        chunk = sock.recv(1 << 20)
        if not chunk:
            return False
        received += chunk
    return True


# How fast they may come


def test_connections_come_no_faster_than_allowed(besiege: Besiege) -> None:
    with besiege(log_lines=0) as siege:
        assert siege.arena.ask(b"CONFIG", b"SET", b"accept-rate", b"50") == b"+OK\r\n"
        began = time.monotonic()
        with ExitStack() as stack:
            for sock in [stack.enter_context(siege.arena.connect()) for _ in range(100)]:
                sock.sendall(PING)
                assert sock.recv(100) == PONG
        took = time.monotonic() - began
        assert 0.9 < took < 5  # a second's worth at once, and the rest at 50 a second
        assert 40 <= counter(siege, "delayed_connections") <= 60
        assert siege.arena.ask(b"CONFIG", b"SET", b"accept-rate", b"0") == b"+OK\r\n"


def test_a_server_that_holds_connections_back_stops_at_once() -> None:
    with ExitStack() as stack:
        server = kvserver.Server(port=0, accept_rate=1).start()
        for _ in range(5):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        began = time.monotonic()
        assert server.stop()
        assert time.monotonic() - began < 0.5
