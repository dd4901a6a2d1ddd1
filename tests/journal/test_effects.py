"""Whatever commands do comes back from the files: in kvserver, and in the servers whose files they are."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import redis
from conformance.generators import batches
from conformance.oracle import Wire
from hypothesis import given, settings
from journal.conftest import contents
from journal.oracles import SERVERS, contents_of, started

import kvserver
from kvserver.journal.effects import Effects
from kvserver.store.memory import Database, Keyspace


@given(batches)
@settings(max_examples=30)
def test_everything_comes_back(commands: list[list[bytes]]) -> None:
    """Random commands and transactions, of every family that there is, and a rewrite in the middle."""
    with tempfile.TemporaryDirectory() as folder:
        with kvserver.Server(port=0, data_dir=folder, fsync="no") as server, Wire(server.port) as wire:
            wire.run(*commands[: len(commands) // 2])
            if len(commands) % 3 == 0:
                wire.run([b"RESET"], [b"SAVE"])
            wire.run(*commands[len(commands) // 2 :])
            before = contents(server)
        for _ in range(2):
            with kvserver.Server(port=0, data_dir=folder) as server:
                assert contents(server) == before


@pytest.mark.parametrize("name", SERVERS)
@given(sent=batches)
@settings(max_examples=8)
def test_everything_comes_back_in_the_others(name: str, sent: list[list[bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with kvserver.Server(port=0, data_dir=folder, fsync="no") as server, Wire(server.port) as wire:
            wire.run(*sent)
            before = contents(server)
        with started(name, Path(folder)) as client:
            assert contents_of(client) == before


def test_what_comes_back_has_what_is_due_removed(data: Path) -> None:
    """By the clock of the server that loads; and a key that was alive when it was changed has that change."""
    now = 1_700_000_000_000
    with (
        kvserver.Server(port=0, data_dir=str(data), clock=lambda: now) as server,
        redis.Redis(port=server.port) as client,
    ):
        client.set("short", 1, px=1000)
        client.set("kept", 1, px=1000)
        now += 900
        client.persist("kept")
        client.append("short", 2)
    now += 100
    with (
        kvserver.Server(port=0, data_dir=str(data), clock=lambda: now) as server,
        redis.Redis(port=server.port) as client,
    ):
        assert client.keys("*") == [b"kept"]
        assert client.ttl("kept") == -1


# What is recorded


def recorded(*commands: str) -> list[tuple[bytes, ...]]:
    """The effects of commands after a first SET of ``big``, a long value, each by itself."""
    with tempfile.TemporaryDirectory() as folder:
        effects = []
        with kvserver.Server(port=0, data_dir=folder, fsync="no") as server, Wire(server.port) as wire:
            wire.ask("SET", "big", "x" * 1000)
            append = server._state.persistence.journal.append
            server._state.persistence.journal.append = lambda batch: (
                effects.extend(e for _, e in batch),
                append(batch),
            )
            wire.run(*[command.encode().split() for command in commands])
    return effects


@pytest.mark.parametrize(
    ("command", "effects"),
    [
        ("SET k v", [(b"SET", b"k", b"v")]),
        ("SET k v PXAT 99999999999999", [(b"SET", b"k", b"v", b"PXAT", b"99999999999999")]),
        ("GET big", []),
        ("SET k v XX", []),
        ("DEL none", []),
        ("DEL big", [(b"DEL", b"big")]),
        ("EXPIRE big -1", [(b"DEL", b"big")]),
        ("INCR n", [(b"SET", b"n", b"1")]),
        ("APPEND big yz", [(b"SETRANGE", b"big", b"1000", b"yz")]),
        ("APPEND k yz", [(b"SET", b"k", b"yz")]),
        ("SETRANGE big 3 yz", [(b"SETRANGE", b"big", b"3", b"yz")]),
        ("SETRANGE big 2000 y", [(b"SETRANGE", b"big", b"2000", b"y")]),
        ("SETBIT big 8 1", [(b"SETRANGE", b"big", b"1", b"\xf8")]),
        ("BITFIELD big SET u8 16 255", [(b"SETRANGE", b"big", b"2", b"\xff")]),
        ("PEXPIREAT big 99999999999999", [(b"PEXPIREAT", b"big", b"99999999999999")]),
        ("PERSIST big", []),
        ("RENAME big k", [(b"DEL", b"big"), (b"SET", b"k", b"x" * 1000)]),
        ("FLUSHALL", [(b"FLUSHALL",)]),
        ("FLUSHDB", [(b"FLUSHDB",)]),
        ("SWAPDB 0 1", [(b"SWAPDB", b"0", b"1")]),
        ("SWAPDB 1 1", []),
        ("MSET a 1 b 2", [(b"SET", b"a", b"1"), (b"SET", b"b", b"2")]),
    ],
)
def test_the_effect_is_recorded_and_not_the_request(command: str, effects: list[tuple[bytes, ...]]) -> None:
    assert sorted(recorded(command)) == sorted(effects)


def test_a_transaction_is_what_it_comes_to() -> None:
    counted = ("INCR n", "INCR n", "SET k v", "DEL k", "APPEND big y", "PEXPIREAT big 99999999999999")
    assert recorded("MULTI", *counted, "EXEC") == [
        (b"SET", b"n", b"2"),
        (b"DEL", b"k"),
        (b"SETRANGE", b"big", b"1000", b"y"),
        (b"PEXPIREAT", b"big", b"99999999999999"),
    ]


def test_a_flush_in_the_middle_keeps_its_place() -> None:
    assert recorded("MULTI", "SET a 1", "SELECT 1", "SET b 1", "FLUSHDB", "SET c 1", "EXEC") == [
        (b"SET", b"a", b"1"),
        (b"FLUSHDB",),
        (b"SET", b"c", b"1"),
    ]


def test_a_swap_in_the_middle_keeps_its_place() -> None:
    keyspace = Keyspace(2, lambda: 0, durable=True)
    effects = Effects()
    taken: list[tuple[int | None, tuple[bytes, ...]]] = []
    keyspace.record(effects, lambda: taken.extend(effects.take()))
    with keyspace.lock:
        keyspace.databases[0].put(b"k", b"before")
        keyspace.swap(0, 1)
        keyspace.databases[0].put(b"k", b"after")
        assert not taken
    assert taken == [(0, (b"SET", b"k", b"before")), (None, (b"SWAPDB", b"0", b"1")), (0, (b"SET", b"k", b"after"))]


def test_a_change_without_the_lock_is_a_defect() -> None:
    keyspace = Keyspace(1, lambda: 0, durable=True)
    with pytest.raises(AssertionError):
        Database(keyspace, 0).put(b"k", b"v")
