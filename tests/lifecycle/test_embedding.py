"""A server inside a program: several at once, started and stopped at any time, leaving nothing behind."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import open_descriptors

import kvclient
import kvserver
from kvserver.connection import Connection


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    threads, descriptors = set(threading.enumerate()), open_descriptors()
    yield
    assert set(threading.enumerate()) <= threads
    assert open_descriptors() <= descriptors


def ask(port: int, command: bytes, host: str = "127.0.0.1") -> bytes:
    with socket.create_connection((host, port)) as sock:
        sock.sendall(command)
        return sock.recv(4096)


def test_what_a_program_reads() -> None:
    with kvserver.Server(port=0) as server:
        assert server.port > 0
        assert server.url == f"redis://127.0.0.1:{server.port}"
        assert server.addresses[0] == f"127.0.0.1:{server.port}"
        with kvclient.connect(server.url) as kv:
            kv["a"] = b"1"
            assert kv["a"] == b"1"


def test_several_servers_have_data_of_their_own() -> None:
    with kvserver.Server(port=0) as first, kvserver.Server(port=0) as second:
        assert ask(first.port, b"SET a 1\r\n") == b"+OK\r\n"
        assert ask(second.port, b"GET a\r\n") == b"$-1\r\n"
        first.stop()
        assert ask(second.port, b"PING\r\n") == b"+PONG\r\n"


def test_fifty_times() -> None:
    starts, stops = [], []
    for _ in range(50):
        begun = time.perf_counter()
        server = kvserver.Server(port=0).start()
        starts.append(time.perf_counter() - begun)
        with socket.create_connection(("127.0.0.1", server.port)) as idle:
            idle.sendall(b"PING\r\n")
            assert idle.recv(100) == b"+PONG\r\n"
            begun = time.perf_counter()
            assert server.stop()
            stops.append(time.perf_counter() - begun)
            assert idle.recv(100) == b""
    # Generous, for a busy machine; it catches a wait that somebody put in.
    assert statistics.median(starts) < 0.5
    assert statistics.median(stops) < 0.5


def test_stop_is_for_any_time() -> None:
    server = kvserver.Server(port=0)
    assert server.stop()  # not started
    server.start()
    assert server.stop()
    assert server.stop()  # again


def test_starting_twice_is_told() -> None:
    with kvserver.Server(port=0) as server, pytest.raises(RuntimeError, match="started"):
        server.start()


def test_a_start_that_fails_leaves_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = kvserver.Server(port=taken.getsockname()[1])
        with pytest.raises(kvserver.ConfigError, match="in use"):
            server.start()
        assert server.stop()


def test_unknown_settings_are_told() -> None:
    with pytest.raises(kvserver.ConfigError, match="prot"):
        kvserver.Server(prot=1)
    with pytest.raises(kvserver.ConfigError, match="port"):
        kvserver.Server(port=70000)


def test_none_is_no_name_of_a_directory() -> None:
    with kvserver.Server(port=0, data_dir=None, unix_socket=None) as server:
        assert server._state.config.data_dir == ""
        assert server._state.config.unix_socket == ""


def test_both_loopback_addresses() -> None:
    with kvserver.Server(port=0) as server:
        assert ask(server.port, b"PING\r\n") == b"+PONG\r\n"
        if len(server.addresses) > 1:
            assert ask(server.port, b"PING\r\n", "::1") == b"+PONG\r\n"


def test_ipv6_alone() -> None:
    with kvserver.Server(host="::1", port=0) as server, kvclient.connect(server.url) as kv:
        assert server.url == f"redis://[::1]:{server.port}"
        assert kv.ping() == b"PONG"


def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "kv.sock"
    with kvserver.Server(port=0, unix_socket=str(path)) as server:
        assert str(path) in server.addresses
        with kvclient.connect(f"unix://{path}") as kv:
            assert kv.client_info()["addr"] == f"{path}:0"
        with pytest.raises(kvserver.ConfigError, match="another server listens"):
            kvserver.Server(port=0, unix_socket=str(path)).start()
    assert not path.exists()


def test_unix_socket_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "kv.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with kvserver.Server(port=0, unix_socket=str(path)), kvclient.connect(f"unix://{path}") as kv:
        assert kv.ping() == b"PONG"


def test_a_file_that_is_no_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(kvserver.ConfigError, match="precious"):
        kvserver.Server(port=0, unix_socket=str(path)).start()
    assert path.read_text() == "data"


def test_stopping_while_clients_arrive() -> None:
    """Each client gets a whole answer or the end of its connection; the server stops all the same."""
    for _ in range(5):
        server = kvserver.Server(port=0).start()
        under_way = threading.Barrier(5)

        def hammer(port: int = server.port, under_way: threading.Barrier = under_way) -> None:
            assert ask(port, b"PING\r\n") == b"+PONG\r\n"
            under_way.wait(10)
            try:
                while True:
                    assert ask(port, b"PING\r\n") in (b"+PONG\r\n", b"")
            except OSError:
                pass

        with ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(hammer) for _ in range(4)]
            under_way.wait(10)
            assert server.stop()
            for client in clients:
                client.result(10)


def test_a_client_that_never_reads_does_not_hold_the_end_up() -> None:
    server = kvserver.Server(port=0).start()
    with socket.create_connection(("127.0.0.1", server.port)) as deaf:
        deaf.sendall(b"SET a " + b"x" * 60_000 + b"\r\n")
        assert deaf.recv(5) == b"+OK\r\n"
        deaf.setblocking(False)
        try:
            while True:  # until neither side takes any more: the server's thread then sits in send
                deaf.send(b"GET a\r\n" * 1000)
        except BlockingIOError:
            pass
        assert server.stop()


def test_no_thread_for_accepting_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "kvserver-accept":
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    server = kvserver.Server(port=0)
    with pytest.raises(RuntimeError):
        server.start()
    assert server.stop()


def test_a_free_port_is_free_on_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system picks a port for 127.0.0.1 that another program has on ::1: take another."""
    chosen: list[int] = []
    bind = socket.socket.bind

    def bind_beside_a_rival(sock: socket.socket, address: tuple[str, int]) -> None:
        bind(sock, address)
        if sock.family == socket.AF_INET and not chosen:
            chosen.append(sock.getsockname()[1])
            rival.bind(("::1", chosen[0]))
            rival.listen()

    with socket.socket(socket.AF_INET6) as rival:
        monkeypatch.setattr("kvserver.server.socket.socket.bind", bind_beside_a_rival, raising=False)
        with kvserver.Server(port=0) as server:
            assert server.port != chosen[0]
            assert len(server.addresses) == 2


def test_stop_tells_again_that_a_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvserver.server._FINISH_SECONDS", 0.01)
    monkeypatch.setattr("kvserver.server._ABORT_SECONDS", 0.01)
    busy, release = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        busy.set()
        release.wait()
        connection._sock.close()

    server = kvserver.Server(port=0).start()
    monkeypatch.setattr("kvserver.connection.Connection.run", slow)
    with socket.create_connection(("127.0.0.1", server.port)):
        busy.wait(10)
        assert not server.stop()
        assert not server.stop()
        release.set()
    monkeypatch.setattr("kvserver.server._FINISH_SECONDS", 10)
    assert server.stop()


def test_a_connection_that_comes_while_it_stops() -> None:
    """It may end the accept thread before that is told to end."""
    server = kvserver.Server(port=0).start()
    accepting, stop_pauses = server._accepting, server._state.pause.stop

    def connect_meanwhile() -> None:
        stop_pauses()
        with socket.create_connection(("127.0.0.1", server.port)):
            assert accepting is not None
            accepting.join(10)

    server._state.pause.stop = connect_meanwhile  # type: ignore[method-assign]
    assert server.stop()
