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
from kvserver import dispatch, runs
from kvserver.commands.arguments import as_integer
from kvserver.commands.registry import DIRECT, every
from kvserver.protocol.decoder import Decoder
from kvserver.protocol.inline import split_arguments
from kvserver.protocol.replies import Error
from kvserver.runs import execute_run
from kvserver.session import Session
from kvserver.store.values import Edited

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
    """Each gets the database, and replies with what is never more than a value."""
    found = [command for command in every() if command.brief]
    assert {command.name for command in found} == {
        "decr", "decrby", "expire", "expireat", "expiretime", "get", "getdel", "getex", "getset", "incr", "incrby",
        "persist", "pexpire", "pexpireat", "pexpiretime", "psetex", "pttl", "set", "setex", "setnx", "strlen", "ttl",
        "type",
    }  # fmt: skip
    assert all(command.on_database and command.words == 1 for command in found)


def test_replies_may_be_turned_off_in_between(server: kvserver.Server) -> None:
    with Wire(server.port) as wire:
        wire.send(
            b"INCR n\r\nINCR n\r\nCLIENT REPLY OFF\r\nINCR n\r\nINCR n\r\nINCR n\r\nCLIENT REPLY ON\r\nINCR n\r\n"
        )
        assert [wire.read() for _ in range(4)] == [b":1\r\n", b":2\r\n", b"+OK\r\n", b":6\r\n"]


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that do not end because the machine is busy."""
    monkeypatch.setattr(runs, "_LONGEST", 10**15)


@pytest.mark.usefixtures("unhurried")
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
@pytest.mark.parametrize("limit", [50, 650, 5000, 30_000])
@pytest.mark.parametrize("make", ["SET", "SETRANGE"])
def test_the_log_of_large_replies_has_each(size: int, limit: int, make: str) -> None:
    with kvserver.Server(port=0, commandlog_reply_larger_than=limit) as server, Wire(server.port) as wire:
        wire.run([b"SET", b"k", b"x" * size] if make == "SET" else [b"SETRANGE", b"k", b"%d" % (size - 1), b"x"])
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


# What is not to be done together


@pytest.fixture
def session(server: kvserver.Server) -> Session:
    """One that is not a connection's."""
    state = server._state
    return Session(state, state.clients.next_id(), "127.0.0.1:1", "127.0.0.1:2")


def run(session: Session, *commands: bytes) -> list[int]:
    """How many commands each run had."""
    words, following = [], iter([each.split() for each in commands])
    lengths = []
    words = next(following, None)
    while words is not None:
        found = execute_run(session, words, following)
        lengths.append(0 if found is None else len(found.replies))
        words = next(following, None) if found is None else found.next
    return lengths


