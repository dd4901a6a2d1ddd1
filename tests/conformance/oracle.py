"""Raw sockets to our server and to a real one: send requests, cut the replies apart, keep every byte."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import NamedTuple, Self

Words = Sequence[bytes]

_AGGREGATES = {b"*": 1, b"~": 1, b">": 1, b"%": 2}
_BULKS = b"$=!"


def request(words: Words) -> bytes:
    """A command as a client sends it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class Wire:
    """One connection. Replies come back as the bytes they were, one item a reply."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._sock.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._sock.close()

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def read(self) -> bytes:
        """One whole reply, nested ones included."""
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError(f"closed after {line!r}")
        kind = line[:1]
        if kind in _AGGREGATES:
            return line + b"".join(self.read() for _ in range(int(line[1:]) * _AGGREGATES[kind]))
        if kind in _BULKS and line[1:2] != b"-":
            return line + self._file.read(int(line[1:]) + 2)
        return line

    def run(self, *commands: Words) -> list[bytes]:
        """Send all commands at once; the reply to each."""
        self.send(b"".join(map(request, commands)))
        return [self.read() for _ in commands]

    def ask(self, *words: bytes | str | int) -> bytes:
        """One command, its reply."""
        return self.run([encoded(word) for word in words])[0]

    def ends(self, data: bytes) -> bytes:
        """Send ``data``; everything that comes back until the server closes."""
        if data:
            self.send(data)
        with contextlib.suppress(ConnectionError):
            return self._file.read()
        return b"(reset)"


class Pair(NamedTuple):
    """A connection to kvserver and one to the real server."""

    ours: Wire
    theirs: Wire

    def run(self, *commands: Words) -> tuple[list[bytes], list[bytes]]:
        """The replies of both to the same commands."""
        return self.ours.run(*commands), self.theirs.run(*commands)


def encoded(word: bytes | str | int) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode("utf-8")


def parse(raw: bytes) -> object:
    """A raw reply as Python values, its types kept apart: ``(kind, value)`` for what is not an aggregate."""
    value, rest = _parse(raw)
    assert not rest, rest
    return value


def _parse(raw: bytes) -> tuple[object, bytes]:
    line, _, rest = raw.partition(b"\r\n")
    kind, text = line[:1].decode(), line[1:]
    if kind.encode() in _AGGREGATES:
        if text == b"-1":
            return None, rest
        items = []
        for _ in range(int(text) * _AGGREGATES[kind.encode()]):
            item, rest = _parse(rest)
            items.append(item)
        if kind == "%":
            return dict(zip(map(_hashable, items[::2]), items[1::2], strict=True)), rest
        return items, rest
    if kind.encode() in (b"$", b"=", b"!") and text != b"-1":
        length = int(text)
        return rest[:length], rest[length + 2 :]
    if kind == ":":
        return int(text), rest
    if kind == "_" or text == b"-1":
        return None, rest
    return kind + text.decode("latin-1"), rest


def _hashable(item: object) -> object:
    return tuple(item) if isinstance(item, list) else item


PING = request([b"PING"])
MARKER = request([b"ECHO", b"still here"])
SURVIVED = b"$10\r\nstill here\r\n"


def answer(port: int, data: bytes) -> bytes:
    """All that a fresh connection gets for ``data`` and the marker behind it, until the server closes."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        try:
            sock.sendall(data + MARKER)
            sock.shutdown(socket.SHUT_WR)
            while chunk := sock.recv(65536):
                received += chunk
        except ConnectionError:  # closed with input unread: what came before that counts
            pass
    return received
