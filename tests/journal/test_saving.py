"""Rewriting, waiting for the disk, ending the server: the commands, and what INFO tells of them."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from conformance.oracle import Wire
from journal.conftest import contents
from journal.oracles import await_rewrite
from journal.test_recovery import fill, increment
from support import join_all_but

import kvserver
from kvserver.journal import rewrite as rewriting
from kvserver.journal import writer


def files(data: Path) -> list[str]:
    return sorted(path.name for path in (data / "appendonlydir").iterdir())


@pytest.mark.parametrize("fsync", ["always", "everysec", "no"])
def test_a_rewrite_keeps_everything_and_leaves_one_base_and_one_increment(data: Path, fsync: str) -> None:
    with (
        kvserver.Server(port=0, data_dir=str(data), fsync=fsync) as server,
        redis.Redis(port=server.port) as client,
    ):
        fill(client)
        before = client.lastsave()
        assert client.save() is True
        assert client.lastsave() >= before
        client.set("after", 1)
        assert client.bgsave() is True
        await_rewrite(client)
        client.set("after", 2)
        assert client.bgrewriteaof() is True
        await_rewrite(client)
        client.set("last", 1)
        wanted = contents(server)
        assert files(data) == ["appendonly.aof.4.base.aof", "appendonly.aof.4.incr.aof", "appendonly.aof.manifest"]
    with kvserver.Server(port=0, data_dir=str(data)) as server:
        assert contents(server) == wanted


def test_nothing_written_meanwhile_is_lost(data: Path) -> None:
    """Eight writers, and one rewrite after the other."""
    start = threading.Barrier(9)
    stop = threading.Event()
    counts = [0] * 8
    with kvserver.Server(port=0, data_dir=str(data), fsync="no") as server, redis.Redis(port=server.port) as client:

        def work(number: int) -> None:
            with redis.Redis(port=server.port) as writer:
                start.wait()
                while not stop.is_set():
                    counts[number] = writer.incr(f"n{number}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        start.wait()
        for _ in range(8):
            assert client.save() is True
        stop.set()
        for thread in threads:
            thread.join()
        wanted = contents(server)
    assert [int(wanted[0][b"n%d" % number][0]) for number in range(8)] == counts
    with kvserver.Server(port=0, data_dir=str(data)) as server:
        assert contents(server) == wanted


def test_it_rewrites_by_itself_when_the_files_have_grown(data: Path) -> None:
    settings: dict[str, Any] = {"auto_aof_rewrite_min_size": 10_000, "auto_aof_rewrite_percentage": 50}
    with (
        kvserver.Server(port=0, data_dir=str(data), fsync="always", **settings) as server,
        redis.Redis(port=server.port) as client,
    ):
        until = time.monotonic() + 30
        while "appendonly.aof.2.base.aof" not in files(data):
            client.set("k", "v" * 1000)
            assert time.monotonic() < until
        client.config_set("auto-aof-rewrite-percentage", 0)
        await_rewrite(client)
        assert client.info("persistence")["aof_base_size"] < 5000
        assert client.get("k") == b"v" * 1000


def test_a_rewrite_that_fails_leaves_everything_as_it_was(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with kvserver.Server(port=0, data_dir=str(data)) as server, redis.Redis(port=server.port) as client:
        fill(client)
        with monkeypatch.context() as broken:
            broken.setattr(rewriting, "write_base", full)
            with pytest.raises(redis.ResponseError, match="could not be saved"):
                client.save()
            assert client.info("persistence")["aof_last_bgrewrite_status"] == "err"
        client.set("after", 1)
        wanted = contents(server)
    with kvserver.Server(port=0, data_dir=str(data)) as server, redis.Redis(port=server.port) as client:
        assert contents(server) == wanted
        assert client.save() is True
        assert client.info("persistence")["aof_last_bgrewrite_status"] == "ok"
    assert len(files(data)) == 3


def test_expired_keys_are_not_written_to_a_base(data: Path) -> None:
    now = 1_700_000_000_000
    with (
        kvserver.Server(port=0, data_dir=str(data), clock=lambda: now) as server,
        redis.Redis(port=server.port) as client,
    ):
        server._state.active_expiry.clear()
        client.set("gone", 1, px=10)
        client.set("stays", 1, px=10_000)
        now += 10
        client.save()
        base = next((data / "appendonlydir").glob("*.base.aof")).read_bytes()
        assert b"stays" in base
        assert b"gone" not in base


def test_waitaof(data: Path) -> None:
    with (
        kvserver.Server(port=0, data_dir=str(data), fsync="no") as server,
        redis.Redis(port=server.port, db=1) as client,
    ):
        client.set("k", "v")
        assert client.execute_command("WAITAOF", 1, 0, 20_000) == [1, 0]
        persistence = server._state.persistence
        assert persistence is not None
        assert persistence.journal.synced == persistence.journal.appended
        assert b"SET" in increment(data).read_bytes()
        assert client.execute_command("WAITAOF", 0, 0, 0) in ([0, 0], [1, 0])
        with client.pipeline() as transaction:
            transaction.set("k", "w")
            transaction.execute_command("WAITAOF", 1, 0, 0)
            assert transaction.execute()[1] in ([0, 0], [1, 0])


@pytest.mark.parametrize("command", ["SAVE", "BGSAVE", "BGREWRITEAOF"])
def test_without_a_directory_there_is_nothing_to_save_to(server: kvserver.Server, command: str) -> None:
    with redis.Redis(port=server.port) as client:
        with pytest.raises(redis.ResponseError, match="no data directory"):
            client.execute_command(command)
        with pytest.raises(redis.ResponseError, match="appendonly is disabled"):
            client.execute_command("WAITAOF", 1, 0, 0)
        assert client.config_get("append*") == {"appendonly": "no", "appendfsync": "always"}
        assert client.info("persistence")["aof_enabled"] == 0


def test_settings_and_info(data: Path) -> None:
    with kvserver.Server(port=0, data_dir=str(data)) as server, redis.Redis(port=server.port) as client:
        assert client.config_get("dir") == {"dir": str(data)}
        assert client.config_get("append*") == {"appendonly": "yes", "appendfsync": "always"}
        assert client.config_set("appendfsync", "everysec") is True
        client.set("k", "v")
        assert client.config_set("appendfsync", "always") is True
        client.set("k", "w")
        info = client.info("persistence")
        assert info["aof_enabled"] == 1
        assert info["aof_last_write_status"] == "ok"
        assert info["aof_current_size"] > info["aof_base_size"] == 0
        with pytest.raises(redis.ResponseError, match="immutable"):
            client.config_set("dir", "/tmp")


@pytest.mark.parametrize("words", [(), ("NOSAVE",), ("SAVE",), ("NOW", "FORCE")])
def test_shutdown(data: Path, words: tuple[str, ...]) -> None:
    ended = threading.Event()
    server = kvserver.Server(port=0, data_dir=str(data)).start(on_end=ended.set)
    try:
        with Wire(server.port) as wire:
            assert wire.ask("SHUTDOWN", "ABORT") == b"-ERR No shutdown in progress.\r\n"
            assert wire.ask("SHUTDOWN", "SAVE", "NOSAVE") == b"-ERR syntax error\r\n"
            wire.ask("SET", "k", "v")
            with pytest.raises(ConnectionError):
                wire.ask("SHUTDOWN", *words)
        assert ended.wait(10)
    finally:
        assert server.stop()
    with kvserver.Server(port=0, data_dir=str(data)) as server:
        assert contents(server) == {0: {b"k": (b"v", None)}}


def test_shutdown_of_an_embedded_server() -> None:
    before = set(threading.enumerate())
    server = kvserver.Server(port=0).start()
    with Wire(server.port) as wire, pytest.raises(ConnectionError):
        wire.ask("SHUTDOWN")
    join_all_but(before)  # the last of them is the one that stops the server
    assert server.stop()


def test_waitaof_long_after_the_write(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``no`` nobody syncs by himself: the thread that does sleeps, and has to be woken."""
    monkeypatch.setattr(writer, "SYNC_SECONDS", 0.01)
    with kvserver.Server(port=0, data_dir=str(data), fsync="no") as server, redis.Redis(port=server.port) as client:
        client.set("k", "v")
        persistence = server._state.persistence
        assert persistence is not None
        while not persistence.journal._idle:
            pass
        assert persistence.journal.synced == 0
        assert client.execute_command("WAITAOF", 1, 0, 20_000) == [1, 0]


