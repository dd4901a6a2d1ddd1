"""Faults on demand: each does what it says, to whom it says, as often as it says; and costs nobody else anything."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import open_descriptors

import kvclient
import kvserver
from kvclient.errors import ConnectionLostError, ServerError
from kvserver import connection, dispatch
from kvserver.testing import Faults, Instruments, UnmetFaultError


@pytest.fixture
def server() -> Iterator[kvserver.Server]:
    before = set(threading.enumerate())
    with kvserver.Server(port=0, instruments=Instruments()) as started:
        yield started
    assert set(threading.enumerate()) <= before


@pytest.fixture
def faults(server: kvserver.Server) -> Faults:
    assert server.instruments is not None
    return server.instruments.faults


@pytest.fixture
def kv(server: kvserver.Server) -> Iterator[kvclient.Client]:
    with kvclient.connect(server.url) as client:
        yield client


def ask(server: kvserver.Server, request: bytes) -> bytes:
    """All that comes back until the server closes, or has answered a QUIT."""
    with socket.create_connection(("127.0.0.1", server.port), 60) as sock:
        sock.sendall(request)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(4096):
                received += data
        return received


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        ("OOM", b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"),
        ("READONLY", b"-READONLY You can't write against a read only replica.\r\n"),
        ("LOADING", b"-LOADING Redis is loading the dataset in memory\r\n"),
        ("ERR boom", b"-ERR boom\r\n"),
    ],
)
def test_refused(server: kvserver.Server, faults: Faults, error: str, reply: bytes) -> None:
    rule = faults.refuse("set", error)
    assert ask(server, b"SET k 1\r\nGET k\r\nSET k 2\r\nQUIT\r\n") == reply + b"$-1\r\n+OK\r\n+OK\r\n"
    assert rule.happened == 1
    faults.check()


def test_by_key_by_count_and_after(server: kvserver.Server, faults: Faults) -> None:
    rule = faults.refuse("GET", "ERR x", key="user:*", times=2, after=1)
    asked = b"GET user:1\r\nGET other\r\nGET user:2\r\nGET user:3\r\nGET user:4\r\nMGET user:1\r\nQUIT\r\n"
    assert ask(server, asked) == b"$-1\r\n$-1\r\n-ERR x\r\n-ERR x\r\n$-1\r\n*1\r\n$-1\r\n+OK\r\n"
    assert (rule.seen, rule.met, rule.happened) == (5, 4, 2)


def test_all_that_work_on_data_and_always(server: kvserver.Server, faults: Faults) -> None:
    faults.refuse("*", "ERR x", times=None)
    assert ask(server, b"SET k 1\r\nPING\r\nMGET a b\r\nCLIENT ID\r\nGET\r\nQUIT\r\n").split(b"\r\n")[:3] == [
        b"-ERR x", b"+PONG", b"-ERR x",
    ]  # fmt: skip
    faults.clear()
    assert ask(server, b"SET k 1\r\nQUIT\r\n") == b"+OK\r\n+OK\r\n"


def test_a_subcommand(server: kvserver.Server, faults: Faults) -> None:
    faults.refuse("OBJECT ENCODING", "ERR x", key=b"k")
    server.direct("SET", "k", "v")
    assert ask(server, b"OBJECT REFCOUNT k\r\nOBJECT encoding k\r\nQUIT\r\n") == b":1\r\n-ERR x\r\n+OK\r\n"


def test_a_refused_exec_ends_the_transaction(server: kvserver.Server, faults: Faults, kv: kvclient.Client) -> None:
    faults.refuse("EXEC")
    with socket.create_connection(("127.0.0.1", server.port), 30) as sock, sock.makefile("rb") as replies:
        for line in (b"MULTI", b"SET a 1", b"EXEC", b"GET a", b"PING"):
            sock.sendall(line + b"\r\n")
        assert [replies.readline()[:10] for _ in range(5)] == [
            b"+OK\r\n", b"+QUEUED\r\n", b"-EXECABORT", b"$-1\r\n", b"+PONG\r\n"
        ]  # fmt: skip


def test_in_a_transaction(server: kvserver.Server, faults: Faults) -> None:
    """Refused when it is queued, so EXEC does nothing."""
    faults.refuse("SET", "OOM", after=1)
    replies = ask(server, b"MULTI\r\nSET a 1\r\nSET b 2\r\nEXEC\r\nMGET a b\r\nQUIT\r\n").split(b"\r\n")
    assert replies[:4] == [
        b"+OK", b"+QUEUED", b"-OOM command not allowed when used memory > 'maxmemory'.",
        b"-EXECABORT Transaction discarded because of previous errors.",
    ]  # fmt: skip
    assert replies[4:7] == [b"*2", b"$-1", b"$-1"]


@pytest.mark.parametrize("applied", [False, True])
def test_dropped(server: kvserver.Server, faults: Faults, applied: bool) -> None:
    faults.drop("INCR", applied=applied)
    assert ask(server, b"INCR n\r\n") == b""
    assert server.direct("GET", "n") == (b"1" if applied else None)
    with kvclient.connect(server.url) as kv:
        faults.drop("INCR", applied=applied)
        with pytest.raises(ConnectionLostError) as caught:
            kv.incr("n")
        assert caught.value.applied == "unknown"
        faults.drop("GET", applied=applied)
        assert kv.get("n") == (b"2" if applied else None), "a read is asked again"


@pytest.mark.parametrize("size", [0, 1, 5, 8, 100])
def test_cut(server: kvserver.Server, faults: Faults, size: int) -> None:
    server.direct("SET", "k", "hello")
    faults.cut("GET", size)
    assert ask(server, b"PING\r\nGET k\r\nPING\r\n") == b"+PONG\r\n" + b"$5\r\nhello\r\n"[:size]


def test_a_delay_holds_nobody_else_up(server: kvserver.Server, faults: Faults, kv: kvclient.Client) -> None:
    rule = faults.delay("GET", 3600, key="slow")
    with socket.create_connection(("127.0.0.1", server.port), 60) as slow:
        slow.sendall(b"GET slow\r\n")
        assert rule.wait(60)
        assert kv.get("quick") is None
    faults.delay("SET", 0.05)
    begun = time.monotonic()
    kv.set("k", "v")
    assert time.monotonic() - begun >= 0.05


def test_a_delay_ends_with_the_server(faults: Faults, server: kvserver.Server) -> None:
    rule = faults.delay("GET", 3600)
    with socket.create_connection(("127.0.0.1", server.port), 60) as slow:
        slow.sendall(b"GET k\r\n")
        assert rule.wait(60)
        assert server.stop()


def test_a_delay_ends_when_rules_are_cleared(faults: Faults, server: kvserver.Server) -> None:
    address = ("127.0.0.1", server.port)
    rules = [faults.delay("GET", 3600), faults.delay("STRLEN", 3600)]
    with socket.create_connection(address, 60) as first, socket.create_connection(address, 60) as second:
        first.sendall(b"GET k\r\n")
        second.sendall(b"STRLEN k\r\n")
        assert all(rule.wait(60) for rule in rules)
        faults.clear()
        assert first.recv(10) == b"$-1\r\n"
        assert second.recv(10) == b":0\r\n"
        descriptors = open_descriptors()
        for _ in range(10):  # no pipe is left open
            first.sendall(b"GET k\r\n")
            faults.delay("GET", 0.0)
            assert first.recv(10) == b"$-1\r\n"
        assert open_descriptors() == descriptors
    assert not faults._delayed


def test_two_at_once(server: kvserver.Server, faults: Faults) -> None:
    faults.delay("SET", 0.01)
    faults.refuse("SET", "ERR first")
    faults.refuse("SET", "ERR second", after=1)
    asked = b"SET k 1\r\nSET k 2\r\nSET k 3\r\nQUIT\r\n"
    assert ask(server, asked) == b"-ERR first\r\n-ERR second\r\n+OK\r\n+OK\r\n"


def test_chance_is_the_same_each_time(server: kvserver.Server) -> None:
    def drawn(seed: int) -> list[bool]:
        with kvserver.Server(port=0, instruments=Instruments(seed)) as chanced:
            assert chanced.instruments is not None
            chanced.instruments.faults.refuse("GET", "ERR x", times=None, chance=0.3)
            return [line == b"-ERR x" for line in ask(chanced, b"GET k\r\n" * 200 + b"QUIT\r\n").split(b"\r\n")[:200]]

    first = drawn(1)
    assert 30 < sum(first) < 90
    assert first == drawn(1) != drawn(2)


def test_a_rule_that_nothing_has_met_is_told(server: kvserver.Server, faults: Faults) -> None:
    faults.refuse("SET", key="user:*")
    faults.drop("GET", applied=True)
    faults.delay("INCR", 0.0, after=3)
    faults.refuse("DEL", chance=1e-9)
    ask(server, b"SET other 1\r\nINCR n\r\nINCR n\r\nDEL n\r\nQUIT\r\n")
    with pytest.raises(UnmetFaultError) as caught:
        faults.check()
    assert str(caught.value) == (
        "nothing has met refuse SET key=user:* (it came 1 times, with other keys); drop GET (it never came); "
        "delay INCR after=3 (it came 2 times)"
    )
    faults.clear()
    faults.check()


def test_rules_that_make_no_sense(faults: Faults) -> None:
    for call, said in (
        (lambda: faults.refuse("NONSENSE"), "there is no command NONSENSE"),
        (lambda: faults.refuse("CLIENT NONSENSE"), "there is no command CLIENT NONSENSE"),
        (lambda: faults.refuse("GET k"), "there is no command GET k"),
        (lambda: faults.refuse(" "), "there is no command  "),
        (lambda: faults.refuse("client"), "client is called with a subcommand: name that, too, as in CLIENT HELP"),
        (lambda: faults.refuse("SET", "NONSENSE"), "'NONSENSE' is neither one of OOM, LOADING"),
        (lambda: faults.refuse("SET", times=0), "times is from 1 on"),
        (lambda: faults.refuse("SET", chance=0.0), "chance above 0"),
        (lambda: faults.delay("SET", -1), "nothing is negative"),
        (lambda: faults.cut("SET", -1), "nothing is negative"),
        (lambda: faults.fill_disk(), "keeps nothing on disk"),
        (lambda: faults.slow_sync(1), "keeps nothing on disk"),
    ):
        with pytest.raises(ValueError) as caught:
            call()  # type: ignore[no-untyped-call]
        assert said in str(caught.value)
    assert not faults.rules


def test_a_full_disk(tmp_path: Path) -> None:
    """Writes are refused, reads are not, and all is well again when there is space; the file is whole."""
    settings = {"port": 0, "data_dir": str(tmp_path), "fsync": "everysec"}
    with (
        kvserver.Server(**settings, instruments=Instruments()) as server,  # type: ignore[arg-type]
        kvclient.connect(server.url) as kv,
    ):
        assert server.instruments is not None
        faults = server.instruments.faults
        kv.set("before", "v")
        rule = faults.fill_disk(room=10)
        with pytest.raises(kvclient.KVError):
            kv.set("k", "lost or not, but not acknowledged")
        with pytest.raises(ServerError, match="MISCONF Errors writing to the AOF file: write: No space left"):
            kv.set("other", "v")
        assert kv.get("before") == b"v"
        assert rule.happened >= 2
        faults.check()
        faults.clear()
        deadline = time.monotonic() + 60
        while kv.info("persistence")["aof_last_write_status"] != "ok":
            assert time.monotonic() < deadline
        kv.set("after", "v")
    with kvserver.Server(**settings) as server:  # type: ignore[arg-type]
        assert server.direct("MGET", "before", "after", "other") == [b"v", b"v", None]


def test_a_slow_disk(tmp_path: Path) -> None:
    with (
        kvserver.Server(port=0, data_dir=str(tmp_path), instruments=Instruments()) as server,
        kvclient.connect(server.url) as kv,
    ):
        assert server.instruments is not None
        faults = server.instruments.faults
        kv.set("before", "v")
        faults.slow_sync(0.05)
        begun = time.monotonic()
        kv.set("k", "v")
        assert time.monotonic() - begun >= 0.05
        faults.check()
        faults.clear()
        rule = faults.slow_sync(3600)
        waiting = threading.Thread(target=kv.set, args=("j", "v"))
        waiting.start()
        assert rule.wait(60)
        faults.clear()
        waiting.join(60)
        assert not waiting.is_alive()


def test_without_instruments_nothing_is_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    begin = connection.Connection.__init__

    def note(self: connection.Connection, *args: object) -> None:
        begin(self, *args)  # type: ignore[arg-type]
        runs.append(self._run_command)

    monkeypatch.setattr(connection.Connection, "__init__", note)
    with kvserver.Server(port=0) as server, kvclient.connect(server.url) as kv:
        kv.ping()
    assert set(runs) == {dispatch.execute}
