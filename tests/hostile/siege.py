"""What tests of hostile input are made of: a server, somebody else who is served all the while, and raw sockets."""

from __future__ import annotations

import ctypes
import gc
import socket
import struct
import sys
import threading
from collections.abc import Callable

import kvserver
from kvserver.observe.info import memory_resident

PATIENCE = 30
"""Seconds until a test gives up. Generous: other tests run beside these."""


class Arena:
    """The server, and ways to talk to it that are not a client library's."""

    def __init__(self, server: kvserver.Server) -> None:
        self.server = server
        self.state = server._state

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        sock = socket.socket()
        sock.settimeout(PATIENCE)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect(("127.0.0.1", self.server.port))
        return sock

    def answer(self, data: bytes, *, half_close: bool = True) -> bytes:
        """All that comes back for ``data`` until the server closes."""
        with self.connect() as sock:
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    def ask(self, *words: bytes) -> bytes:
        """One command on a connection of its own; the raw reply."""
        return self.answer(request(*words))


def request(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def read_all(sock: socket.socket) -> bytes:
    """Everything until the server closes. A reset after the last reply is its right, when it leaves input unread."""
    received = b""
    try:
        while chunk := sock.recv(1 << 20):
            received += chunk
    except ConnectionError:
        pass
    return received


def reset(sock: socket.socket) -> None:
    """Leave without saying goodbye: the server gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


_SERVED = b"+OK\r\n$4\r\nhere\r\n+PONG\r\n"


class Bystander:
    """Another client, that goes on working in a thread of its own, with the data as well as without."""

    def __init__(self, arena: Arena) -> None:
        self.answered = 0
        self.failure: BaseException | None = None
        self._sock = arena.connect()
        self._enough = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="bystander")
        self._thread.start()

    def _work(self) -> None:
        try:
            with self._sock, self._sock.makefile("rb") as replies:
                # A thousand times a second: as fast as it can, it would keep a processor from the test.
                while not self._enough.wait(0.001):
                    self._sock.sendall(b"SET bystander here\r\nGET bystander\r\nPING\r\n")
                    assert replies.read(len(_SERVED)) == _SERVED
                    with self._changed:
                        self.answered += 1
                        self._changed.notify_all()
        except (OSError, AssertionError) as failure:
            with self._changed:
                self.failure = failure
                self._changed.notify_all()

    def is_served(self) -> None:
        """Wait for a command that was sent from now on to be answered."""
        with self._changed:
            wanted = self.answered + 2  # the one on its way may have been answered before now
            assert self._changed.wait_for(lambda: self.answered >= wanted or self.failure, PATIENCE)
        assert self.failure is None, self.failure

    def leave(self) -> None:
        self._enough.set()
        self._thread.join(PATIENCE)


class Siege:
    """What a test of hostile input is given: the arena, the bystander, and the log lines so far."""

    def __init__(self, arena: Arena, bystander: Bystander, log: Callable[[], list[str]]) -> None:
        self.arena = arena
        self.bystander = bystander
        self.log = log


def server_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("kvserver")}


def settled_memory() -> int:
    """Resident bytes, once what is free has been given back."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return memory_resident()