def test_a_new_increment_that_cannot_be_made_fails_the_rewrite_only(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with kvserver.Server(port=0, data_dir=str(data)) as server, redis.Redis(port=server.port) as client:
        client.set("a", 1)
        with monkeypatch.context() as broken:
            broken.setattr(rewriting, "_create", full)
            with pytest.raises(redis.ResponseError, match="could not be saved"):
                client.save()
        client.set("b", 1)
        assert client.save() is True
        wanted = contents(server)
    with kvserver.Server(port=0, data_dir=str(data)) as server:
        assert contents(server) == wanted


def test_only_the_last_file_that_counts_is_ever_written_to(data: Path) -> None:
    """So that a kill at any moment leaves files that Redis and Valkey take, too."""
    stop = threading.Event()
    with kvserver.Server(port=0, data_dir=str(data), fsync="no") as server, redis.Redis(port=server.port) as client:

        def work() -> None:
            with redis.Redis(port=server.port) as writing:
                while not stop.is_set():
                    writing.set("k", "v" * 1000)

        thread = threading.Thread(target=work)
        thread.start()
        manifest = data / "appendonlydir" / "appendonly.aof.manifest"
        sizes: dict[str, int] = {}
        for _ in range(5):
            client.bgrewriteaof()
            while client.info("persistence")["aof_rewrite_in_progress"]:
                *earlier, _last = [line.split()[1] for line in manifest.read_text().splitlines()]
                for name in earlier:
                    path = manifest.with_name(name)
                    if path.exists():
                        size = path.stat().st_size
                        assert sizes.setdefault(name, size) == size
        stop.set()
        thread.join()
