"""Two commands in the worst order: the second begins in the middle of the first. Without the lock, each goes wrong.

A command is stopped at a chosen access to the data, until the rival has finished or waits for the lock. Nothing is left
to chance or to time: with the lock the rival must wait, without it the rival runs through, and the same oracle that
passes the one must fail the other. What may come out is what comes out of the two in one order or the other.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from threads.locks import NoIsolation, NoLock, WatchedLock, after_call

from kvserver import dispatch
from kvserver.config import Config
from kvserver.dispatch import execute
from kvserver.protocol.encoder import encoding
from kvserver.session import Session
from kvserver.state import State
from kvserver.store.memory import Database

pytestmark = pytest.mark.interpreted
PATIENCE = 60
NOW = 1_000_000_000_000
Words = list[bytes]
Outcome = tuple[bytes, bytes, object]
"""The reply to each command, and what the databases hold then."""


@dataclass(frozen=True)
class Collision:
    """``first`` is stopped after its n-th call of ``method``, of Database or of dispatch; there ``rival`` begins.

    ``;`` is between commands.
    """

    first: str
    method: str
    rival: str
    setup: str = ""
    call: int = 1

    @property
    def name(self) -> str:
        return f"{self.first} | {self.rival}"


COLLISIONS = [
    Collision("INCR n", "peek", "INCR n", "SET n 5"),
    Collision("INCRBY n 3", "peek", "DECRBY n 2", "SET n 5"),
    Collision("INCRBYFLOAT n 0.5", "peek", "INCR n", "SET n 5"),
    Collision("INCR n", "peek", "DEL n", "SET n 5"),
    Collision("INCR n", "peek", "SET n 100", "SET n 5"),
    Collision("SETNX k a", "peek", "SETNX k b"),
    Collision("SET k a NX", "peek", "SET k b NX"),
    Collision("SET k a XX", "peek", "DEL k", "SET k old"),
    Collision("SET k a IFEQ old", "peek", "SET k b IFEQ old", "SET k old"),
    Collision("SET k a GET", "get", "SET k b GET", "SET k old"),
    Collision("GETSET k a", "get", "GETSET k b", "SET k old"),
    Collision("GETDEL k", "get", "GETDEL k", "SET k v"),
    Collision("GETEX k PX 1000", "get", "SET k other", "SET k v"),
    Collision("SETEX k 1000 a", "put", "SET k b"),
    Collision("APPEND k ab", "peek", "APPEND k cd", "SET k 0"),
    Collision("SETRANGE k 1 xx", "peek", "SETRANGE k 3 yy", "SET k 0123456"),
    Collision("MSET a 1 b 1 c 1", "put", "MSET a 2 b 2 c 2"),
    Collision("MSET a 1 b 1", "put", "MGET a b"),
    Collision("MGET a b", "get", "MSET a 2 b 2", "MSET a 1 b 1"),
    Collision("MSETNX a 1 b 1", "peek", "MSETNX b 2 c 2", call=2),
    Collision("MSETNX a 1 b 1", "put", "EXISTS a b"),
    Collision("DEL a b", "remove", "EXISTS a b", "MSET a 1 b 1"),
    Collision("EXISTS a b", "peek", "RENAME b a", "SET b 1"),
    Collision("RENAME a b", "remove", "EXISTS a b", "SET a 1"),
    Collision("RENAME a b", "peek", "DEL a", "SET a 1"),
    Collision("RENAMENX a c", "peek", "RENAMENX b c", "MSET a 1 b 2", call=2),
    Collision("COPY a c", "peek", "SETNX c x", "MSET a 1"),
    Collision("MOVE a 1", "peek", "MOVE a 1", "SET a 1", call=2),
    Collision("PEXPIRE k 5000 NX", "deadline", "PEXPIRE k 9000 NX", "SET k v"),
    Collision("PEXPIRE k 5000", "peek", "DEL k", "SET k v"),
]

TRANSACTIONS = [
    Collision("MULTI;DECRBY a 1;INCRBY b 1;EXEC", "_run_queued", "MGET a b", "MSET a 5 b 5"),
    Collision("MULTI;SET a 1;SET b 1;EXEC", "_run_queued", "EXISTS a b"),
    Collision("MULTI;GET a;GET b;EXEC", "_run_queued", "MSET a 2 b 2", "MSET a 1 b 1"),
    Collision("MULTI;GET a;SET a 2;EXEC", "_run_queued", "SET a 3", "SET a 1"),
    Collision("MULTI;INCR a;INCR a;EXEC", "_run_queued", "INCR a", "SET a 1"),
    Collision("MULTI;INCR a;INCR b;EXEC", "_run_queued", "MULTI;INCR b;INCR a;EXEC", "MSET a 1 b 1"),
    Collision("MULTI;SET a 1;FLUSHALL;SET b 1;EXEC", "_run_queued", "EXISTS a"),
    Collision("MULTI;RENAME a b;RENAME b a;EXEC", "_run_queued", "EXISTS a", "SET a 1"),
]


class Bench:
    """A server's state without a server: two sessions whose commands the test runs."""

    def __init__(self, lock: WatchedLock) -> None:
        self.state = State(Config(), clock=lambda: NOW)
        self.lock = lock
        self.state.keyspace.lock = lock  # type: ignore[assignment]
        self.state.keyspace.held = lock.held

    def run(self, command: str) -> bytes:
        session = Session(self.state, self.state.clients.next_id(), "here", "there")
        return [encode(execute(session, words.encode().split())) for words in command.split(";")][-1]

    def contents(self) -> object:
        return [(sorted(db.values.items()), sorted(db.deadlines.items())) for db in self.state.keyspace.databases[:2]]


