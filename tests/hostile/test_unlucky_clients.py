"""Clients that mean no harm: stopped in a debugger, reset by a proxy, all connecting anew after a restart."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from hostile.conftest import Besiege
from hostile.siege import PATIENCE, Siege, read_all, request, reset

SIZE = 10_000_000
READER = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as sock:
    sock.sendall(b"GET large\\r\\nQUIT\\r\\n")
    received = len(sock.recv(1000))
    print("reading", flush=True)
    sys.stdin.readline()
    while chunk := sock.recv(1 << 16):
        received += len(chunk)
print(received, flush=True)
"""


@pytest.fixture
def stopped(besiege: Besiege) -> Iterator[tuple[Siege, subprocess.Popen[str]]]:
    """A client that is stopped (SIGSTOP) in the middle of a reply of 10 MB."""
    with besiege(write_timeout=2) as siege:
        assert siege.arena.ask(b"SETRANGE", b"large", b"%d" % (SIZE - 1), b"x") == b":%d\r\n" % SIZE
        process = subprocess.Popen(
            [sys.executable, "-c", READER, str(siege.arena.server.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "reading\n"
            process.send_signal(signal.SIGSTOP)
            try:
                siege.bystander.is_served()
                yield siege, process
            finally:
                process.kill()


def test_a_client_that_is_stopped_for_a_moment_gets_all(stopped: tuple[Siege, subprocess.Popen[str]]) -> None:
    _, process = stopped
    process.send_signal(signal.SIGCONT)
    told, _ = process.communicate("go on\n", timeout=PATIENCE)
    assert int(told) == len(b"$%d\r\n" % SIZE) + SIZE + len(b"\r\n+OK\r\n")


def test_a_client_that_stays_stopped_is_ended(stopped: tuple[Siege, subprocess.Popen[str]]) -> None:
    siege, process = stopped
    while b"client_write_timeout_disconnections:1\r\n" not in siege.arena.ask(b"INFO", b"stats"):
        siege.bystander.is_served()
    process.send_signal(signal.SIGCONT)
    told, _ = process.communicate("go on\n", timeout=PATIENCE)
    assert int(told or 0) < SIZE


def test_each_connection_is_told_its_own_token(siege: Siege) -> None:
    """A storm of connections that come and go, some by a reset, whose numbers and threads are used again at once."""
    wrong: list[bytes] = []

    def storm(number: int) -> None:
        source = random.Random(number)
        for turn in range(60):
            token = b"%d:%d:%d" % (number, turn, source.getrandbits(100))
            sock = siege.arena.connect()
            sock.sendall(request(b"ECHO", token) + request(b"SET", token, token) + request(b"GET", token))
            if source.random() < 0.3:
                reset(sock)
                continue
            bulk = b"$%d\r\n%b\r\n" % (len(token), token)
            with sock:
                sock.shutdown(1)
                if (answer := read_all(sock)) != bulk + b"+OK\r\n" + bulk:
                    wrong.append(answer)

    threads = [threading.Thread(target=storm, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
