#!/usr/bin/env python3
"""What hostile and unlucky clients do to a server, each over and over, all at once. scripts/soak.py starts this.

    .venv/bin/python scripts/attacks.py PORT TLS_PORT SECONDS SEED

Goes to 127.0.0.1 alone, pauses between the rounds, and ends after the given time, or when its standard input does. Told
at the end, a line an attack: its name and how many rounds it had. Exit status 1, and what was wrong on standard error,
if a reply came to somebody it was not for.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

PATIENCE = 30
STOPPED_CLIENT = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as sock:
    sock.sendall(b"SETRANGE attack:large 10000000 x\\r\\nGET attack:large\\r\\n")
    sock.recv(1000)
    print("reading", flush=True)
    sys.stdin.read()
    while sock.recv(1 << 16):
        pass
"""


@dataclass
class Field:
    """Where an attack takes place: the ports, chance, and until when."""

    port: int
    tls_port: int
    source: random.Random
    over: threading.Event

    def connect(self, *, tls: bool = False) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.tls_port if tls else self.port), PATIENCE)


Attack = Callable[[Field], object]
ATTACKS: dict[str, tuple[Attack, float]] = {}
"""By name: a round of it, and the pause after it in seconds."""


class WrongReplyError(Exception):
    """A client was answered with what another had asked for."""


def attack(pause: float) -> Callable[[Attack], Attack]:
    def register(run: Attack) -> Attack:
        ATTACKS[run.__name__] = run, pause
        return run

    return register


@contextlib.contextmanager
def many(field: Field, count: int, *, tls: bool = False) -> Iterator[list[socket.socket]]:
    """So many connections; refused ones are left out."""
    socks: list[socket.socket] = []
    try:
        for _ in range(count):
            with contextlib.suppress(OSError):
                socks.append(field.connect(tls=tls))
        yield socks
    finally:
        for sock in socks:
            sock.close()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def send(sock: socket.socket, data: bytes) -> None:
    """Send what the server takes; one that closes in the meantime is right to."""
    with contextlib.suppress(OSError):
        sock.sendall(data)


@attack(pause=0.2)
def slowloris(field: Field) -> None:
    """Half a command on each of a hundred connections, and the rest a byte at a time, or never."""
    command = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\n" + b"v" * 100
    with many(field, 100) as socks:
        for _ in range(20):
            for sock in socks:
                send(sock, command[: field.source.randrange(3)])
            if field.over.wait(0.1):
                return


@attack(pause=0.5)
def announcements(field: Field) -> None:
    """Huge counts and lengths, of which nothing comes, or much and not enough."""
    with many(field, 50) as socks:
        for sock in socks:
            send(sock, field.source.choice([b"*1000000\r\n", b"*2\r\n$4\r\nECHO\r\n$536870912\r\n", b"*1048577\r\n"]))
        for sock in socks[:8]:
            send(sock, b"*2\r\n$4\r\nECHO\r\n$536870912\r\n" + b"x" * 10_000_000)
        field.over.wait(2)


@attack(pause=0.2)
def nobody_reads(field: Field) -> None:
    """Much is asked for, nothing is taken."""
    with many(field, 10) as socks:
        for sock in socks:
            sock.settimeout(0.5)
            send(sock, b"SETRANGE attack:mb 1000000 x\r\n" + b"GET attack:mb\r\n" * 200)
        field.over.wait(3)


@attack(pause=0.1)
def reconnect_storm(field: Field) -> None:
    """Each connection has a token of its own, and must be answered with that and no other."""
    for _ in range(50):
        token = f"{field.source.getrandbits(128):032x}".encode()
        with contextlib.suppress(ConnectionError), field.connect() as sock:
            sock.sendall(b"ECHO %b\r\nSET attack:%b %b EX 2\r\nGET attack:%b\r\n" % ((token,) * 4))
            if field.source.random() < 0.3:
                reset(sock)
                continue
            sock.shutdown(socket.SHUT_WR)
            check(token, sock)


def check(token: bytes, sock: socket.socket) -> None:
    answer = b""
    while chunk := sock.recv(1 << 16):
        answer += chunk
    bulk = b"$32\r\n%b\r\n" % token
    evicted = b"$-1\r\n"
    if answer not in (bulk + b"+OK\r\n" + bulk, bulk + b"+OK\r\n" + evicted) and not answer.startswith(b"-ERR max"):
        raise WrongReplyError(f"{token!r} was answered {answer[:200]!r}")


