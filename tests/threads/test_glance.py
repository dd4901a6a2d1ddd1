"""GET takes no lock: it must be as if it did. Whoever changes several keys, or one in several steps, keeps it away."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from conformance.generators import commands as generated
from conformance.generators import render
from hypothesis import given, settings
from hypothesis import strategies as st
from threads.locks import WatchedLock, after_call
from threads.racing import PATIENCE, race

import kvclient
import kvserver
from kvserver import dispatch
from kvserver.commands.registry import COMMANDS, Flags, every
from kvserver.config import Config
from kvserver.dispatch import execute
from kvserver.session import Session
from kvserver.state import State
from kvserver.store.glance import BUSY, Steps, glance
from kvserver.store.memory import Database

NOW = 1_000_000_000_000


class Bench:
    """A server's state without a server."""

    def __init__(self, **settings: Any) -> None:
        self.now = NOW
        self.state = State(Config(**settings), clock=lambda: self.now)
        self.keyspace = self.state.keyspace
        self.lock = WatchedLock()
        self.keyspace.lock = self.lock  # type: ignore[assignment]
        self.keyspace.held = self.lock.held

    def session(self) -> Session:
        return Session(self.state, self.state.clients.next_id(), "here", "there")

    def run(self, commands: str, session: Session | None = None) -> list[Any]:
        session = session or self.session()
        return [execute(session, words.encode().split()) for words in commands.split(";")]

    def glance(self, key: bytes, index: int = 0) -> object:
        return glance(self.keyspace, index, key)


# When the lock is needed


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.run("SET k v;SET soon v PX 1000")
    return bench


def test_a_value_is_seen_without_the_lock(bench: Bench) -> None:
    with ThreadPoolExecutor(1) as pool, bench.lock:
        for key, value in [("k", b"v"), ("soon", b"v"), ("none", None)]:
            assert pool.submit(bench.run, f"GET {key}").result(PATIENCE) == [value]
        other = pool.submit(bench.run, "STRLEN k")
        assert bench.lock.contended.wait(PATIENCE), "only GET"
        assert not other.done()
        bench.run("PING")
    assert other.exception() is None


def test_a_key_that_is_due_needs_the_lock(bench: Bench) -> None:
    bench.now += 999
    assert bench.glance(b"soon") == b"v"
    bench.now += 1
    assert bench.glance(b"soon") is BUSY
    assert bench.run("GET soon") == [None]
    assert bench.keyspace.expired == 1
    assert bench.glance(b"soon") is None


@pytest.mark.parametrize(
    "how",
    [
        "CONFIG SET maxmemory 1gb",
        "OBJECT IDLETIME k",
        "CONFIG SET notify-keyspace-events KEm",
        "CLIENT TRACKING ON BCAST",
    ],
)
def test_who_wants_to_know_of_reads_is_told(bench: Bench, how: str) -> None:
    session = bench.session()
    session.speak(3)
    assert bench.glance(b"k") == b"v"
    bench.run(how, session)
    assert bench.glance(b"k") is BUSY
    assert bench.run("GET k") == [b"v"]
    bench.state.retire(session)


def test_with_a_journal_the_lock_is_taken(tmp_path: Any) -> None:
    """Otherwise a reply might tell of a change whose batch has no number yet."""
    with kvserver.Server(port=0, data_dir=str(tmp_path)) as server, kvclient.connect(server.url) as client:
        client.set("k", "v")
        assert glance(server._state.keyspace, 0, b"k") is BUSY
        assert client.get("k") == b"v"


def test_it_is_counted_all_the_same(server: kvserver.Server) -> None:
    def counted(client: kvclient.Client) -> tuple[int, int]:
        info = client.info("stats")
        return int(info["keyspace_hits"]), int(info["keyspace_misses"])

    with kvclient.connect(server.url) as client:
        client.set("k", "v")
        for key in ("k", "k", "none"):
            client.get(key)
        assert client.mget("k", "none") == [b"v", None]
        assert counted(client) == (3, 2)
        assert "calls=3" in client.info("commandstats")["cmdstat_get"]
        client.execute("CONFIG", "RESETSTAT")
        assert counted(client) == (0, 0)
        client.get("k")
    with kvclient.connect(server.url) as client:
        assert counted(client) == (1, 0)


# That nobody sees half of a change

HALVES: dict[str, tuple[str, str, str, str]] = {
    # what there is, the change, where it is stopped, what a client reads one after the other then
    "MSET": ("MSET a 1 b 1", "MSET a 2 b 2", "put", "GET a;GET b"),
    "RENAME": ("MSET a 1;DEL b", "RENAME a b", "remove", "GET a;GET b"),
    "DEL": ("MSET a 1 b 1", "DEL a b", "remove", "GET a;GET b"),
    "FLUSHALL and SET": ("MSET a 1 b 1", "MULTI;FLUSHALL;SET a 2;EXEC", "_run_queued", "GET a"),
    "EXEC": ("MSET a 1 b 1", "MULTI;SET a 2;SET b 2;EXEC", "_run_queued", "GET a;GET b"),
    "MSETNX": ("DEL a b", "MSETNX a 1 b 1", "put", "GET a;GET b"),
}


