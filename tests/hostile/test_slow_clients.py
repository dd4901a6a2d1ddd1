"""Clients that are slow to send or to read, leave without a word, stay when they are to go, or are killed.

Whoever else is connected is served all the while, and nothing is left of any of them. A number at the front of a
test's name is the row in the project's list of hostile inputs.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

import pytest
from hostile.conftest import Besiege
from hostile.siege import PATIENCE, Siege, read_all, request, reset, server_threads

from kvserver.observe.info import memory_resident

MEGABYTE = 1024 * 1024
SMALL = 16 * 1024
QUOTES = b"-ERR Protocol error: unbalanced quotes in request\r\n"


@pytest.fixture
def known(siege: Siege) -> set[threading.Thread]:
    """The server's threads while only the bystander is connected."""
    return server_threads()


def wait_for_end_of_all_but(known: set[threading.Thread]) -> None:
    """Until the server has ended its connections by itself: what it waits for is not the client."""
    for thread in server_threads() - known:
        thread.join(PATIENCE)
    assert server_threads() <= known


def receive(sock: socket.socket, expected: bytes) -> None:
    """These bytes come, however they are cut."""
    while expected:
        got = sock.recv(len(expected))
        assert got
        assert expected.startswith(got)
        expected = expected[len(got) :]


def name_it(sock: socket.socket, name: bytes) -> None:
    sock.sendall(b"CLIENT SETNAME %b\r\n" % name)
    receive(sock, b"+OK\r\n")


# ---- sending slowly --------------------------------------------------------------------------------------------


def test_6_without_a_limit_a_command_may_take_its_time(besiege: Besiege) -> None:
    with besiege(request_timeout=0) as siege, siege.arena.connect() as sock:
        for byte in request(b"ECHO", b"slow"):
            sock.sendall(bytes((byte,)))
            siege.bystander.is_served()
        assert sock.recv(100) == b"$4\r\nslow\r\n"


# ---- not reading -----------------------------------------------------------------------------------------------


def test_9_replies_nobody_reads_do_not_pile_up(siege: Siege) -> None:
    """10 GB of replies are asked for, by a client that reads 20 MB of them in small pieces."""
    arena = siege.arena
    assert arena.ask(b"SET", b"k", b"v" * 100_000) == b"+OK\r\n"
    before = most = memory_resident()
    with arena.connect(receive_buffer=SMALL) as sock:

        def ask() -> None:
            with contextlib.suppress(OSError):  # it leaves before all is sent
                sock.sendall(request(b"GET", b"k") * 100_000)

        asking = threading.Thread(target=ask)
        asking.start()
        read = 0
        while read < 20 * MEGABYTE:
            got = len(sock.recv(SMALL))
            assert got
            read += got
            if read % 64 < 4:
                most = max(most, memory_resident())
        siege.bystander.is_served()
        most = max(most, memory_resident())
        sock.shutdown(socket.SHUT_RDWR)
        asking.join(PATIENCE)
        assert not asking.is_alive()
    assert most - before < 64 * MEGABYTE


# ---- leaving ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["closed", "reset"])
@pytest.mark.parametrize("data", [b"", b"PI", b"PING\r\n" * 10_000], ids=["nothing", "half", "many"])
def test_a_client_leaves_without_waiting(siege: Siege, data: bytes, leave: Callable[[socket.socket], object]) -> None:
    for _ in range(5):
        with siege.arena.connect() as sock:
            sock.sendall(data)
            leave(sock)
    assert not siege.log()


@pytest.mark.parametrize(
    ("last", "reply"),
    [(b"QUIT\r\n", b"+OK\r\n"), (b"CLIENT KILL NAME me SKIPME no\r\n", b":1\r\n"), (b'"a"b\r\n', QUOTES)],
    ids=["QUIT", "KILL", "fault"],
)
def test_29_the_last_reply_arrives_before_much_that_is_not_run(siege: Siege, last: bytes, reply: bytes) -> None:
    """And then the end in order: closing a socket with unread input resets the connection."""
    with siege.arena.connect() as sock:
        name_it(sock, b"me")
        sock.sendall(last + request(b"SET", b"k", b"x" * 200_000) + request(b"SET", b"k", b"y") * 1000)
        receive(sock, reply)
        assert sock.recv(100) == b""
    assert siege.arena.ask(b"EXISTS", b"k") == b":0\r\n"


@pytest.mark.parametrize("last", [b"*x\r\n", b"POST /\r\n", b"CLIENT KILL NAME me SKIPME no\r\n"])
def test_a_client_that_stays_when_it_is_to_go(siege: Siege, known: set[threading.Thread], last: bytes) -> None:
    """The server waits for it a moment only, and says nothing of that beside what it says of the fault."""
    with siege.arena.connect() as sock:
        name_it(sock, b"me")
        sock.sendall(last)
        wait_for_end_of_all_but(known)
        assert read_all(sock) in (b"-ERR Protocol error: invalid multibulk length\r\n", b"", b":1\r\n")
    assert len(siege.log()) == (not last.startswith(b"CLIENT"))


# ---- being killed ----------------------------------------------------------------------------------------------


def test_27_an_idle_client_is_killed(siege: Siege, known: set[threading.Thread]) -> None:
    arena = siege.arena
    with arena.connect() as sock:
        name_it(sock, b"idle")
        assert arena.ask(b"CLIENT", b"KILL", b"NAME", b"idle") == b":1\r\n"
        assert sock.recv(100) == b""
        wait_for_end_of_all_but(known)
        assert arena.ask(b"CLIENT", b"KILL", b"NAME", b"idle") == b":0\r\n"
        assert not siege.log()


def test_27_a_client_is_killed_by_its_address(siege: Siege, known: set[threading.Thread]) -> None:
    with siege.arena.connect() as sock:
        address = ":".join(map(str, sock.getsockname()))
        sock.sendall(b"PING\r\n")
        assert sock.recv(100) == b"+PONG\r\n"
        assert siege.arena.ask(b"CLIENT", b"KILL", address.encode()) == b"+OK\r\n"
        assert sock.recv(100) == b""
        wait_for_end_of_all_but(known)
        assert siege.arena.ask(b"CLIENT", b"KILL", address.encode()) == b"-ERR No such client\r\n"


def test_27_a_client_is_killed_in_the_middle_of_a_command(siege: Siege, known: set[threading.Thread]) -> None:
    with siege.arena.connect() as sock:
        name_it(sock, b"half")
        sock.sendall(b"*2\r\n$3\r\nGET\r\n$100\r\nx")
        assert siege.arena.ask(b"CLIENT", b"KILL", b"NAME", b"half") == b":1\r\n"
        assert sock.recv(100) == b""
        wait_for_end_of_all_but(known)


def test_27_many_are_killed_while_they_work(siege: Siege) -> None:
    arena = siege.arena
    socks = [arena.connect() for _ in range(20)]
    try:
        for sock in socks:
            name_it(sock, b"herd")
            sock.sendall(b"SET k v\r\n" * 1000)
        assert arena.ask(b"CLIENT", b"KILL", b"NAME", b"herd") == b":20\r\n"
        for sock in socks:
            answered = read_all(sock)
            assert answered == b"+OK\r\n" * (len(answered) // 5) + b"+OK\r\n"[: len(answered) % 5]
    finally:
        for sock in socks:
            sock.close()
    assert not siege.log()