@attack(pause=0.1)
def resets(field: Field) -> None:
    """A reset in every state a connection can be in."""
    for state in (
        b"", b"GET", b"*2\r\n$3\r\nGET\r\n$", b"MULTI\r\nSET k v\r\n", b"WATCH k\r\nMULTI\r\n", b"SUBSCRIBE attack\r\n",
        b"MONITOR\r\n", b"HELLO 3\r\nCLIENT TRACKING ON BCAST\r\n", b"CLIENT REPLY OFF\r\n", b"QUIT\r\n",
        b"SETRANGE attack:mb 1000000 x\r\n" + b"GET attack:mb\r\n" * 10, b"WAIT 1 100\r\n",
    ):  # fmt: skip
        with contextlib.suppress(OSError):
            sock = field.connect()
            send(sock, state)
            if field.source.random() < 0.5:
                sock.settimeout(0.01)
                with contextlib.suppress(OSError):
                    sock.recv(100)
            reset(sock)


@attack(pause=0.2)
def flood(field: Field) -> None:
    """More connections than the server takes, all gone in the same moment."""
    with many(field, 400) as socks:
        for sock in socks:
            send(sock, b"PING\r\n")


@attack(pause=1)
def half_open(field: Field) -> None:
    """The client has said all it has to say, and stays."""
    with many(field, 20) as socks:
        for sock in socks:
            send(sock, b"PING\r\n")
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
        field.over.wait(1)


@attack(pause=0.1)
def stopped_client(field: Field) -> None:
    """SIGSTOP in the middle of a reply of 10 MB."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED_CLIENT, str(field.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process:
        if process.stdout.readline():
            process.send_signal(signal.SIGSTOP)
            field.over.wait(field.source.choice([1, 6]))
        process.kill()


@attack(pause=0.2)
def garbage(field: Field) -> None:
    """Bytes that mean nothing, or nearly something."""
    for _ in range(20):
        with contextlib.suppress(OSError), field.connect() as sock:
            valid = b"*3\r\n$3\r\nSET\r\n$8\r\nattack:g\r\n$4\r\nabcd\r\n*2\r\n$3\r\nGET\r\n$8\r\nattack:g\r\n"
            data = bytearray(valid * 3)
            for _ in range(field.source.randrange(6)):
                data[field.source.randrange(len(data))] = field.source.randrange(256)
            send(sock, bytes(data) if field.source.random() < 0.7 else field.source.randbytes(500))
            sock.settimeout(0.05)
            sock.recv(1000)


@attack(pause=0.5)
def deaf_subscribers(field: Field) -> None:
    """They subscribe, never read, and somebody publishes."""
    with many(field, 10) as socks, field.connect() as publisher:
        for sock in socks:
            send(sock, b"SUBSCRIBE attack:news\r\n")
        publisher.settimeout(2)
        send(publisher, (b"PUBLISH attack:news " + b"n" * 10_000 + b"\r\n") * 500)
        field.over.wait(1)


@attack(pause=0.5)
def unfinished_handshakes(field: Field) -> None:
    """No TLS where it is spoken, and some of it where it is not."""
    if field.tls_port:
        with many(field, 20, tls=True) as socks:
            for sock in socks:
                send(sock, field.source.choice([b"", b"PING\r\n", b"\x16\x03\x01", field.source.randbytes(100)]))
            field.over.wait(1)
    with contextlib.suppress(OSError), field.connect() as plain:
        send(plain, b"\x16\x03\x01\x02\x00\x01")
        plain.recv(1000)


@attack(pause=0.5)
def costly_commands(field: Field) -> None:
    """Patterns over all keys, huge ranges, many words, transactions that are left alone."""
    with contextlib.suppress(OSError), field.connect() as sock:
        sock.settimeout(2)
        stars = b"*a" * 30
        send(sock, b"KEYS %b\r\nSCAN 0 MATCH %b COUNT 100000\r\nMULTI\r\n" % (stars, stars) + b"GET k\r\n" * 1000)
        sock.recv(1 << 20)


def repeat(field: Field, name: str, rounds: dict[str, int], wrong: list[str]) -> None:
    run, pause = ATTACKS[name]
    while not field.over.is_set():
        try:
            run(field)
        except WrongReplyError as error:
            wrong.append(f"{name}: {error}")
            field.over.set()
        except OSError:
            pass  # refused, or ended by the server: what it is for
        rounds[name] = rounds.get(name, 0) + 1
        field.over.wait(pause)


def main() -> int:
    port, tls_port, seconds, seed = map(int, sys.argv[1:5])
    over = threading.Event()
    rounds: dict[str, int] = {}
    wrong: list[str] = []
    threads = [
        threading.Thread(
            target=repeat, args=(Field(port, tls_port, random.Random(f"{seed}{name}"), over), name, rounds, wrong)
        )
        for name in ATTACKS
    ]

    def end_with_parent() -> None:
        sys.stdin.read()
        over.set()

    end = threading.Thread(target=end_with_parent)
    for thread in (*threads, end):
        thread.start()
    over.wait(seconds)
    over.set()
    until = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    for name, count in sorted(rounds.items()):
        print(name, count)
    for line in wrong:
        print(line, file=sys.stderr)
    sys.stdout.flush()
    os._exit(1 if wrong else 0)  # whoever still waits for an answer is not waited for


if __name__ == "__main__":
    main()