def meet(case: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[Any], list[Any]]:
    """What the reader saw in the middle of the change; and before and after it."""
    setup, change, method, reads = HALVES[case]
    bench = Bench()
    bench.run(setup)
    before = bench.run(reads)
    with ThreadPoolExecutor(1) as pool:
        readers: list[Future[list[Any]]] = []

        def read() -> None:
            readers.append(pool.submit(bench.run, reads))
            readers[0].add_done_callback(lambda _: bench.lock.contended.set())
            assert bench.lock.contended.wait(PATIENCE)

        owner = Database if hasattr(Database, method) else dispatch
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, after_call(getattr(owner, method), 1, read))
            bench.run(change)
        assert readers, "the change never came to the place"
        return readers[0].result(PATIENCE), before, bench.run(reads)


@pytest.mark.interpreted
@pytest.mark.parametrize("case", HALVES)
def test_a_change_is_seen_whole(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, before, after = meet(case, monkeypatch)
    assert seen in (before, after)


@pytest.mark.interpreted
@pytest.mark.parametrize("case", HALVES)
def test_the_steps_are_what_keeps_readers_away(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Steps, "__enter__", lambda _: None)
    monkeypatch.setattr(Steps, "__exit__", lambda *_: None)
    seen, before, after = meet(case, monkeypatch)
    assert seen not in (before, after)


def test_a_block_of_the_embedding_program_is_seen_whole() -> None:
    with kvserver.Server(port=0) as server, ThreadPoolExecutor(1) as pool, kvclient.connect(server.url) as client:
        own = server.direct
        with own.atomic():
            own("SET", "a", "1")
            seen = pool.submit(client.get, "a")
            assert glance(server._state.keyspace, 0, b"a") is BUSY
            own("SET", "a", "2")
        assert seen.result(PATIENCE) == b"2"


@pytest.mark.interpreted
def test_a_change_between_two_looks_is_noticed(bench: Bench) -> None:
    """The reader has looked at the steps, then a whole change is made, then it reads."""

    class Values(dict[bytes, bytes]):
        def get(self, key: bytes, default: Any = None) -> Any:
            if threading.current_thread() is reader and not changed:
                changed.append(pool.submit(bench.run, "MSET k new other new").result(PATIENCE))
            return super().get(key, default)

    changed: list[Any] = []
    reader = threading.current_thread()
    database = bench.keyspace.databases[0]
    database.values = Values(database.values)
    with ThreadPoolExecutor(1) as pool:
        assert bench.glance(b"k") is BUSY
        assert changed


class Counted(dict[bytes, bytes]):
    """Values that count how often one of them changed while readers were not kept away."""

    def __init__(self, steps: Steps, values: dict[bytes, bytes]) -> None:
        super().__init__(values)
        self.steps = steps
        self.changes = 0

    def _note(self) -> None:
        self.changes += not self.steps.number & 1

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._note()
        super().__setitem__(key, value)

    def pop(self, *args: Any) -> Any:
        self._note()
        return super().pop(*args)

    def __delitem__(self, key: bytes) -> None:
        self._note()
        super().__delitem__(key)


@settings(max_examples=150)
@given(st.lists(generated, min_size=1, max_size=12))
def test_any_command_changes_one_value_or_keeps_readers_away(batch: list[Any]) -> None:
    """By whatever the generators of the conformance tests bring."""
    bench = Bench()
    session = bench.session()
    database = bench.keyspace.databases[0]
    for words in render(batch):
        before = Counted(bench.keyspace.steps, bench.keyspace.databases[0].values)
        database = bench.keyspace.databases[0]
        database.values = before
        even = bench.keyspace.steps.number
        execute(session, words)
        assert before.changes <= 1, words
        assert bench.keyspace.steps.number % 2 == 0
        if bench.keyspace.databases[0].values is not before:
            assert bench.keyspace.steps.number > even, words
    bench.state.retire(session)


def test_only_what_sets_one_value_is_one_step() -> None:
    """A list to be extended with care; what is not on it is always right."""
    names = {each.name for each in every() if each.one_step}
    assert names == {"set", "setnx", "incr", "decr", "incrby", "decrby"}
    assert [each.name for each in every() if each.glances] == ["get"]
    assert all(Flags.WRITE in each.flags for each in COMMANDS.values() if each.one_step)


def test_a_sum_over_two_keys_never_shrinks(server: kvserver.Server) -> None:
    """Key by key, from the giver to the taker: without order a transfer would be seen from its wrong end."""
    done = threading.Event()

    def write(client: kvclient.Client, _: int) -> None:
        for number in range(1, 400):
            client.mset({"first": str(number), "second": str(number)})
        done.set()

    def read(client: kvclient.Client, _: int) -> None:
        while not done.is_set():
            first = int(client.get("first") or 0)
            second = int(client.get("second") or 0)
            assert second >= first

    race(server.url, write, read, read)
