#!/usr/bin/env python3
"""The least that a server with a thread a connection does in Python: GET and SET in a dict. What bench.py measures by.

python scripts/bench_bare.py PORT

No errors, no limits, nothing that arrives in two parts. Its threads are pinned to a CPU as kvserver's are.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading

from kvserver.threads import pin_thread

values: dict[bytes, bytes] = {}


def answer(words: list[bytes]) -> bytes:
    match words:
        case [b"GET", key]:
            value = values.get(key)
            return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)
        case [b"SET", key, value]:
            values[key] = value
            return b"+OK\r\n"
        case [b"PING"]:
            return b"+PONG\r\n"
    return b"*0\r\n"  # what redis-benchmark asks about settings


def serve(sock: socket.socket) -> None:
    pin_thread("auto")
    with sock, contextlib.suppress(ConnectionError):
        while received := sock.recv(64 * 1024):
            parts = received.split(b"\r\n")
            replies, place = [], 0
            while place < len(parts) - 1:
                end = place + 1 + 2 * int(parts[place][1:])
                replies.append(answer(parts[place + 2 : end : 2]))
                place = end
            sock.sendall(b"".join(replies))


def main() -> None:
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=512) as listener:
        while True:
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main()
