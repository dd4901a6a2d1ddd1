"""Which commands count as hits and misses, and which as an access to a key: as in Valkey."""

from __future__ import annotations

import re

import pytest
from conformance.oracle import Pair, Wire

import kvserver
from kvserver.protocol.inline import split_arguments

COMMANDS = [
    "GET k", "SET k v GET", "SET k v", "SET k v NX", "SET k v XX", "SET k v KEEPTTL", "SET k v IFEQ v", "SET n v NX",
    "SET n v XX", "SET n v GET", "SET n v IFEQ x", "GETSET k v", "GETSET n v", "GETDEL k", "GETDEL n", "GETEX k",
    "GETEX n", "GETEX k PERSIST", "MGET k n", "MSET k v n w", "MSETNX k v", "MSETNX n v", "SETNX k v", "SETNX n v",
    "SETEX k 10 v", "APPEND k v", "APPEND n v", "STRLEN k", "STRLEN n", "GETRANGE k 0 1", "GETRANGE n 0 1",
    "SUBSTR n 0 1", "SETRANGE k 0 x", "SETRANGE n 0 x", "SETRANGE n 0 ''", "INCR i", "INCR n", "INCRBY i 2",
    "INCRBYFLOAT i 1", "LCS k n", "DEL k n", "UNLINK k n", "EXISTS k n", "TOUCH k n", "TYPE k", "TYPE n",
    "RENAME k k2", "RENAME n k2", "RENAMENX k k2", "COPY k k2", "COPY n k2", "COPY k i", "MOVE k 3", "MOVE n 3",
    "RANDOMKEY", "KEYS *", "SCAN 0", "DBSIZE", "OBJECT ENCODING k", "OBJECT ENCODING n", "OBJECT REFCOUNT n",
    "OBJECT FREQ k", "OBJECT IDLETIME k", "EXPIRE k 100", "EXPIRE n 100", "TTL k", "TTL n", "PTTL n", "EXPIRETIME k",
    "PEXPIRETIME n", "PERSIST k", "PERSIST n", "EXPIRE k -1",
]  # fmt: skip


def _counters(wire: Wire) -> list[int]:
    stats = wire.ask("INFO", "stats")
    return [int(re.findall(rb"%b:(\d+)" % name, stats)[0]) for name in (b"keyspace_hits", b"keyspace_misses")]


def _counted(wire: Wire, command: str) -> list[int]:
    wire.run([b"SELECT", b"0"], [b"FLUSHALL"], [b"MSET", b"k", b"v", b"i", b"1"])
    before = _counters(wire)
    wire.run(split_arguments(command.encode()))
    return [after - earlier for after, earlier in zip(_counters(wire), before, strict=True)]


@pytest.mark.parametrize("command", COMMANDS)
def test_hits_and_misses(pair: Pair, command: str) -> None:
    assert _counted(pair.ours, command) == _counted(pair.theirs, command)


# Seen in Valkey 9.1, where it takes seconds to see it.
NO_ACCESS = [
    "EXISTS k",
    "TYPE k",
    "TTL k",
    "PTTL k",
    "EXPIRETIME k",
    "OBJECT ENCODING k",
    "OBJECT IDLETIME k",
    "KEYS k",
]
ACCESS = [
    "GET k", "SET k v", "SET k v NX", "SET k v IFEQ x", "SETNX k v", "MSETNX k v", "GETEX k", "MGET k", "STRLEN k",
    "GETRANGE k 0 0", "APPEND k v", "SETRANGE k 0 v", "INCR k", "INCRBYFLOAT k 1", "LCS k k", "TOUCH k", "EXPIRE k 100",
    "EXPIRE k 100 XX", "PERSIST k", "RENAMENX k i", "COPY k i",
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "idle"), [*((command, 7) for command in NO_ACCESS), *((command, 0) for command in ACCESS)]
)
def test_accesses(command: str, idle: int) -> None:
    now = 1_000_000
    with kvserver.Server(port=0, clock=lambda: now) as server, Wire(server.port) as wire:
        wire.run([b"OBJECT", b"IDLETIME", b"k"], [b"MSET", b"k", b"v", b"i", b"1"], [b"OBJECT", b"IDLETIME", b"k"])
        wire.run([b"SET", b"k", b"v"])
        now += 7_000
        wire.run(split_arguments(command.encode()))
        assert wire.ask("OBJECT", "IDLETIME", "k") == b":%d\r\n" % idle
