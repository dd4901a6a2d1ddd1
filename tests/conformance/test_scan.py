"""SCAN: every key that is there during the whole walk comes exactly once, whatever happens meanwhile."""

from __future__ import annotations

import threading
from typing import cast

import pytest
from conformance.oracle import Wire, parse
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, rule

import kvserver
from kvserver.commands.databases import scan
from kvserver.protocol.replies import Deferred
from kvserver.store.memory import Keyspace

_keys = st.integers(0, 400)


class Walk:
    """One client's walk: where it is, what it has met, and what it must meet."""

    def __init__(self, present: set[bytes]) -> None:
        self.cursor = b"0"
        self.must = set(present)
        self.met: list[bytes] = []
        self.call: Deferred | None = None  # between the half of a SCAN under the lock and the half after it


class Walks(RuleBasedStateMachine):
    """Several walks over a database that changes between, and within, their calls.

    SCAN does half of its work under the lock and half after it, so other commands come between the halves too.
    """

    walks = Bundle("walks")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000
        self.keyspace = Keyspace(1, lambda: self.now)
        self.db = self.keyspace.databases[0]
        self.running: list[Walk] = []
        self.put(0, 60)

    @rule(first=_keys, count=st.sampled_from([1, 1, 30, 400]))
    def put(self, first: int, count: int) -> None:
        with self.keyspace.lock:
            for number in range(first, first + count):
                self.db.put(b"key:%d" % number, b"")

    @rule(first=_keys, count=st.sampled_from([1, 1, 30, 400]))
    def remove(self, first: int, count: int) -> None:
        gone = {b"key:%d" % number for number in range(first, first + count)}
        with self.keyspace.lock:
            for key in gone:
                self.db.remove(key)
        self._missed(gone)

    @rule(number=_keys)
    def expire(self, number: int) -> None:
        """The key is gone from the moment its time has passed, though nobody has removed it yet."""
        key = b"key:%d" % number
        with self.keyspace.lock:
            self.keyspace.moment = None
            if self.db.peek(key) is not None:
                self.db.expire_at(key, self.now + 1)
        self.now += 2
        self._missed({key})

    @rule()
    def flush(self) -> None:
        with self.keyspace.lock:
            self.db.flush()
        for walk in self.running:
            walk.must.clear()

    def _missed(self, keys: set[bytes]) -> None:
        for walk in self.running:
            walk.must -= keys

    @rule(target=walks)
    def start(self) -> Walk:
        with self.keyspace.lock:
            self.keyspace.moment = None
            walk = Walk(set(self.db.live_keys()()))
            walk.call = scan(self.db, b"0")
        self.running.append(walk)
        return walk

    @rule(target=walks, walk=consumes(walks), count=st.sampled_from([1, 10, 50, 1000]))
    def go_on(self, walk: Walk, count: int) -> Walk:
        if walk.call is None:
            with self.keyspace.lock:
                self.keyspace.moment = None
                walk.call = scan(self.db, walk.cursor, b"COUNT", b"%d" % count)
        return walk

    @rule(target=walks, walk=consumes(walks))
    def answer(self, walk: Walk) -> object:
        if walk.call is None:
            return walk
        cursor, met = cast("tuple[bytes, list[bytes]]", walk.call())
        walk.call, walk.cursor = None, cursor
        walk.met += met
        if cursor != b"0":
            return walk
        self.running.remove(walk)
        assert len(set(walk.met)) == len(walk.met), "a key came twice"
        assert walk.must <= set(walk.met), "a key that was there all the time did not come"
        return multiple()

    @rule(walk=consumes(walks))
    def to_the_end(self, walk: Walk) -> None:
        """Without this hardly any walk would come to its end."""
        while walk in self.running:
            self.go_on(walk, 20)
            self.answer(walk)


TestWalks = Walks.TestCase
TestWalks.settings = settings(max_examples=4 * settings.default.max_examples, stateful_step_count=30)


