"""The connections' threads: who waits for them, and what many of them do to the interpreter."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from kvserver import threads
from kvserver.threads import ConnectionThreads

PATIENCE = 30


@pytest.fixture
def crew() -> Iterator[ConnectionThreads[int]]:
    yield ConnectionThreads()
    assert sys.getswitchinterval() == pytest.approx(threads._USUAL_INTERVAL)


def test_known_from_before_it_starts_until_it_ends(crew: ConnectionThreads[int]) -> None:
    seen: list[list[int]] = []
    crew.start(1, lambda: seen.append(crew.connections()), "one")
    assert crew.wait(PATIENCE)
    assert seen == [[1]]
    assert crew.connections() == []


def test_waiting_has_an_end(crew: ConnectionThreads[int]) -> None:
    enough = threading.Event()
    crew.start(1, enough.wait, "one")
    try:
        assert not crew.wait(0.01)
        assert crew.connections() == [1]
    finally:
        enough.set()
    assert crew.wait()


def test_one_that_is_about_to_end_is_waited_for(crew: ConnectionThreads[int], monkeypatch: pytest.MonkeyPatch) -> None:
    enough, forget = threading.Event(), crew._forget

    def forget_and_linger(connection: int) -> None:
        forget(connection)
        enough.wait()

    monkeypatch.setattr(crew, "_forget", forget_and_linger)
    crew.start(1, lambda: None, "one")
    while crew.connections():
        pass
    assert not crew.wait(0.01)
    enough.set()
    assert crew.wait(PATIENCE)


def test_those_that_have_ended_are_not_kept(crew: ConnectionThreads[int]) -> None:
    for number in range(200):
        crew.start(number, lambda: None, str(number))
        assert crew.wait(PATIENCE)
    assert len(crew._leaving) <= threads._FEW


def test_one_that_cannot_start_is_forgotten(crew: ConnectionThreads[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        crew.start(1, print, "one")
    assert crew.connections() == []


def test_many_ask_for_the_interpreter_less_often(crew: ConnectionThreads[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_MANY", 3)
    monkeypatch.setattr(threads, "_SHARE", 0.01)
    enough = threading.Event()
    intervals = []
    for number in range(5):
        crew.start(number, enough.wait, str(number))
        intervals.append(round(sys.getswitchinterval(), 4))
    enough.set()
    assert crew.wait(PATIENCE)
    usual = round(threads._USUAL_INTERVAL, 4)
    assert intervals == [usual, usual, usual, 0.04, 0.05]


PROGRAM = """
import kvserver
server = kvserver.Server(port=0, debug_command="yes").start()
print(server.port, flush=True)
"""


def test_a_program_that_ends_serves_on_and_sends_all_replies() -> None:
    """It does not stop its server. Nothing is cut off, whenever the interpreter would exit."""
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    try:
        address = ("127.0.0.1", int(program.stdout.readline()))
        size = 10_000_000  # more than the buffers between take, and soon read also on a busy machine
        with socket.socket() as slow, socket.create_connection(address, PATIENCE) as other:
            slow.settimeout(PATIENCE)
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            slow.connect(address)
            slow.sendall(b"SETRANGE k %d x\r\nGET k\r\n" % (size - 1))
            received = slow.recv(100)  # its thread is in the middle of a reply, or about to be
            other.sendall(b"SHUTDOWN\r\n")
            while chunk := slow.recv(1 << 20):
                received += chunk
        assert len(received) == len(b":%d\r\n$%d\r\n" % (size, size)) + size + 2
        assert program.wait(PATIENCE) == 0
    finally:
        if program.poll() is None:
            program.send_signal(signal.SIGKILL)
        program.stdout.close()
        program.wait()
