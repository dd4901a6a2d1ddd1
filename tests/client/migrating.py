"""What the tests of `kv migrate` share: programs that write, the tool in a process of its own, a proxy that counts."""

from __future__ import annotations

import contextlib
import random
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Self

import kvclient
from kvclient.errors import KVError

Content = dict[bytes, tuple[bytes, int]]


class Writers:
    """Threads that change the source by chance, as programs do, until they are stopped."""

    def __init__(self, url: str, seed: int, *, keys: int = 300, threads: int = 3) -> None:
        self._url, self._keys = url, keys
        self._ended = threading.Event()
        self._written = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._write, args=(seed * 10 + each,)) for each in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def write_more(self, count: int) -> None:
        """Wait until they have changed so much more."""
        while self._written.acquire(blocking=False):
            pass
        for _ in range(count):
            self._written.acquire()

    def _write(self, seed: int) -> None:
        chance = random.Random(seed)
        with kvclient.connect(self._url, timeout=30) as kv:
            while not self._ended.is_set():
                with contextlib.suppress(KVError):
                    change(kv, chance, self._keys)
                self._written.release()
                self._ended.wait(0.0005)  # so that others have the processor too


def change(kv: kvclient.Client, chance: random.Random, keys: int) -> None:
    """One change of one of so many keys."""
    key, other = (b"key:\xff%d" % chance.randrange(keys) for _ in range(2))
    number = b"number:%d" % chance.randrange(keys)
    match chance.randrange(10):
        case 0 | 1 | 2:
            kv.incr(number)
        case 3:
            kv.set(key, chance.randbytes(chance.choice((0, 5, 2000))))
        case 4:
            kv.set(key, b"lives", ttl=chance.choice((0.05, 0.5, 100.0, 1000.0)))
        case 5:
            kv.delete(key, number)
        case 6:
            kv.append(key, b"more")
        case 7:
            kv.rename(key, other)
        case 8:
            kv.pexpire(key, chance.choice((50, 100_000)))
        case _:
            kv.persist(key)


def fill(kv: kvclient.Client, count: int, start: int = 0) -> None:
    """Keys that nobody changes."""
    for page in range(start, start + count, 1000):
        with kv.pipeline() as pipeline:
            for number in range(page, min(page + 1000, start + count)):
                pipeline.set(f"still:{number}", f"value {number}")


def content(kv: kvclient.Client) -> Content:
    """All keys, with their values and deadlines (-1: none)."""
    keys = sorted(set(kv))
    with kv.pipeline() as pipeline:
        found = [(key, pipeline.get(key), pipeline.pexpiretime(key)) for key in keys]
    return {key: (now, end.result()) for key, value, end in found if (now := value.result()) is not None}


def assert_equal(source: kvclient.Client, target: kvclient.Client) -> None:
    """Both hold the same, values and deadlines; but for what ends while that is looked at."""
    one, other = content(source), content(target)
    now = max(kv.time()[0] * 1000 + 1000 for kv in (source, target))
    one, other = (
        {key: found for key, found in each.items() if found[1] == -1 or found[1] > now} for each in (one, other)
    )
    assert one.keys() - other.keys() == set()
    assert other.keys() - one.keys() == set()
    assert [(key, one[key], other[key]) for key in one if one[key] != other[key]] == []


class Tool:
    """`kv migrate` in a process of its own."""

    def __init__(self, *argv: str) -> None:
        command = [sys.executable, "-m", "kvclient", "migrate", *argv]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def see(self, text: str) -> None:
        """Wait until it has said this."""
        assert self.process.stderr is not None
        while text not in self.said:
            line = self.process.stderr.readline()
            assert line, f"it ended without saying {text!r}, but: {self.said}"
            self.said += line

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Its exit status."""
        out, err = self.process.communicate(timeout=90)
        self.out = out
        self.said += err
        return self.process.returncode


class Proxy:
    """Passes bytes on to a server; after as many of them as one wants, it calls something first."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2].partition("/")[0])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ended, self._end = socket.socketpair()
        self._left: int | None = None
        self._then: Callable[[], object] = lambda: None
        self._marker: bytes | None = None
        self._held: tuple[socket.socket, bytes] | None = None
        self.holds = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end.send(b"x")
        self._thread.join()
        for sock in (self._listener, self._ended, self._end):
            sock.close()

    def after(self, count: int, then: Callable[[], object]) -> None:
        """Call this before the byte with that number, from now on, is passed on."""
        self._then, self._left = then, count

    def hold(self, marker: bytes) -> None:
        """Keep back what contains this, once, and whatever else comes over that connection."""
        self._marker = marker

    def release(self) -> None:
        """Pass on what was kept back, late, and wait until the server has taken it, or has not."""
        assert self._held is not None
        sock, data = self._held
        with sock, self._silent, contextlib.suppress(OSError):
            sock.settimeout(30)
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass

    def _run(self) -> None:
        ends: dict[socket.socket, socket.socket] = {}
        while True:
            ready, _, _ = select.select([self._listener, self._ended, *ends], [], [])
            if self._ended in ready:
                break
            for sock in ready:
                if sock is self._listener:
                    client, _ = sock.accept()
                    try:
                        server = socket.create_connection(("127.0.0.1", self._port))
                    except OSError:
                        client.close()
                        continue
                    ends |= {client: server, server: client}
                elif sock in ends:
                    self._pass_on(sock, ends)
        for sock in ends:
            sock.close()

    def _pass_on(self, sock: socket.socket, ends: dict[socket.socket, socket.socket]) -> None:
        other = ends[sock]
        with contextlib.suppress(OSError):
            if data := sock.recv(65536):
                if self._marker is not None and self._marker in data:
                    self._marker, self._held = None, (other, data)
                    ends.pop(sock)
                    ends.pop(other)
                    self._silent = sock
                    self.holds.set()
                    return
                if self._left is not None:
                    before, data = data[: self._left], data[self._left :]
                    self._left -= len(before)
                    other.sendall(before)
                    if data:
                        self._left = None
                        self._then()
                other.sendall(data)
                return
        for each in (sock, other):
            each.close()
            ends.pop(each, None)
