"""Hostile connections, rows 6, 9, 26 and 29: those that trickle, that never read, that die, that are killed."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from hostile.conftest import Besiege
from hostile.siege import PATIENCE, Siege, read_all, request, reset

from kvserver import connection
from kvserver.session import Session

PING = request(b"PING")
PONG = b"+PONG\r\n"


class Time:
    """The connections' clock, moved by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(connection, "time", self)

    def monotonic(self) -> float:
        return self.now

    def monotonic_ns(self) -> int:
        return int(self.now * 1e9)


def session_of(siege: Siege, sock: socket.socket) -> Session:
    sock.sendall(request(b"CLIENT", b"ID"))
    number = int(sock.recv(100)[1:])
    return next(session for session in siege.arena.state.clients.sessions() if session.id == number)


def wait_until_received(siege: Siege, session: Session, size: int) -> None:
    """Wait until the server has read so much of a connection. The bystander's replies pass the time."""
    while session.received < size or session.reads == 0:
        siege.bystander.is_served()


def wait_until_blocked(siege: Siege, session: Session) -> None:
    while not session.blocked:
        siege.bystander.is_served()


# Row 6: a command that never becomes whole


@pytest.mark.interpreted
def test_6_a_trickle_is_ended_at_its_deadline(besiege: Besiege, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Time(monkeypatch)
    with besiege(request_timeout=1000) as siege, siege.arena.connect() as sock:
        session = session_of(siege, sock)
        sent = session.received
        for byte in (b"*2\r\n$3\r\nGET\r\n$536870912\r\n", *[b"x"] * 9):
            sock.sendall(byte)
            sent += len(byte)
            wait_until_received(siege, session, sent)
            clock.now += 100
        assert session in siege.arena.state.clients.sessions()
        clock.now += 100
        sock.sendall(b"x")
        assert read_all(sock) == b""
        assert ["connection.timed_out" in line for line in siege.log()] == [True]


def test_6_silence_within_a_command_is_ended(besiege: Besiege) -> None:
    with besiege(request_timeout=1) as siege, siege.arena.connect() as idle, siege.arena.connect() as sock:
        idle.sendall(PING)
        assert idle.recv(100) == PONG
        sock.sendall(PING + b"*1\r\n$4\r\nPI")
        assert read_all(sock) == PONG
        idle.sendall(PING)  # between commands there is no limit
        assert idle.recv(100) == PONG


def test_6_each_command_has_its_own_deadline(besiege: Besiege, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bulk load that always has half a command on its way may take as long as it likes."""
    clock = Time(monkeypatch)
    with besiege(request_timeout=1000, log_lines=0) as siege, siege.arena.connect() as sock:
        sock.sendall(PING[:7])
        for _ in range(20):
            sock.sendall(PING[7:] + PING[:7])
            assert sock.recv(100) == PONG
            clock.now += 900
        sock.sendall(PING[7:])
        assert sock.recv(100) == PONG


# Row 9: asking and never reading


def test_9_who_never_reads_is_ended_and_holds_nobody(besiege: Besiege) -> None:
    with besiege(write_timeout=1) as siege:
        siege.arena.state.keyspace.databases[0].values[b"large"] = b"v" * 10_000_000
        with siege.arena.connect(receive_buffer=4096) as sock:
            session = session_of(siege, sock)
            sock.sendall(request(b"GET", b"large") * 100)
            while session in siege.arena.state.clients.sessions():
                siege.bystander.is_served()
            assert session.commands < 5  # the rest was never begun, so no reply waits in memory
        assert ["connection.stalled" in line for line in siege.log()] == [True]
        siege.arena.state.keyspace.databases[0].values.clear()


def test_8_a_stranger_who_never_reads_is_ended_at_once(siege: Siege) -> None:
    """Nothing is kept for a client that has not authenticated, and no time is spent on it: CVE-2025-21605."""
    assert siege.arena.ask(b"CONFIG", b"SET", b"requirepass", b"secret") == b"+OK\r\n"
    with siege.arena.connect(receive_buffer=4096) as sock, pytest.raises(ConnectionError):
        sock.sendall(PING * 5_000_000)  # replies of 175 MB; what the two sockets' buffers hold is a few


def test_9_small_replies_that_nobody_reads_do_not_pile_up(besiege: Besiege) -> None:
    with besiege(write_timeout=1) as siege, siege.arena.connect(receive_buffer=4096) as sock:
        session = session_of(siege, sock)
        flood = threading.Thread(target=_send_until_refused, args=(sock, request(b"GET", b"bystander") * 10_000))
        flood.start()
        while session in siege.arena.state.clients.sessions():
            siege.bystander.is_served()
        flood.join(PATIENCE)
        assert not flood.is_alive()


def _send_until_refused(sock: socket.socket, data: bytes) -> None:
    try:
        while True:
            sock.sendall(data)
    except OSError:
        pass


@pytest.mark.parametrize("leave", [reset, socket.socket.close], ids=["reset", "close"])
def test_a_client_dies_in_the_middle_of_its_reply(siege: Siege, leave: Any) -> None:
    siege.arena.state.keyspace.databases[0].values[b"large"] = b"v" * 10_000_000
    for _ in range(5):
        sock = siege.arena.connect(receive_buffer=4096)
        sock.sendall(request(b"GET", b"large") * 3)
        assert sock.recv(4) == b"$100"
        leave(sock)
    siege.arena.state.keyspace.databases[0].values.clear()


def test_a_client_dies_in_the_middle_of_its_command(siege: Siege) -> None:
    for end in range(1, 40):
        sock = siege.arena.connect()
        sock.sendall(request(b"SET", b"half", b"v" * 10)[:end])
        (reset if end % 2 else socket.socket.close)(sock)
    assert siege.arena.ask(b"EXISTS", b"half") == b":0\r\n"


# Row 27, as far as it applies: CLIENT KILL


def test_a_killed_client_is_gone_while_it_does_not_read(siege: Siege) -> None:
    siege.arena.state.keyspace.databases[0].values[b"large"] = b"v" * 10_000_000
    with siege.arena.connect(receive_buffer=4096) as victim:
        session = session_of(siege, victim)
        victim.sendall(request(b"GET", b"large") * 3)
        assert victim.recv(4) == b"$100"
        assert siege.arena.ask(b"CLIENT", b"KILL", b"ID", b"%d" % session.id) == b":1\r\n"
        read_all(victim)
    siege.arena.state.keyspace.databases[0].values.clear()


def test_what_a_killed_client_has_sent_is_not_run(siege: Siege) -> None:
    with siege.arena.connect() as victim:
        session = session_of(siege, victim)
        victim.sendall(request(b"WAIT", b"1", b"0") + request(b"SET", b"late", b"v") * 3)
        wait_until_blocked(siege, session)
        assert siege.arena.ask(b"CLIENT", b"KILL", b"ID", b"%d" % session.id) == b":1\r\n"
        assert read_all(victim) == b""
    while session in siege.arena.state.clients.sessions():
        siege.bystander.is_served()
    assert siege.arena.ask(b"EXISTS", b"late") == b":0\r\n"


def test_who_kills_itself_gets_the_answer_first(siege: Siege) -> None:
    with siege.arena.connect() as sock:
        session = session_of(siege, sock)
        kill = request(b"CLIENT", b"KILL", b"ID", b"%d" % session.id, b"SKIPME", b"no")
        sock.sendall(PING + kill + request(b"SET", b"late", b"v"))
        assert read_all(sock) == PONG + b":1\r\n"
    assert siege.arena.ask(b"EXISTS", b"late") == b":0\r\n"


def test_clients_kill_each_other_all_at_once(siege: Siege) -> None:
    """Everybody asks for everybody's end at the same moment; who is ended twice, or too late, harms nobody."""
    socks = [siege.arena.connect() for _ in range(20)]
    ids = [b"%d" % session_of(siege, sock).id for sock in socks]
    barrier = threading.Barrier(len(socks))

    def attack(sock: socket.socket) -> None:
        with sock:
            barrier.wait(PATIENCE)
            try:
                sock.sendall(request(b"CLIENT", b"KILL", b"ID", *ids))
                sock.shutdown(socket.SHUT_WR)  # one may be left over: who was quicker than all the others
                read_all(sock)
            except OSError:
                pass

    threads = [threading.Thread(target=attack, args=(sock,)) for sock in socks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


# Row 29: leaving


def test_29_what_follows_quit_is_not_run(siege: Siege) -> None:
    after = request(b"SET", b"after", b"v" * 1000) * 400  # more than one read
    with siege.arena.connect() as sock:
        sock.sendall(request(b"SET", b"before", b"v") + request(b"QUIT") + after)
        assert read_all(sock) == b"+OK\r\n+OK\r\n"
    assert siege.arena.ask(b"EXISTS", b"before", b"after") == b":1\r\n"


def test_29_who_quits_and_stays_is_logged_nowhere(besiege: Besiege) -> None:
    with besiege(log_lines=0) as siege, siege.arena.connect() as sock:
        sock.sendall(request(b"QUIT"))
        assert read_all(sock) == b"+OK\r\n"
        while len(siege.arena.state.clients) > 1:  # the server has waited long enough for us
            siege.bystander.is_served()


def test_all_replies_arrive_after_a_half_close(siege: Siege) -> None:
    commands = 50_000
    with siege.arena.connect() as sock:
        sender = threading.Thread(target=_send_and_half_close, args=(sock, PING * commands))
        sender.start()
        assert read_all(sock) == PONG * commands
        sender.join(PATIENCE)


def _send_and_half_close(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


# A reply too large


@pytest.mark.interpreted
def test_a_reply_that_does_not_fit_memory_ends_its_connection_only(
    siege: Siege, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(*_: object) -> None:
        raise MemoryError

    with siege.arena.connect() as sock:
        session = session_of(siege, sock)
        monkeypatch.setattr(connection.Connection, "_send", _only_for(session, send))
        sock.sendall(PING)
        assert read_all(sock) == b""
    assert ["connection.out_of_memory" in line for line in siege.log()] == [True]


def _only_for(session: Session, replacement: Any) -> Any:
    original = connection.Connection._send
    return lambda self, replies: (replacement if self._session is session else original)(self, replies)
