"""A large value takes its own memory, and hardly anything beside that while it is received or sent."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

SIZE = 48 * 1024 * 1024
PIECE = bytes(range(256)) * 4096

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak is asked of Linux")


class Server:
    """A server in a process of its own, and the most memory it has had."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.port = int(process.stdout.readline().rpartition(":")[2])
        self.folder = Path(f"/proc/{process.pid}")

    def _field(self, name: str) -> int:
        lines = (self.folder / "status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

    def forget_peak(self) -> int:
        """Bytes that are resident now; the peak begins there."""
        (self.folder / "clear_refs").write_text("5")
        return self._field("VmRSS")

    @property
    def peak(self) -> int:
        return self._field("VmHWM")


@pytest.fixture
def server() -> Iterator[Server]:
    command = [sys.executable, "-m", "kvserver", "--port", "0", "--log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Server(process)
        finally:
            process.terminate()
            process.wait(30)


def test_a_large_value_in_and_out(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
        before = server.forget_peak()
        sock.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % SIZE)
        for _ in range(SIZE // len(PIECE)):
            sock.sendall(PIECE)
        sock.sendall(b"\r\n")
        assert sock.recv(10) == b"+OK\r\n"
        received = server.peak - before
        before = server.forget_peak()
        sock.sendall(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")
        with sock.makefile("rb") as stream:
            assert stream.readline() == b"$%d\r\n" % SIZE
            for _ in range(SIZE // len(PIECE)):
                assert stream.read(len(PIECE)) == PIECE
            assert stream.read(2) == b"\r\n"
        sent = server.peak - before
    assert received > 0.95 * SIZE, "the peak is measured"  # some of it in memory that the process had already
    assert received < 1.25 * SIZE
    assert sent < 4 * 1024 * 1024


def test_an_idle_connection_keeps_nothing_of_its_last_commands(server: Server) -> None:
    ping = b"*1\r\n$4\r\nPING\r\n"
    many = 60 * 1024 // len(ping)
    with ExitStack() as stack:

        def connect() -> socket.socket:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            replies = stack.enter_context(sock.makefile("rb"))
            for count in (1, many):
                sock.sendall(ping * count)
                assert replies.read(7 * count) == b"+PONG\r\n" * count
            return sock

        for _ in range(20):  # what the allocator keeps for all of them
            connect()
        before = server.forget_peak()
        for _ in range(100):
            connect()
        assert server.forget_peak() - before < 100 * 120_000
