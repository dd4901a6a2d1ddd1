"""A disk that is slow, full or broken: what is acknowledged is on disk, and what is not is never acknowledged."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from conformance.oracle import Wire, request
from journal.conftest import contents
from journal.test_recovery import increment
from support import join_all_but

import kvserver
from kvserver.connection import Connection
from kvserver.journal import writer
from kvserver.journal.format import Truncated, read_batches

PATIENCE = 20


class Disk:
    """Stands between the journal and the system; a test changes what writing and syncing do."""

    def __init__(self) -> None:
        self.write: Callable[[int, Any], int] = os.write
        self.fdatasync: Callable[[int], None] = os.fdatasync

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    stand_in = Disk()
    monkeypatch.setattr(writer, "os", stand_in)
    monkeypatch.setattr(writer, "SYNC_SECONDS", 0.05)
    return stand_in


def fails(code: int) -> Callable[..., Any]:
    def call(*_: object) -> Any:
        raise OSError(code, os.strerror(code))

    return call


def is_silent(sock: socket.socket) -> bool:
    return not select.select([sock], [], [], 0.05)[0]


def connect(server: kvserver.Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), PATIENCE)


# always


def test_no_reply_leaves_before_the_disk_has_it(data: Path, disk: Disk) -> None:
    """Neither of the write, nor of a read that saw it."""
    reached, go_on = threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        reached.set()
        assert go_on.wait(PATIENCE)
        os.fdatasync(descriptor)

    with (
        kvserver.Server(port=0, data_dir=str(data)) as server,
        connect(server) as writing,
        connect(server) as reading,
    ):
        disk.fdatasync = slow
        writing.sendall(request([b"SET", b"k", b"v"]))
        assert reached.wait(PATIENCE)
        reading.sendall(request([b"GET", b"k"]))
        assert is_silent(writing)
        assert is_silent(reading)
        go_on.set()
        assert writing.recv(100) == b"+OK\r\n"
        assert reading.recv(100) == b"$1\r\nv\r\n"


def test_all_that_waits_is_synced_at_once(data: Path, disk: Disk) -> None:
    reached, go_on, syncs = threading.Event(), threading.Event(), [0]

    def slow(descriptor: int) -> None:
        syncs[0] += 1
        reached.set()
        assert go_on.wait(PATIENCE)
        os.fdatasync(descriptor)

    with kvserver.Server(port=0, data_dir=str(data)) as server:
        socks = [connect(server) for _ in range(20)]
        try:
            disk.fdatasync = slow
            socks[0].sendall(request([b"SET", b"0", b"v"]))
            assert reached.wait(PATIENCE)
            for number, sock in enumerate(socks[1:], 1):
                sock.sendall(request([b"SET", b"%d" % number, b"v"]))
            persistence = server._state.persistence
            assert persistence is not None
            while persistence.journal.appended < 20:
                pass
            go_on.set()
            for sock in socks:
                assert sock.recv(100) == b"+OK\r\n"
            assert syncs[0] == 2
        finally:
            for sock in socks:
                sock.close()


@pytest.mark.parametrize("call", ["write", "fdatasync"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_after_a_failure_nothing_is_acknowledged_and_the_server_ends(
    data: Path, disk: Disk, call: str, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()
    server = kvserver.Server(port=0, data_dir=str(data)).start(on_end=ended.set)
    try:
        with connect(server) as other, Wire(server.port) as wire:
            wire.ask("SET", "safe", 1)
            setattr(disk, call, fails(code))
            with pytest.raises(ConnectionError):
                wire.ask("SET", "lost", 1)
            assert other.recv(100) == b""
            assert ended.wait(PATIENCE)
    finally:
        assert not server.stop()
    assert "journal.failed" in caplog.text
    setattr(disk, call, getattr(os, call))
    with kvserver.Server(port=0, data_dir=str(data)) as again:
        assert contents(again)[0][b"safe"] == (b"1", None)


def test_a_server_in_a_program_ends_by_itself(data: Path, disk: Disk) -> None:
    before = set(threading.enumerate())
    server = kvserver.Server(port=0, data_dir=str(data)).start()
    with Wire(server.port) as wire:
        disk.fdatasync = fails(errno.EIO)
        with pytest.raises(ConnectionError):
            wire.ask("SET", "lost", 1)
    join_all_but(before)  # the last of them is the one that stops the server
    server.stop()


@pytest.mark.parametrize("fsync", ["always", "no"])
def test_short_writes_are_gone_on_with(data: Path, disk: Disk, fsync: str) -> None:
    disk.write = lambda descriptor, text: os.write(descriptor, text[:7])
    with kvserver.Server(port=0, data_dir=str(data), fsync=fsync) as server, Wire(server.port) as wire:
        wire.run(*[[b"SET", b"%d" % number, b"v" * 50] for number in range(50)])
        wanted = contents(server)
    with kvserver.Server(port=0, data_dir=str(data)) as server:
        assert contents(server) == wanted


def test_a_client_that_takes_its_replies_late_gets_all_of_them_in_order(data: Path) -> None:
    """More than fits between the two ends, in replies that are handed over and in ones too large for that."""
    commands = [[b"INCR", b"n"], [b"ECHO", b"e" * 15_000], [b"ECHO", b"E" * 40_000]] * 300
    with kvserver.Server(port=0, data_dir=str(data)) as server, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))

        def send() -> None:
            for words in commands:
                sock.sendall(request(words))

        sender = threading.Thread(target=send)
        sender.start()
        with sock.makefile("rb") as replies:
            for number in range(1, 301):
                assert replies.readline() == b":%d\r\n" % number
                for size in (15_000, 40_000):
                    assert replies.readline() == b"$%d\r\n" % size
                    assert len(replies.read(size + 2)) == size + 2
        sender.join(PATIENCE)


def test_a_client_that_quits_gets_its_last_replies(data: Path) -> None:
    with kvserver.Server(port=0, data_dir=str(data)) as server, connect(server) as sock:
        sock.sendall(request([b"SET", b"k", b"v"]) + request([b"QUIT"]))
        assert b"".join(iter(lambda: sock.recv(100), b"")) == b"+OK\r\n+OK\r\n"


# everysec and no


@pytest.mark.interpreted
@pytest.mark.parametrize("fsync", ["everysec", "no"])
def test_writes_are_refused_before_anybody_is_dropped(
    data: Path, disk: Disk, fsync: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who connects again at once would otherwise be dropped again, while it greets the server."""
    refusing: list[bool] = []
    with (
        kvserver.Server(port=0, data_dir=str(data), fsync=fsync) as server,
        redis.Redis(port=server.port, retry=None) as client,
    ):
        client.ping()
        abort = Connection.abort

        def noted(connection: Connection) -> None:
            refusing.append(server._state.refuses_writes is not None)
            abort(connection)

        monkeypatch.setattr(Connection, "abort", noted)
        disk.write = fails(errno.ENOSPC)
        with pytest.raises(redis.ConnectionError):
            client.set("k", 1)
        assert refusing == [True]
        disk.write = os.write


