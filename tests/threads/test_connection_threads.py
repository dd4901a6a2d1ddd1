"""The connections' threads: who waits for them, and what many of them do to the interpreter."""

from __future__ import annotations

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
import sys
import threading
import kvserver

server = kvserver.Server(port=0).start()

def stop():
    threading.main_thread().join()
    sys.stdin.read()
    server.stop()

threading.Thread(target=stop).start()
print(server.port, flush=True)
sys.stdin.readline()
"""


def test_what_is_being_sent_when_the_main_thread_ends_is_sent() -> None:
    """The interpreter then waits for the server, whatever the flags of its threads are: no reply is cut off."""
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdin is not None
    assert program.stdout is not None
    size = 10_000_000  # more than the buffers between take
    with program, socket.socket() as slow:
        try:
            slow.settimeout(PATIENCE)
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            slow.connect(("127.0.0.1", int(program.stdout.readline())))
            slow.sendall(b"SETRANGE k %d x\r\nGET k\r\n" % (size - 1))
            received = slow.recv(100)
            program.stdin.write(b"\n")  # its main thread ends
            program.stdin.flush()
            received += slow.recv(100)
            program.stdin.close()  # and now the server is to stop
            while chunk := slow.recv(1 << 20):
                received += chunk
            assert len(received) == len(b":%d\r\n$%d\r\n" % (size, size)) + size + 2
            assert program.wait(PATIENCE) == 0
        finally:
            program.kill()
