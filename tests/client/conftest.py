"""Servers to test the client against: ours, a real Valkey, and one that answers as its script says."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest
from client.not_on_a_cluster import ALSO_THROUGH_A_GATEWAY, FINE_THROUGH_A_GATEWAY, REASONS
from cluster.harness import Cluster

import kvclient
import kvserver

Script = Callable[["Peer"], None]
GREETING = b"+OK\r\n" * 3  # HELLO, and CLIENT SETINFO twice


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what cannot be on a cluster, by name and with the reason."""
    through_gateway = {
        name: why for name, why in REASONS.items() if name not in FINE_THROUGH_A_GATEWAY
    } | ALSO_THROUGH_A_GATEWAY
    for item in items:
        where = getattr(item, "callspec", _Plain).params.values()
        reasons = REASONS if "cluster" in where else through_gateway if "gateway" in where else {}
        if reason := reasons.get(getattr(item, "originalname", "")):
            item.add_marker(pytest.mark.skip(reason=f"not on a cluster: {reason}"))


class _Plain:
    """A test without parameters."""

    params: ClassVar[dict[str, object]] = {}


@pytest.fixture(scope="session")
def own_url() -> Iterator[str]:
    with kvserver.Server(port=0, debug_command="yes") as started:
        yield started.url


@pytest.fixture(scope="session")
def gateway_url(shared_cluster: Cluster) -> Iterator[str]:
    with kvserver.Server(port=0, debug_command="yes", backend=shared_cluster.url) as started:
        yield started.url


@pytest.fixture(params=["kvserver", "valkey", "cluster", "gateway"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a real server; each test that asks for it runs once with each."""
    return _url(request)


def _url(request: pytest.FixtureRequest) -> str:
    if request.param == "kvserver":
        return str(request.getfixturevalue("own_url"))
    if request.param == "gateway":
        return str(request.getfixturevalue("gateway_url"))
    if request.param == "cluster":
        return str(request.getfixturevalue("shared_cluster").url)
    return f"redis://127.0.0.1:{request.getfixturevalue(f'{request.param}_port')}"


@pytest.fixture(params=["kvserver", "valkey", "redis", "cluster", "gateway"])
def any_url(request: pytest.FixtureRequest) -> str:
    """As `url`, and an old Redis too."""
    return _url(request)


@pytest.fixture
def client(any_url: str) -> Iterator[kvclient.Client]:
    """A client of an empty server of any of the three, and one that has time."""
    with kvclient.connect(any_url, timeout=30) as client:
        client.flushall()
        yield client


@pytest.fixture(params=[3, 2], ids=["resp3", "resp2"])
def kv(url: str, request: pytest.FixtureRequest) -> Iterator[kvclient.Client]:
    """A client of an empty server."""
    with kvclient.connect(url, protocol=request.param) as client:
        client.flushall()
        yield client


@pytest.fixture(params=[3, 2], ids=["resp3", "resp2"])
def own_kv(own_url: str, request: pytest.FixtureRequest) -> Iterator[kvclient.Client]:
    """A client of an empty kvserver, for what no installable server has yet."""
    with kvclient.connect(own_url, protocol=request.param) as client:
        client.flushall()
        yield client


class Peer:
    """The server's end of one connection, for a script."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def greet(self) -> None:
        assert b"HELLO" in self.sock.recv(65536)
        self.sock.sendall(GREETING)

    def read(self) -> bytes:
        return self.sock.recv(65536)

    def answer(self, *replies: bytes) -> None:
        """Read a command and send a reply to it, for each reply."""
        for reply in replies:
            if not self.read():
                return
            self.sock.sendall(reply)


class FakeServer:
    """Runs one script per connection, in order; later connections get the last script again."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self.accepted = 0
        self._thread = threading.Thread(target=self._serve)
        self._peers: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts[min(self.accepted, len(self._scripts) - 1)]
            self.accepted += 1
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what sendall() returned from, is sent
            self._peers.append(sock)
            thread = threading.Thread(target=self._run, args=(script, sock))
            self._threads.append(thread)
            thread.start()

    def _run(self, script: Script, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            script(Peer(sock))

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()


@pytest.fixture
def fake() -> Iterator[Callable[..., FakeServer]]:
    """Makes fake servers, and stops them."""
    servers: list[FakeServer] = []

    def make(*scripts: Script) -> FakeServer:
        servers.append(FakeServer(*scripts))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()