@pytest.mark.usefixtures("unhurried")
def test_a_run_ends(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    database = session.database
    with session.keyspace.lock:
        database.put(b"plain", b"x" * 600)
        database.put(b"edited", Edited(b"x" * 600))
        database.put(b"short", b"x" * 500)
    assert run(session, *[b"GET short"] * 100) == [64, 36]
    assert run(session, *[b"GET plain"] * 3) == [1, 1, 1]
    assert run(session, *[b"GET edited"] * 3) == [1, 1, 1]
    assert run(session, b"SET a 1", b"GET a", b"PING", b"GET a", b"GET") == [2, 0, 1, 0]
    monkeypatch.setattr(runs, "_LONGEST", -(10**15))  # it has lasted long enough already
    assert run(session, *[b"GET short"] * 3) == [1, 1, 1]


def test_whoever_has_been_ended_runs_no_more(session: Session) -> None:
    session.drop()
    assert run(session, b"SET a 1", b"SET a 2") == [0, 0]
    assert session.database.values == {}


@pytest.mark.usefixtures("unhurried")
def test_the_slow_log_names_the_slow_one(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    now = session.since

    def clock() -> int:
        nonlocal now
        now += (
            50_000_000
            if session.database.values.get(b"slow") == b"1" and b"later" not in session.database.values
            else 1
        )
        return now

    monkeypatch.setattr(runs, "monotonic_ns", clock)
    assert run(session, b"SET a 1", b"SET a 2", b"SET slow 1", b"SET later 1", b"SET a 3") == [5]
    entries = session.state.slow_commands.newest(10)
    assert [entry.words for entry in entries] == [[b"SET", b"slow", b"1"]]


@pytest.mark.interpreted
def test_a_defect_is_logged_without_the_lock(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    monkeypatch.setattr(dispatch, "_report", lambda *_: held.append(session.keyspace.held()))

    def defective(_database: object, key: bytes) -> bytes:
        if key == b"bad":
            raise ZeroDivisionError
        return key

    monkeypatch.setattr(DIRECT[b"GET"], "handler", defective)
    words = [[b"GET", key] for key in (b"a", b"bad", b"c")]
    found = execute_run(session, words[0], following := iter(words[1:]))
    assert found is not None
    assert [reply if isinstance(reply, bytes) else type(reply) for reply in found.replies] == [b"a", Error]
    assert found.next == words[2]
    assert held == [False]
    assert list(following) == []


def test_changes_that_cannot_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kvserver.Server(port=0, data_dir=str(tmp_path)) as server, Wire(server.port) as wire:
        wire.ask("PING")
        lock = server._state.keyspace._recording
        assert lock is not None
        commit = lock.commit
        assert commit is not None

        def fails_once() -> object:
            lock.commit = commit
            raise MemoryError

        lock.commit = fails_once
        assert {reply[:4] for reply in wire.run(*[[b"INCR", b"n"]] * 5)} == {b"-OOM"}
        assert wire.ask("INCR", "n") == b":6\r\n"


def test_whoever_queues_needs_no_lock(server: kvserver.Server) -> None:
    with Wire(server.port) as wire:
        wire.ask("MULTI")
        with server._state.keyspace.lock:
            assert wire.run(*[[b"SET", b"a", b"1"]] * 8) == [b"+QUEUED\r\n"] * 8
        wire.ask("EXEC")


def test_a_push_comes_behind_the_reply_to_what_has_caused_it(server: kvserver.Server) -> None:
    with Wire(server.port) as one, Wire(server.port) as other:
        one.run([b"HELLO", b"3"], [b"SUBSCRIBE", b"c"], [b"UNSUBSCRIBE", b"c"])
        number = parse(one.ask("CLIENT", "ID"))
        other.run([b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", b"%d" % number], [b"GET", b"k"])  # type: ignore[str-bytes-safe]
        one.send(b"INCR x\r\nINCR x\r\nGET k\r\nSET k 1\r\nINCR x\r\nINCR x\r\n")
        replies = [one.read() for _ in range(7)]
    assert replies[:4] == [b":1\r\n", b":2\r\n", b"_\r\n", b"+OK\r\n"]
    assert replies[4].startswith(b">2\r\n$10\r\ninvalidate")


@pytest.mark.parametrize("last", [b"*x\r\n", b"SET k 1\r\n" * 8, b'GET "\r\n'])
@pytest.mark.parametrize("quit_by", [b"QUIT\r\n", b"*1\r\n$4\r\nQUIT\r\n"])
def test_nothing_is_looked_at_after_the_end(server: kvserver.Server, quit_by: bytes, last: bytes) -> None:
    with Wire(server.port) as wire:
        assert wire.ends(b"*1\r\n$4\r\nPING\r\n" + quit_by + last) == b"+PONG\r\n+OK\r\n"
        assert server._state.stats.errors == {}
        assert server._state.keyspace.databases[0].values == {}


def test_a_long_number_is_not_read_to_its_end() -> None:
    class Spy(bytes):
        def isdigit(self) -> bool:
            raise AssertionError

    assert as_integer(Spy(b"1" * 30)) is None


def test_many_inline_commands_are_decoded_one_by_one() -> None:
    commands = Decoder().feed(b"A\n" * 30_000)
    assert not isinstance(commands, list)
    assert sum(1 for _ in commands) == 30_000
