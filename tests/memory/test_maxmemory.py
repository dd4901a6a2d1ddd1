"""A server that may not use more memory than it was given: what is refused, what goes, and who is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from conformance.oracle import Wire
from support import real_valkey

import kvserver

OOM = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
LIMIT = 100_000
VALUE = "v" * 1000


@pytest.fixture
def wire(server: kvserver.Server) -> Iterator[Wire]:
    with Wire(server.port) as connected:
        yield connected


def limit(wire: Wire, policy: str = "noeviction", size: int = LIMIT) -> None:
    assert wire.ask("CONFIG", "SET", "maxmemory", size, "maxmemory-policy", policy) == b"+OK\r\n"


def used(wire: Wire) -> int:
    return int(info(wire, "memory", "used_memory"))


def info(wire: Wire, section: str, field: str) -> str:
    lines = wire.ask("INFO", section).decode().split("\r\n")
    return next(line.partition(":")[2] for line in lines if line.startswith(f"{field}:"))


def fill(wire: Wire, policy: str = "noeviction") -> None:
    """Write until the limit is passed."""
    limit(wire, policy)
    for number in range(200):
        wire.ask("SET", f"k{number}", VALUE)


# Nothing may go


def test_writes_are_refused_and_everything_else_goes_on(wire: Wire) -> None:
    fill(wire)
    assert LIMIT < used(wire) < LIMIT + 2000
    for refused in (("SET", "a", "1"), ("APPEND", "k1", "x"), ("INCR", "n"), ("MSET", "a", "1"), ("SETBIT", "b", 1, 1)):
        assert wire.ask(*refused) == OOM
    assert wire.ask("GET", "k1") == b"$1000\r\n%b\r\n" % VALUE.encode()
    assert wire.ask("EXPIRE", "k1", 100) == b":1\r\n"
    assert wire.ask("GET", "a") == b"$-1\r\n"
    assert wire.ask("DEL", *(f"k{number}" for number in range(10))) == b":10\r\n"
    assert wire.ask("SET", "a", "1") == b"+OK\r\n"
    assert info(wire, "errorstats", "errorstat_OOM") != "count=0"
    assert info(wire, "stats", "evicted_keys") == "0"


def test_no_limit_once_it_is_lifted(wire: Wire) -> None:
    fill(wire)
    assert wire.ask("SET", "a", "1") == OOM
    assert wire.ask("CONFIG", "SET", "maxmemory", "0") == b"+OK\r\n"
    assert wire.ask("SET", "a", "1") == b"+OK\r\n"


def test_flushing_makes_room(wire: Wire) -> None:
    fill(wire)
    assert wire.ask("FLUSHALL") == b"+OK\r\n"
    assert wire.ask("SET", "a", "1") == b"+OK\r\n"


def test_expiry_makes_room(wire: Wire) -> None:
    limit(wire)
    for number in range(200):
        wire.ask("SET", f"k{number}", VALUE, "PX", 2000)
    assert wire.ask("SET", "a", "1") == OOM
    deadline = time.monotonic() + 30
    while wire.ask("SET", "a", "1") == OOM:
        assert time.monotonic() < deadline


def test_a_transaction_is_refused_when_it_is_queued_and_when_it_runs(wire: Wire) -> None:
    assert wire.ask("MULTI") == b"+OK\r\n"
    assert wire.ask("SET", "before", "1") == b"+QUEUED\r\n"
    other = another(wire)
    fill(other)
    assert wire.ask("EXEC") == b"-EXECABORT Transaction discarded because of: " + OOM[1:]
    assert wire.ask("MULTI") == b"+OK\r\n"
    assert wire.ask("GET", "k1") == b"+QUEUED\r\n"
    assert wire.ask("SET", "a", "1") == OOM
    assert wire.ask("EXEC") == b"-EXECABORT Transaction discarded because of previous errors.\r\n"
    assert wire.ask("MULTI") == b"+OK\r\n"
    assert wire.ask("DEL", "k1") == b"+QUEUED\r\n"
    assert wire.ask("EXEC") == b"*1\r\n:1\r\n"
    assert wire.ask("EXISTS", "before", "a") == b":0\r\n"
    other.close()


def another(wire: Wire) -> Wire:
    return Wire(wire.port)


def test_a_script_that_writes_is_refused_and_one_that_deletes_is_not(wire: Wire) -> None:
    count = "return redis.call('incrby', KEYS[1], ARGV[1])"
    release = (
        'if redis.call("get",KEYS[1]) == ARGV[1] then\n    return redis.call("del",KEYS[1])\nelse\n    return 0\nend'
    )
    fill(wire)
    wire.ask("SCRIPT", "LOAD", count)
    assert wire.ask("EVAL", release, 1, "k1", VALUE) == b":1\r\n"
    fill(wire)
    assert wire.ask("EVAL", count, 1, "n", 1) == OOM


def test_the_same_refusals_as_valkey(server: kvserver.Server) -> None:
    """The limit is passed on both; then what each command is answered, by its first words."""
    commands: list[tuple[bytes | str | int, ...]] = [
        ("SET", "a", "1"), ("GET", "k"), ("APPEND", "k", "x"), ("SETRANGE", "k", 0, "x"), ("INCR", "n"),
        ("DEL", "none"),
        ("EXPIRE", "k", 100), ("PERSIST", "k"), ("GETEX", "k"), ("RENAME", "k", "k2"), ("COPY", "k2", "k3"),
        ("SETNX", "a", "1"), ("GETSET", "k2", "1"), ("GETDEL", "k2"), ("MSETNX", "x", "1"), ("BITOP", "NOT", "d", "k"),
        ("SETBIT", "b", 1, 1), ("BITFIELD", "b", "GET", "u8", 0), ("INCRBYFLOAT", "f", "1"), ("DECR", "n"),
        ("PUBLISH", "c", "m"), ("MULTI",), ("SET", "a", "1"), ("EXEC",),
        ("MOVE", "k", 1), ("SWAPDB", 0, 1), ("DBSIZE",),
    ]  # fmt: skip
    with real_valkey() as port, Wire(server.port) as ours, Wire(port) as theirs:
        for wire in (ours, theirs):
            wire.ask("MSET", "k", "v" * 1000, "large", "v" * 100_000)
            wire.ask("CONFIG", "SET", "maxmemory", 1000)
        for command in commands:
            assert ours.ask(*command) == theirs.ask(*command), command


# Keys go


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_the_data_stays_within_the_limit_after_every_command(wire: Wire, policy: str) -> None:
    limit(wire, policy)
    for number in range(500):
        assert wire.ask("SET", f"k{number}", VALUE) == b"+OK\r\n"
        if number % 50 == 0:
            assert used(wire) <= LIMIT
    assert 60 < int(wire.ask("DBSIZE")[1:]) < 90
    assert int(info(wire, "stats", "evicted_keys")) == 500 - int(wire.ask("DBSIZE")[1:])
    assert wire.ask("CONFIG", "RESETSTAT") == b"+OK\r\n"
    assert info(wire, "stats", "evicted_keys") == "0"


def test_when_no_key_has_a_deadline_volatile_policies_refuse(wire: Wire) -> None:
    fill(wire, "volatile-lru")
    assert wire.ask("SET", "a", "1") == OOM
    assert wire.ask("EXPIRE", "k1", 1000) == b":1\r\n"
    assert wire.ask("GET", "k1") == b"$-1\r\n"  # it was the only candidate
    assert wire.ask("EXISTS", "k2", "k3") == b":2\r\n"


def test_a_value_larger_than_the_limit_goes_at_once(wire: Wire) -> None:
    limit(wire, "allkeys-lru")
    wire.ask("SET", "small", "1")
    assert wire.ask("SET", "k", "v" * LIMIT) == b"+OK\r\n"
    assert used(wire) < LIMIT


def test_within_a_transaction_nothing_goes_before_its_end(wire: Wire) -> None:
    limit(wire, "allkeys-lru")
    commands = [("SET", f"k{number}", VALUE) for number in range(300)]
    wire.ask("MULTI")
    for command in commands:
        assert wire.ask(*command) == b"+QUEUED\r\n"
    assert wire.ask("DBSIZE") == b"+QUEUED\r\n"
    assert wire.ask("EXEC").endswith(b"+OK\r\n:300\r\n")
    assert used(wire) <= LIMIT


def test_lowering_the_limit_evicts_before_it_is_answered(wire: Wire) -> None:
    for number in range(5000):
        wire.ask("SET", f"k{number}", "v" * 100)
    limit(wire, "allkeys-random")
    assert used(wire) <= LIMIT


def test_a_large_value_that_pushes_out_many_keys_holds_nobody_up(wire: Wire) -> None:
    """The command evicts some; the rest goes in the background, soon."""
    keys = 20_000
    wire.run(*[(b"SET", b"k%d" % number, b"v" * 100) for number in range(keys)])
    limit(wire, "allkeys-lru", used(wire) + keys * 64 + 1_000_000)
    assert int(wire.ask("DBSIZE")[1:]) == keys
    assert wire.ask("SET", "large", "v" * 5_000_000) == b"+OK\r\n"
    deadline = time.monotonic() + 20
    while used(wire) > int(info(wire, "memory", "maxmemory")):
        assert time.monotonic() < deadline


def test_watched_tracked_and_notified(server: kvserver.Server, wire: Wire) -> None:
    wire.ask("CONFIG", "SET", "notify-keyspace-events", "KEe")
    with Wire(server.port) as watcher, Wire(server.port) as tracker, Wire(server.port) as subscriber:
        wire.ask("SET", "k", VALUE)
        watcher.ask("WATCH", "k")
        tracker.ask("HELLO", 3)
        tracker.ask("CLIENT", "TRACKING", "ON")
        tracker.ask("GET", "k")
        subscriber.ask("SUBSCRIBE", "__keyevent@0__:evicted")
        limit(wire, "allkeys-lru", 500)
        assert wire.ask("EXISTS", "k") == b":0\r\n"
        assert subscriber.read() == b"*3\r\n$7\r\nmessage\r\n$22\r\n__keyevent@0__:evicted\r\n$1\r\nk\r\n"
        assert tracker.read() == b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
        watcher.ask("MULTI")
        watcher.ask("PING")
        assert watcher.ask("EXEC") == b"*-1\r\n"


def test_frequency_and_idle_time(wire: Wire) -> None:
    wire.ask("SET", "k", "1")
    assert wire.ask("OBJECT", "FREQ", "k").startswith(b"-ERR An LFU maxmemory policy is not selected")
    limit(wire, "allkeys-lfu", 0)
    for _ in range(5):
        wire.ask("GET", "k")
    assert wire.ask("OBJECT", "FREQ", "k") == b":5\r\n"
    assert wire.ask("OBJECT", "FREQ", "none") == b"$-1\r\n"
    wire.ask("CLIENT", "NO-TOUCH", "ON")
    wire.ask("GET", "k")
    assert wire.ask("OBJECT", "FREQ", "k") == b":5\r\n"
    assert wire.ask("OBJECT", "IDLETIME", "k").startswith(b"-ERR An LFU maxmemory policy is selected")
    limit(wire, "allkeys-lru", 0)
    assert wire.ask("OBJECT", "IDLETIME", "k") == b":0\r\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [("maxmemory", "-1"), ("maxmemory", "many"), ("maxmemory-policy", "newest"), ("maxmemory", "1xb")],
)
def test_settings_that_make_no_sense(wire: Wire, name: str, value: str) -> None:
    assert wire.ask("CONFIG", "SET", name, value).startswith(b"-ERR CONFIG SET failed")
    assert wire.ask("CONFIG", "GET", "maxmemory") == b"*2\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n"


def test_many_writers_and_readers_at_the_limit(server: kvserver.Server, wire: Wire) -> None:
    """Eviction under load: every value read is the one that belongs to its key, and the limit holds."""
    limit(wire, "allkeys-lru")
    wrong: list[object] = []

    def work(seed: int) -> None:
        with redis.Redis(port=server.port) as client:
            for number in range(400):
                key = f"k{(number * 7 + seed * 13) % 150}"
                client.set(key, f"{key}:" + VALUE)
                found = client.get(f"k{(number * 3) % 150}")
                if found is not None and not found.startswith(b"k%d:" % (number * 3 % 150)):
                    wrong.append(found)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert used(wire) <= LIMIT


# With a journal


def test_what_was_evicted_stays_gone_after_a_restart(tmp_path: Path, started: Callable[..., kvserver.Server]) -> None:
    limited = started(data_dir=str(tmp_path), maxmemory=LIMIT, maxmemory_policy="allkeys-lru")
    with limited as server, Wire(server.port) as wire:
        for number in range(300):
            wire.ask("SET", f"k{number}", VALUE)
        kept = wire.ask("DBSIZE")
    with started(data_dir=str(tmp_path)) as server, Wire(server.port) as wire:
        assert wire.ask("DBSIZE") == kept
        before = used(wire)
    limited = started(data_dir=str(tmp_path), maxmemory=before // 2, maxmemory_policy="allkeys-lru")
    with limited as server, Wire(server.port) as wire:
        assert 0 < used(wire) <= before // 2


@pytest.fixture
def started() -> Callable[..., kvserver.Server]:
    return lambda **settings: kvserver.Server(port=0, **settings)
