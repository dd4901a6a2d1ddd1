"""Client.once: a command whose reply was lost is asked again and applied once, through a proxy that cuts them off."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Iterator

import pytest

import kvclient
import kvclient.aio
from kvclient.errors import CommandRefusedError, KVError, UnknownCommandError
from kvclient.once import refusal_of


class Cutting:
    """A proxy that cuts connections at moments a seed decides: before a command, after it, or within its reply."""

    def __init__(self, port: int, seed: int, share: float) -> None:
        self._port = port
        self._random = random.Random(seed)
        self._share = share
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: list[socket.socket] = []
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                thread = threading.Thread(target=self._serve, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        """One request and its reply at a time."""
        with client, socket.create_connection(("127.0.0.1", self._port)) as server, contextlib.suppress(OSError):
            while data := client.recv(65536):
                fate = "whole"
                if b"INCR" in data and self._random.random() < self._share:
                    fate = self._random.choice(["before", "after", "within"])
                    self.cuts += 1
                if fate == "before":
                    return
                server.sendall(data)
                reply = server.recv(65536)
                if fate == "after":
                    return
                client.sendall(reply[:2] if fate == "within" else reply)
                if fate == "within":
                    return

    def stop(self) -> None:
        for sock in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def cutting(own_url: str) -> Iterator[Cutting]:
    proxy = Cutting(int(own_url.rpartition(":")[2]), seed=7, share=0.4)
    yield proxy
    proxy.stop()


def test_every_count_is_one(cutting: Cutting, own_kv: kvclient.Client) -> None:
    with kvclient.connect(cutting.url, timeout=20) as kv:
        app = kv.ns("app:")
        counts = [app.once.incr("n") for _ in range(200)]
    assert counts == list(range(1, 201))
    assert own_kv.get("app:n") == b"200"
    assert cutting.cuts > 50


def test_without_it_the_caller_is_told(cutting: Cutting, own_kv: kvclient.Client) -> None:
    """The proxy does what the test above says: some are lost, and some of those were applied."""
    unknown = applied = 0
    with kvclient.connect(cutting.url) as kv:
        for _ in range(100):
            try:
                kv.incr("n")
                applied += 1
            except KVError as error:
                unknown += error.applied == "unknown"
    assert applied < int(own_kv.get("n") or 0) < applied + unknown


def test_by_tasks(cutting: Cutting, own_kv: kvclient.Client) -> None:
    async def main() -> list[int]:
        async with kvclient.aio.connect(cutting.url, timeout=20) as kv:
            return [await kv.once.incr("n") for _ in range(100)]

    assert asyncio.run(main()) == list(range(1, 101))
    assert cutting.cuts > 20


def test_reads_have_no_token(own_kv: kvclient.Client) -> None:
    own_kv.set("k", "v")
    assert own_kv.once.get("k") == b"v"
    assert own_kv.once.mget("k", "other") == [b"v", None]
    assert own_kv.keys() == [b"k"]


def test_servers_without_it_say_so(valkey_port: int) -> None:
    url = f"redis://127.0.0.1:{valkey_port}"
    with kvclient.connect(url) as kv:
        kv.flushall()
        with pytest.raises(CommandRefusedError, match=r"no KV\.ONCE, which only kvserver has: nothing was done"):
            kv.once.incr("n")
        assert not kv.exists("n")

    async def main() -> None:
        async with kvclient.aio.connect(url) as akv:
            with pytest.raises(CommandRefusedError, match=r"no KV\.ONCE"):
                await akv.once.incr("n")

    asyncio.run(main())
    other = UnknownCommandError("ERR", "unknown command 'NONSENSE'")
    assert refusal_of(other) is other
