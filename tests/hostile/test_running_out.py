"""The machine, or the settings, have no more: connections, descriptors, threads. (Row 26 of the hostile inputs.)"""

from __future__ import annotations

import errno
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hostile.conftest import Besiege
from hostile.siege import PATIENCE, Siege, read_all, reset

import kvserver
from kvserver import server
from kvserver.config import Config

_FULL = b"-ERR max number of clients reached\r\n"


def test_26_one_client_too_many(besiege: Besiege) -> None:
    with besiege(maxclients=3) as siege, ExitStack() as stack:
        guests = [stack.enter_context(siege.arena.connect()) for _ in range(2)]
        for guest in guests:
            guest.sendall(b"PING\r\n")
            assert guest.recv(100) == b"+PONG\r\n"
        for _ in range(5):
            assert siege.arena.answer(b"") == _FULL
        for guest in guests:
            guest.sendall(b"PING\r\n")
            assert guest.recv(100) == b"+PONG\r\n"
        guests[0].shutdown(socket.SHUT_WR)
        assert read_all(guests[0]) == b""  # so its place is free
        assert _answered_at_last(siege) == b"+PONG\r\n"


def _answered_at_last(siege: Siege) -> bytes:
    """The reply to PING once a place is free: it is a moment after the client saw its connection end."""
    until = time.monotonic() + PATIENCE
    while (reply := siege.arena.answer(b"PING\r\n")) == _FULL:
        assert time.monotonic() < until
    return reply


def test_26_no_more_threads(besiege: Besiege, monkeypatch: pytest.MonkeyPatch) -> None:
    with besiege() as siege:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", _refuse)
            replies = [siege.arena.answer(b"") for _ in range(5)]
        assert replies == [b"-ERR the server cannot start another thread; try again later\r\n"] * 5
        assert len(siege.log()) == 1
        assert siege.arena.ask(b"PING") == b"+PONG\r\n"


def _refuse(_self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("say", [b"", b"PING\r\n", b"*1000000\r\n$"])
def test_26_a_storm_of_clients_that_reset(siege: Siege, say: bytes) -> None:
    """Many are gone before they are accepted, some before their thread starts, some in the middle."""
    for _ in range(1000):
        sock = siege.arena.connect()
        sock.sendall(say)
        reset(sock)
    assert siege.arena.ask(b"PING") == b"+PONG\r\n"


def test_26_gone_before_they_are_accepted(siege: Siege, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, for certain: nobody is accepted until they have reset their connections."""
    asked, gone = threading.Event(), threading.Event()
    accept = kvserver.Server._accept

    def accept_later(server: kvserver.Server, listener: socket.socket) -> None:
        asked.set()
        gone.wait(PATIENCE)
        accept(server, listener)

    monkeypatch.setattr(kvserver.Server, "_accept", accept_later)
    socks = [siege.arena.connect() for _ in range(100)]
    try:
        assert asked.wait(PATIENCE)
        siege.bystander.is_served()
        for sock in socks:
            reset(sock)
    finally:
        gone.set()
    assert siege.arena.ask(b"PING") == b"+PONG\r\n"
    assert siege.log() == []


def test_26_gone_before_their_thread_starts(siege: Siege, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some systems then refuse to set the socket's options."""

    def refuse(_sock: socket.socket, _config: Config) -> None:
        raise OSError(errno.EINVAL, "it is no longer connected")

    with monkeypatch.context() as patch:
        patch.setattr(server, "_prepare", refuse)
        assert [siege.arena.answer(b"") for _ in range(3)] == [b""] * 3
    assert siege.arena.ask(b"PING") == b"+PONG\r\n"
    assert siege.log() == []


@pytest.mark.parametrize("error", [ConnectionAbortedError(103, "gone"), OSError(71, "protocol"), OSError(1, "no")])
def test_26_accept_fails_for_one_connection(siege: Siege, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    failures: Iterator[OSError] = iter([error] * 3)
    accept = socket.socket.accept

    def fail_at_first(listener: socket.socket) -> Any:
        for failure in failures:
            raise failure
        return accept(listener)

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "accept", fail_at_first)
        assert siege.arena.ask(b"PING") == b"+PONG\r\n"
    assert siege.log() == []


@pytest.fixture
def scarce() -> Iterator[subprocess.Popen[str]]:
    """A server, as a process of its own, that may open 40 files, and its address as its first line."""
    program = [sys.executable, "-m", "kvserver", "--port", "0", "--host", "127.0.0.1"]
    with subprocess.Popen(
        program,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)),
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE)


def test_26_no_more_descriptors(scarce: subprocess.Popen[str]) -> None:
    assert scarce.stdout is not None
    assert scarce.stderr is not None
    port = int(scarce.stdout.readline().rpartition(":")[2])
    with ExitStack() as stack:
        guests = [stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE)) for _ in range(60)]
        for guest in guests:
            guest.sendall(b"PING\r\n")
        served = 0
        while _is_answered(guests[served]):  # in the order they came
            served += 1
        assert 10 < served < 40
        before = _cpu(scarce.pid)
        assert not _is_answered(guests[served])  # it takes a second to find out
        assert _cpu(scarce.pid) - before < 0.5, "the server spins while it waits for descriptors"
        for guest in guests[:served]:
            guest.close()
        for guest in guests[served : served + 10]:  # they waited in the backlog, and now have their turn
            guest.settimeout(PATIENCE)
            assert guest.recv(100) == b"+PONG\r\n"
    scarce.terminate()
    assert scarce.wait(PATIENCE) == 0
    log = scarce.stderr.read()
    assert log.count("accept.out_of_resources") == 1
    assert "Traceback" not in log


def _is_answered(guest: socket.socket) -> bool:
    guest.settimeout(1)
    try:
        return guest.recv(100) == b"+PONG\r\n"
    except TimeoutError:
        return False


def _cpu(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - a pseudo file
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
