"""The store of an embedded server from inside its program; copies of a server; and how quickly one starts and stops."""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path

import pytest

import kvclient
import kvserver
from kvserver import CommandError, ConfigError


def test_commands_without_a_connection(server: kvserver.Server) -> None:
    direct = server.direct
    assert direct("SET", "k", "v") == b"OK"
    assert direct("GET", b"k") == b"v"
    assert direct("INCRBY", "n", 5) == 5
    assert direct("INCRBYFLOAT", "f", 1.5) == b"1.5"
    assert direct("MGET", "k", "missing") == [b"v", None]
    with kvclient.connect(server.url) as kv:
        assert kv.get("n") == b"5"
        assert kv.info("clients")["connected_clients"] == "1"
    with pytest.raises(CommandError, match="not an integer"):
        direct("INCR", "k")
    with pytest.raises(CommandError, match="unknown command"):
        direct("NONSENSE")
    with pytest.raises(TypeError, match="a word is bytes, text or a number, not NoneType"):
        direct("SET", "k", None)  # type: ignore[arg-type]
    for words in (("MULTI",), ("SUBSCRIBE", "c"), ("CLIENT", "ID"), ()):
        with pytest.raises(CommandError, match="about connections"):
            direct(*words)


def test_it_is_counted(server: kvserver.Server) -> None:
    """For as long as it takes, and not the time since the thread's last command; beyond the thread's end, too."""
    direct = server.direct

    def three() -> None:
        direct("SET", "k", "v")
        server._state.direct_sessions[threading.get_ident()].since -= 3600 * 10**9  # as if an hour ago
        direct("GET", "k")
        direct("GET", "missing")

    def counted() -> tuple[int, int, int, int, int]:
        info = kv.info("everything")
        usage = kv.info("commandstats")
        calls = [int(usage.get(f"cmdstat_{name}", "calls=0,").split(",")[0][6:]) for name in ("set", "get")]
        return (*calls, *(int(info[name]) for name in ("keyspace_hits", "keyspace_misses", "total_commands_processed")))

    with kvclient.connect(server.url) as kv:
        kv.config_set({"slowlog-log-slower-than": str(60 * 10**6)})
        for number in range(1, 4):
            before = counted()
            thread = threading.Thread(target=three)  # one after the other: identifiers are given anew
            thread.start()
            thread.join()
            after = counted()
            assert [now - then for now, then in zip(after, before, strict=True)] == [1, 2, 1, 1, 3 + 2], number
        three()
        assert kv.slowlog_len() == 0
        kv.execute("CONFIG", "RESETSTAT")
        assert counted()[:4] == (0, 0, 0, 0)
        three()
        assert counted()[:4] == (1, 2, 1, 1)
    assert len(server._state.direct_sessions) <= 4


