"""WAIT, which waits by design: it ends with its time, with its connection, and with the server."""

from __future__ import annotations

import socket
import struct

import pytest

import kvserver


def _connect(server: kvserver.Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 10)


def _blocked(other: socket.socket) -> bool:
    other.sendall(b"CLIENT LIST\r\n")
    text = b""
    while not text.endswith(b"\n\r\n"):
        text += other.recv(65536)
    return b" flags=b " in text


def _wait_until(other: socket.socket, *, blocked: bool) -> None:
    while _blocked(other) is not blocked:
        pass


def test_it_ends_with_its_time_and_then_goes_on(server: kvserver.Server) -> None:
    with _connect(server) as sock:
        sock.sendall(b"WAIT 1 50\r\nPING\r\nWAIT 0 0\r\n")
        with sock.makefile("rb") as replies:
            assert replies.read(15) == b":0\r\n+PONG\r\n:0\r\n"


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_it_ends_when_its_client_has_left(server: kvserver.Server, reset: bool) -> None:
    with _connect(server) as other:
        with _connect(server) as sock:
            sock.sendall(b"WAIT 1 0\r\nPING\r\n")
            _wait_until(other, blocked=True)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        _wait_until(other, blocked=False)


def test_it_ends_when_its_connection_is_killed(server: kvserver.Server) -> None:
    with _connect(server) as other, _connect(server) as sock:
        sock.sendall(b"CLIENT ID\r\n")
        number = sock.recv(100).strip(b":\r\n")
        sock.sendall(b"WAIT 1 9223370000000000000\r\n")
        _wait_until(other, blocked=True)
        other.sendall(b"CLIENT KILL ID %b\r\n" % number)
        assert other.recv(100) == b":1\r\n"
        assert sock.recv(100) == b""


def test_it_ends_with_the_server() -> None:
    with kvserver.Server(port=0) as server, _connect(server) as sock, _connect(server) as other:
        sock.sendall(b"WAIT 1 0\r\n")
        _wait_until(other, blocked=True)
        assert server.stop()
        assert sock.recv(100) == b":0\r\n"