def test_a_snapshot_that_comes_late_replaces_none_that_was_dropped() -> None:
    """Between the halves of a walk's first call other walks come and end; one that goes on must not get its keys."""
    keyspace = Keyspace(1, lambda: 0)
    db = keyspace.databases[0]

    def first_half(cursor: bytes) -> Deferred:
        with keyspace.lock:
            return scan(db, cursor, b"COUNT", b"1")

    def put(numbers: range) -> None:
        with keyspace.lock:
            for number in numbers:
                db.put(b"%d" % number, b"")

    put(range(50))
    late = first_half(b"0")
    put(range(50, 100))
    cursor, met = cast("tuple[bytes, list[bytes]]", first_half(b"0")())
    with keyspace.lock:
        whole = scan(db, b"0", b"COUNT", b"1000")
    assert len(cast("tuple[bytes, list[bytes]]", whole())[1]) == 100  # and so its snapshot is dropped
    late()
    while cursor != b"0":
        cursor, more = cast("tuple[bytes, list[bytes]]", first_half(cursor)())
        met += more
    assert len(met) == 100


def _walk(wire: Wire, *options: str | int) -> list[bytes]:
    cursor, met = b"0", []
    while True:
        cursor, keys = cast("tuple[bytes, list[bytes]]", parse(wire.ask("SCAN", cursor, *options)))
        met += keys
        if cursor == b"0":
            return met


def _fill(wire: Wire, count: int) -> set[bytes]:
    keys = [b"key:%d" % number for number in range(count)]
    wire.run(*([b"SET", key, b"v"] for key in keys))
    return set(keys)


@pytest.mark.parametrize("count", [1, 3, 10, 100, 5000])
@pytest.mark.parametrize("size", [0, 1, 9, 1000])
def test_every_key_once(server: kvserver.Server, size: int, count: int) -> None:
    with Wire(server.port) as wire:
        keys = _fill(wire, size)
        met = _walk(wire, "COUNT", count)
        assert sorted(met) == sorted(keys)


def test_match_and_type_choose_among_them(server: kvserver.Server) -> None:
    with Wire(server.port) as wire:
        keys = _fill(wire, 300)
        assert sorted(_walk(wire, "MATCH", "key:1*", "COUNT", 7)) == sorted(k for k in keys if k.startswith(b"key:1"))
        assert sorted(_walk(wire, "TYPE", "string")) == sorted(keys)
        assert sorted(_walk(wire, "TYPE", "STRING", "MATCH", "key:?")) == [b"key:%d" % n for n in range(10)]
        assert _walk(wire, "TYPE", "list", "COUNT", 1000) == []
        assert _walk(wire, "MATCH", "nothing") == []


def test_an_expired_key_does_not_come() -> None:
    now = 1_000_000
    with kvserver.Server(port=0, clock=lambda: now) as server, Wire(server.port) as wire:
        wire.ask("SET", "stays", "v")
        wire.ask("SET", "goes", "v", "PX", 10)
        now += 20
        assert _walk(wire) == [b"stays"]


def test_each_database_is_walked_by_itself(server: kvserver.Server) -> None:
    with Wire(server.port) as first, Wire(server.port) as second:
        keys = _fill(first, 100)
        second.ask("SELECT", 1)
        second.ask("SET", "other", "v")
        cursor, met = cast("tuple[bytes, list[bytes]]", parse(first.ask("SCAN", 0)))
        assert _walk(second) == [b"other"]
        while cursor != b"0":
            cursor, more = cast("tuple[bytes, list[bytes]]", parse(first.ask("SCAN", cursor)))
            met += more
        assert sorted(met) == sorted(keys)


def test_walks_from_several_threads_among_writers(server: kvserver.Server) -> None:
    """The real thing: threads that walk, threads that add and delete other keys, and the keys that stay."""
    with Wire(server.port) as wire:
        stay = _fill(wire, 1000)
    stop, faults = threading.Event(), []

    def write(name: str) -> None:
        with Wire(server.port) as wire:
            while not stop.is_set():
                others = [b"%b:%d" % (name.encode(), number) for number in range(200)]
                wire.run(*([b"SET", key, b"v"] for key in others))
                wire.run([b"DEL", *others])

    def walk(count: int) -> None:
        with Wire(server.port) as wire:
            for _ in range(3):
                met = [key for key in _walk(wire, "COUNT", count) if key in stay]
                if sorted(met) != sorted(stay):
                    faults.append((count, len(met)))

    writers = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
    walkers = [threading.Thread(target=walk, args=(count,)) for count in (10, 100, 700)]
    for thread in writers + walkers:
        thread.start()
    for thread in walkers:
        thread.join()
    stop.set()
    for thread in writers:
        thread.join()
    assert faults == []