def encode(reply: Any) -> bytes:
    return bytes(encoding(2)[reply.__class__](reply))


def in_order(collision: Collision, *, rival_first: bool) -> Outcome:
    bench = Bench(WatchedLock())
    if collision.setup:
        bench.run(collision.setup)
    if rival_first:
        rival = bench.run(collision.rival)
        return bench.run(collision.first), rival, bench.contents()
    return bench.run(collision.first), bench.run(collision.rival), bench.contents()


def collide(collision: Collision, lock: WatchedLock, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """Run both, the rival from the middle of the first."""
    bench = Bench(lock)
    if collision.setup:
        bench.run(collision.setup)
    with ThreadPoolExecutor(2) as pool:
        rivals: list[Any] = []

        def meet() -> None:
            rivals.append(pool.submit(bench.run, collision.rival))
            rivals[0].add_done_callback(lambda _: lock.contended.set())
            assert lock.contended.wait(PATIENCE)

        owner = Database if hasattr(Database, collision.method) else dispatch
        with monkeypatch.context() as patch:
            patch.setattr(owner, collision.method, after_call(getattr(owner, collision.method), collision.call, meet))
            first = pool.submit(bench.run, collision.first)
            reply = first.result(PATIENCE)
            assert rivals, "the first command never came to the place"
            return reply, rivals[0].result(PATIENCE), bench.contents()


@pytest.mark.parametrize("collision", COLLISIONS + TRANSACTIONS, ids=lambda collision: collision.name)
def test_two_commands_come_out_as_one_after_the_other(collision: Collision, monkeypatch: pytest.MonkeyPatch) -> None:
    legitimate = [in_order(collision, rival_first=False), in_order(collision, rival_first=True)]
    assert collide(collision, WatchedLock(), monkeypatch) in legitimate


@pytest.mark.parametrize("collision", COLLISIONS, ids=lambda collision: collision.name)
def test_without_the_lock_they_do_not(collision: Collision, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes the test above worth having: take the lock away, and it fails."""
    legitimate = [in_order(collision, rival_first=False), in_order(collision, rival_first=True)]
    assert collide(collision, NoLock(), monkeypatch) not in legitimate


@pytest.mark.parametrize("collision", TRANSACTIONS, ids=lambda collision: collision.name)
def test_a_transaction_is_isolated_only_by_exec_holding_the_lock(
    collision: Collision, monkeypatch: pytest.MonkeyPatch
) -> None:
    legitimate = [in_order(collision, rival_first=False), in_order(collision, rival_first=True)]
    assert collide(collision, NoIsolation(), monkeypatch) not in legitimate


CHANGES: list[Callable[[Database], object]] = [
    lambda db: db.put(b"k", b"v"),
    lambda db: db.replace(b"k", b"v"),
    lambda db: db.remove(b"k"),
    lambda db: db.expire_at(b"k", NOW + 1),
    lambda db: db.persist(b"k"),
    lambda db: db.flush(),
    lambda db: db.keyspace.swap(0, 1),
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_a_change_without_the_lock_is_a_defect_that_shows(number: int) -> None:
    database = State(Config(), clock=lambda: NOW).keyspace.databases[0]
    with pytest.raises(AssertionError):
        CHANGES[number](database)
    with database.keyspace.lock:
        CHANGES[number](database)


def test_no_error_leaves_the_lock_held(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(WatchedLock())

    def fail(error: type[Exception]) -> Callable[..., Any]:
        def method(*_: Any) -> Any:
            raise error

        return method

    for error in (MemoryError, KeyError, RuntimeError):
        with monkeypatch.context() as patch:
            patch.setattr(Database, "get", fail(error))
            assert bench.run("STRLEN k").startswith(b"-")
        assert not bench.lock.held()
    assert bench.run("INCR k x").startswith(b"-ERR wrong number")
    assert bench.run("GETRANGE k a b").startswith(b"-ERR value is not an integer")
    assert not bench.lock.held()
    assert bench.run("SET k v") == b"+OK\r\n"
