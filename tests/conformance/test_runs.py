"""A pipeline, whose commands are run several at a time, does what the same commands do one by one."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from conformance.oracle import Wire, parse
from conformance.test_counting import COMMANDS
from hypothesis import example, given
from hypothesis import strategies as st

import kvserver
from kvserver.commands.registry import every
from kvserver.protocol.inline import split_arguments

OTHERS = [
    "MULTI", "EXEC", "DISCARD", "SELECT 0", "SELECT 1", "PING", "NOSUCH", "GET", "GET k k", "SET k", "INCR big",
    "set K v", "gEt K", "SET big 9223372036854775807", "SET number 10", "INCR number", "DECRBY number 3", "GET long",
    "GET longer", "FLUSHDB", "WATCH k", "HELLO 3", "HELLO 2",
]  # fmt: skip
LONG = b"SETRANGE long 600 x\r\nSETRANGE longer 20000 x\r\n"
commands = st.lists(st.sampled_from([*COMMANDS, *OTHERS, "SET k v", "GET k", "INCR i"]), max_size=80)


def stand(wire: Wire) -> object:
    """What the commands have left behind, and what was counted."""
    stats = wire.ask("INFO", "commandstats").replace(b"\r\n", b"\n")
    calls = re.findall(rb"^(\w+):calls=(\d+),.*rejected_calls=(\d+),failed_calls=(\d+)", stats, re.MULTILINE)
    hits = re.findall(rb"keyspace_\w+:\d+", wire.ask("INFO", "stats"))
    wire.run([b"DISCARD"], [b"HELLO", b"2"])
    keys = []
    for database in (b"0", b"1", b"3"):
        _, found = wire.run([b"SELECT", database], [b"KEYS", b"*"])
        keys += [(database, key, wire.ask("GET", key)) for key in sorted(parse(found))]  # type: ignore[type-var]
    return calls, hits, keys


def steady(reply: bytes) -> bytes:
    """A reply without what is never the same twice: the connection's number, and times that pass."""
    return re.sub(rb"(id\r\n):\d+|^:9\d{4}\r\n|^:\d{10,}\r\n", rb"\1:n\r\n", reply)


@given(commands)
@example(["GET k", "GET k k", "GET k", "SET k v", "SET k", "SET k v NX", "GET k k", "INCR big", "INCR i", "GET i"])
def test_replies_counters_and_data(texts: list[str]) -> None:
    wanted = [split_arguments(text.encode()) for text in texts if text not in ("RANDOMKEY", "KEYS *", "SCAN 0")]
    with (
        kvserver.Server(port=0) as one,
        kvserver.Server(port=0) as two,
        Wire(one.port) as first,
        Wire(two.port) as second,
    ):
        for wire in (first, second):
            wire.send(LONG)
            wire.read(), wire.read()
        together = first.run(*wanted)
        apart = [second.run(words)[0] for words in wanted]
        assert [*map(steady, together)] == [*map(steady, apart)]
        assert stand(first) == stand(second)


def test_which_commands_are_brief() -> None:
    """Each works on the keys it is given, in a time that does not depend on what they hold, and needs no more."""
    assert {command.name for command in every() if command.brief} == {
        "copy", "decr", "decrby", "delex", "delifeq", "expire", "expireat", "expiretime", "get", "getbit", "getdel",
        "getex", "getset", "incr", "incrby", "incrbyfloat", "increx", "kv.getl", "kv.setl", "move", "persist",
        "pexpire", "pexpireat", "pexpiretime", "psetex", "pttl", "rename", "renamenx", "set", "setex", "setnx",
        "strlen", "ttl", "type",
    }  # fmt: skip


def test_replies_may_be_turned_off_in_between(server: kvserver.Server) -> None:
    with Wire(server.port) as wire:
        wire.send(
            b"INCR n\r\nINCR n\r\nCLIENT REPLY OFF\r\nINCR n\r\nINCR n\r\nINCR n\r\nCLIENT REPLY ON\r\nINCR n\r\n"
        )
        assert [wire.read() for _ in range(4)] == [b":1\r\n", b":2\r\n", b"+OK\r\n", b":6\r\n"]


def test_the_journal_gets_a_run_as_one(tmp_path: Path) -> None:
    with kvserver.Server(port=0, data_dir=str(tmp_path)) as server, Wire(server.port) as wire:
        journal = server._state.persistence.journal  # type: ignore[union-attr]
        before = journal.appended
        wire.run(*[[b"INCR", b"n"]] * 200)
        assert journal.appended - before < 20  # 200, if each were written by itself; how they arrive is the system's
    with kvserver.Server(port=0, data_dir=str(tmp_path)) as server, Wire(server.port) as wire:
        assert wire.ask("GET", "n") == b"$3\r\n200\r\n"


def test_the_slow_log_has_each() -> None:
    words = [[b"SET", b"k", b"%d" % number] for number in range(20)]
    with kvserver.Server(port=0, slowlog_log_slower_than=0) as server, Wire(server.port) as wire:
        wire.run(*words)
        entries = parse(wire.ask("SLOWLOG", "GET", -1))
    assert isinstance(entries, list)
    assert [entry[3] for entry in entries if entry[3][0] == b"SET"] == words[::-1]


@pytest.mark.parametrize("size", [100, 600, 700, 20_000])
@pytest.mark.parametrize("limit", [50, 650, 30_000])
def test_the_log_of_large_replies_has_each(size: int, limit: int) -> None:
    with kvserver.Server(port=0, commandlog_reply_larger_than=limit) as server, Wire(server.port) as wire:
        wire.ask("SETRANGE", "k", size - 1, "x")
        wire.run(*[[b"GET", b"k"]] * 7)
        entries = parse(wire.ask("COMMANDLOG", "GET", -1, "large-reply"))
        framed = size + len(b"$%d\r\n\r\n" % size)
        assert isinstance(entries, list)
        assert [entry[2] for entry in entries] == ([framed] * 7 if framed > limit else [])


def test_a_pipeline_longer_than_what_is_read_at_a_time(server: kvserver.Server) -> None:
    chance = random.Random(5)
    words = [[b"SET", b"k%d" % chance.randrange(50), b"v" * chance.randrange(3000)] for _ in range(500)]
    asked = [each for word in words for each in (word, [b"GET", word[1]])]
    with Wire(server.port) as wire:
        replies = wire.run(*asked)
    assert replies[::2] == [b"+OK\r\n"] * 500
    assert replies[1::2] == [b"$%d\r\n%b\r\n" % (len(value), value) for _, _, value in words]