@pytest.mark.parametrize("fsync", ["everysec", "no"])
def test_a_full_disk_refuses_writes_until_there_is_space(data: Path, disk: Disk, fsync: str) -> None:
    with (
        kvserver.Server(port=0, data_dir=str(data), fsync=fsync) as server,
        redis.Redis(port=server.port, retry=None) as client,
        redis.Redis(port=server.port) as reader,
        Wire(server.port) as queued,
    ):
        client.set("safe", 1)
        queued.run([b"MULTI"], [b"SET", b"refused", b"1"])
        disk.write = fails(errno.ENOSPC)
        with pytest.raises(redis.ConnectionError):
            client.set("unknown", 1)
        with pytest.raises(redis.ResponseError, match=r"MISCONF .*No space left"):
            client.set("refused", 1)
        with Wire(server.port) as wire:
            wire.ask("MULTI")
            assert wire.ask("SET", "refused", 1).startswith(b"-MISCONF")
            assert wire.ask("EXEC").startswith(b"-EXECABORT")
        queued.send(request([b"EXEC"]))
        assert queued.read().startswith(b"-EXECABORT Transaction discarded because of: MISCONF")
        assert reader.get("safe") == b"1"
        assert reader.info("persistence")["aof_last_write_status"] == "err"
        disk.write = os.write
        until = time.monotonic() + PATIENCE
        while reader.info("persistence")["aof_last_write_status"] == "err":
            assert time.monotonic() < until
        client.set("after", 1)
        wanted = contents(server)
        assert wanted[0].keys() == {b"safe", b"unknown", b"after"}
    with kvserver.Server(port=0, data_dir=str(data)) as server:
        assert contents(server) == wanted