def test_nobody_comes_in_between(server: kvserver.Server) -> None:
    start = threading.Barrier(6)

    def double_count() -> None:
        start.wait(10)
        for _ in range(100):
            with server.direct.atomic():
                value = int(server.direct("GET", "n") or 0)  # type: ignore[arg-type]
                server.direct("SET", "n", value + 1)

    def count() -> None:
        with kvclient.connect(server.url) as kv:
            start.wait(10)
            for _ in range(100):
                kv.incr("n")

    threads = [threading.Thread(target=work) for work in (double_count, count) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.direct("GET", "n") == b"600"


def test_it_is_seen_watched_and_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    with kvserver.Server(port=0, data_dir=path) as server, kvclient.connect(server.url) as kv:
        kv.config_set({"notify-keyspace-events": "KA"})
        with kv.listen("__keyspace@0__:k") as messages:
            server.direct("SET", "k", "v")
            message = messages.next(timeout=10)
            assert message is not None
            assert message.data == b"set"
        with server.direct.atomic():
            server.direct("SET", "a", 1)
            server.direct("SET", "b", 2)
    with kvserver.Server(port=0, data_dir=path) as server:
        assert server.direct("MGET", "k", "a", "b") == [b"v", b"1", b"2"]


def test_a_fork_begins_with_the_same_and_goes_its_own_way(server: kvserver.Server) -> None:
    server.direct("MSET", "a", "1", "b", "2")
    server.direct("PEXPIRE", "b", 10**7)
    with server.fork() as first, server.fork() as second:
        assert len({server.port, first.port, second.port}) == 3
        first.direct("SET", "a", "changed")
        second.direct("DEL", "b")
        assert server.direct("MGET", "a", "b") == [b"1", b"2"]
        assert first.direct("MGET", "a", "b") == [b"changed", b"2"]
        assert second.direct("MGET", "a", "b") == [b"1", None]
        assert 0 < int(first.direct("PTTL", "b")) <= 10**7  # type: ignore[arg-type]
        for each in (server, first, second):
            info = kvclient_info(each, "memory")
            each.direct("FLUSHALL")
            assert int(info["used_memory"]) > 0
            assert kvclient_info(each, "memory")["used_memory"] == "0"


def kvclient_info(server: kvserver.Server, section: str) -> dict[str, str]:
    with kvclient.connect(server.url) as kv:
        return kv.info(section)


def test_keys_of_a_fork_expire_and_are_evicted() -> None:
    now = 1_000_000
    with kvserver.Server(port=0, clock=lambda: now) as server:
        for number in range(2000):
            server.direct("SET", f"k{number}", "x" * 100, "PX", 50)
        with server.fork(maxmemory=100_000, maxmemory_policy="allkeys-lru") as small:
            small.direct("SET", "one more", "x" * 100)
            deadline = time.monotonic() + 10
            while int(kvclient_info(small, "memory")["used_memory"]) > 100_000:
                assert time.monotonic() < deadline
            now += 50
            assert small.direct("GET", "k1999") is None
        assert server.direct("DBSIZE") == 2000  # its own thread has not looked yet


def test_a_fork_takes_no_time_and_no_memory_for_values() -> None:
    with kvserver.Server(port=0) as server:
        with server.direct.atomic():
            for number in range(100_000):
                server.direct("SET", number, "x")
            server.direct("SET", "large", b"x" * 50_000_000)
        start = time.process_time()
        with server.fork() as copy:
            assert time.process_time() - start < 0.5
            assert copy.direct("DBSIZE") == 100_001
            values = [each._state.keyspace.databases[0].values for each in (server, copy)]
            assert values[0][b"large"] is values[1][b"large"]


def test_a_snapshot_is_of_one_moment(server: kvserver.Server, tmp_path: Path) -> None:
    server.direct("SET", "k", "before")
    snapshot = server.snapshot()
    server.direct("SET", "k", "after")
    for _ in range(2):
        with kvserver.Server(port=0, snapshot=snapshot) as copy:
            assert copy.direct("GETSET", "k", "changed") == b"before"
    with pytest.raises(ConfigError, match="not both"):
        kvserver.Server(port=0, snapshot=snapshot, data_dir=str(tmp_path))
    server.direct("SELECT", 3)
    server.direct("SET", "k", "in another database")
    with pytest.raises(ValueError, match="more databases"):
        kvserver.Server(port=0, snapshot=server.snapshot(), databases=2)


def test_the_owner_may_do_everything(server: kvserver.Server) -> None:
    server.direct("ACL", "SETUSER", "default", "off", "-@all")
    assert server.direct("SET", "k", "v") == b"OK"


def test_after_the_end_nothing_is_done(tmp_path: Path) -> None:
    server = kvserver.Server(port=0, data_dir=str(tmp_path / "data"))
    with server, server.direct.atomic(), server.direct.atomic():
        server.direct("SET", "k", "v")
    with pytest.raises(CommandError, match="this server has stopped"):
        server.direct("SET", "k", "lost")


def test_before_its_data_is_there_nothing_is_done(tmp_path: Path) -> None:
    """It would not be written to disk."""
    server = kvserver.Server(port=0, data_dir=str(tmp_path))
    with pytest.raises(CommandError, match="LOADING"):
        server.direct("SET", "k", "v")
    with pytest.raises(CommandError, match="LOADING"), server.direct.atomic():
        pass
    with server:
        server.direct("SET", "k", "v")
    with kvserver.Server(port=0, data_dir=str(tmp_path)) as again:
        assert again.direct("GET", "k") == b"v"


def test_a_fork_has_the_time_too() -> None:
    with kvserver.Server(port=0, clock_command="yes") as server:
        with kvclient.connect(server.url) as kv:
            kv.clock(advance=7 * 86_400)
        server.direct("SET", "k", "v", "EX", 60)
        with server.fork() as copy:
            assert 0 < int(copy.direct("TTL", "k")) <= 60  # type: ignore[arg-type]


def test_the_clock_of_a_fork_is_its_own() -> None:
    with kvserver.Server(port=0, clock_command="yes") as server:
        server.direct("SET", "k", "v", "EX", 60)
        server.direct("KV.CLOCK", "FREEZE")
        with server.fork() as copy, copy.fork(clock_command="no") as third:
            copy.direct("KV.CLOCK", "ADVANCE", 30_000)
            assert server.direct("TTL", "k") == 60
            assert copy.direct("TTL", "k") == 30
            server.direct("KV.CLOCK", "ADVANCE", 61_000)
            assert [each.direct("EXISTS", "k") for each in (server, copy, third)] == [0, 1, 1]
            copy.direct("KV.CLOCK", "RESUME")
            assert 55 < int(copy.direct("TTL", "k")) <= 60  # type: ignore[arg-type]
            with copy.fork() as fourth:
                fourth.direct("KV.CLOCK", "ADVANCE", 61_000)
                assert copy.direct("EXISTS", "k") == 1


def test_it_starts_and_stops_quickly() -> None:
    starts, stops = [], []
    threads = threading.active_count()
    for _ in range(9):
        begin = time.perf_counter()
        server = kvserver.Server(port=0).start()
        started = time.perf_counter()
        server.stop()
        starts.append(started - begin)
        stops.append(time.perf_counter() - started)
    assert statistics.median(starts) < 0.02
    assert statistics.median(stops) < 0.05
    assert threading.active_count() == threads