def test_half_a_batch_never_stays_in_the_file(data: Path, disk: Disk) -> None:
    """A disk that takes ten bytes and is then full, again and again."""
    left = [0]

    def some(descriptor: int, text: Any) -> int:
        if not left[0]:
            left[0] = 10
            raise OSError(errno.ENOSPC, "No space left on device")
        count = os.write(descriptor, text[: left[0]])
        left[0] -= count
        return count

    with kvserver.Server(port=0, data_dir=str(data), fsync="no") as server:
        with Wire(server.port) as wire:
            wire.ask("SET", "safe", 1)
            size = increment(data).stat().st_size
            disk.write, left[0] = some, 10
            with pytest.raises(ConnectionError):
                wire.ask("SET", "unknown", 1)
        assert increment(data).stat().st_size == size
        assert list(read_batches(increment(data).read_bytes()))
        disk.write = os.write
    try:
        list(read_batches(increment(data).read_bytes()))
    except Truncated:
        pytest.fail("half a batch was left")


def test_after_a_failed_sync_only_new_files_are_trusted(data: Path, disk: Disk) -> None:
    with (
        kvserver.Server(port=0, data_dir=str(data), fsync="everysec") as server,
        redis.Redis(port=server.port) as client,
    ):
        disk.fdatasync = fails(errno.EIO)
        client.set("a", 1)
        until = time.monotonic() + PATIENCE
        while client.info("persistence")["aof_last_write_status"] == "ok":
            assert time.monotonic() < until
        disk.fdatasync = os.fdatasync
        old = increment(data)
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            client.set("b", 1)
        assert client.get("a") == b"1"
        assert client.save() is True
        assert client.info("persistence")["aof_last_write_status"] == "ok"
        assert increment(data) != old
        client.set("b", 1)
        wanted = contents(server)
    with kvserver.Server(port=0, data_dir=str(data)) as server:
        assert contents(server) == wanted


def test_replies_wait_rather_than_fall_far_behind(data: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_MOST_BEHIND", 0.0)
    reached, go_on = threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        reached.set()
        assert go_on.wait(PATIENCE)
        os.fdatasync(descriptor)

    with kvserver.Server(port=0, data_dir=str(data), fsync="everysec") as server, connect(server) as sock:
        disk.fdatasync = slow
        sock.sendall(request([b"SET", b"a", b"1"]))
        assert reached.wait(PATIENCE)
        sock.sendall(request([b"SET", b"b", b"1"]))
        assert is_silent(sock)
        go_on.set()
        assert sock.recv(5) == b"+OK\r\n"
        assert sock.recv(5) == b"+OK\r\n"


def test_a_rewrite_while_the_old_file_is_being_synced(data: Path, disk: Disk) -> None:
    """The old file is left open until that is over: its number could be another file's by then."""
    reached, go_on, calls = threading.Event(), threading.Event(), [0]

    def first_is_slow(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == 1:
            reached.set()
            assert go_on.wait(PATIENCE)
        os.fdatasync(descriptor)

    with (
        kvserver.Server(port=0, data_dir=str(data), fsync="everysec") as server,
        redis.Redis(port=server.port) as client,
    ):
        disk.fdatasync = first_is_slow
        client.set("a", 1)
        assert reached.wait(PATIENCE)
        assert client.save() is True
        go_on.set()
        client.set("b", 1)
        assert client.execute_command("WAITAOF", 1, 0, 20_000) == [1, 0]
        assert client.info("persistence")["aof_last_write_status"] == "ok"
        wanted = contents(server)
    with kvserver.Server(port=0, data_dir=str(data)) as server:
        assert contents(server) == wanted
