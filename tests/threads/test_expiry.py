"""Active expiry: what is due goes, nothing else does, and nobody is held up. The clock is the tests' own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import kvclient
import kvserver
from kvserver import expirer
from kvserver.config import Config
from kvserver.expirer import Expirer
from kvserver.state import State
from kvserver.store import expiry
from kvserver.store.memory import Database

PATIENCE = 60
START = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


KEYS = st.sampled_from([b"a", b"b"])
NUMBERS = st.integers(0, 1)


class Expiring(RuleBasedStateMachine):
    """The thread's rounds are run by hand, between commands of every kind that move deadlines."""

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.enough = expiry._WAKE_AFTER
        expiry._WAKE_AFTER = 4  # stale entries are dropped once there are so many: often
        self.state = State(Config(databases=2), self.clock)
        self.keyspace = self.state.keyspace
        self.expirer = Expirer(self.state)
        self.model: list[dict[bytes, int | None]] = [{}, {}]  # what exists, and until when

    def teardown(self) -> None:
        expiry._WAKE_AFTER = self.enough

    def live(self, number: int) -> dict[bytes, int | None]:
        model = self.model[number]
        for key in [key for key, deadline in model.items() if deadline is not None and deadline <= self.clock.now]:
            del model[key]
        return model

    def change(self, number: int, work: Callable[[Database], object]) -> None:
        with self.keyspace.lock:
            self.keyspace.moment = None
            work(self.keyspace.databases[number])

    @rule(number=NUMBERS, key=KEYS)
    def set(self, number: int, key: bytes) -> None:
        self.change(number, lambda db: db.put(key, b"v"))
        self.live(number)[key] = None

    @rule(number=NUMBERS, key=KEYS, milliseconds=st.integers(1, 50))
    def expire(self, number: int, key: bytes, milliseconds: int) -> None:
        if key in self.live(number):
            deadline = self.clock.now + milliseconds
            self.change(number, lambda db: db.peek(key) is not None and db.expire_at(key, deadline))
            self.model[number][key] = deadline

    @rule(number=NUMBERS, key=KEYS, milliseconds=st.integers(1, 50))
    def postpone(self, number: int, key: bytes, milliseconds: int) -> None:
        if deadline := self.live(number).get(key):
            self.change(number, lambda db: db.peek(key) is not None and db.expire_at(key, deadline + milliseconds))
            self.model[number][key] = deadline + milliseconds

    @rule(number=NUMBERS, key=KEYS)
    def persist(self, number: int, key: bytes) -> None:
        if key in self.live(number):
            self.change(number, lambda db: db.peek(key) is not None and db.persist(key))
            self.model[number][key] = None

    @rule(number=NUMBERS, key=KEYS)
    def delete(self, number: int, key: bytes) -> None:
        self.change(number, lambda db: db.remove(key))
        self.live(number).pop(key, None)

    @rule(number=NUMBERS)
    def flush(self, number: int) -> None:
        self.change(number, lambda db: db.flush())
        self.model[number] = {}

    @rule(first=NUMBERS, second=NUMBERS)
    def swap(self, first: int, second: int) -> None:
        with self.keyspace.lock:
            self.keyspace.swap(first, second)
        self.model[first], self.model[second] = self.model[second], self.model[first]

    @rule(milliseconds=st.integers(-20, 60))
    def time_passes_or_steps_back(self, milliseconds: int) -> None:
        for number in range(2):
            self.live(number)
        # What has expired but was not looked at comes back with the clock, as it would in Redis; so look at it.
        self.round_of_the_thread()
        self.clock.now += milliseconds

    @rule()
    def round_of_the_thread(self) -> None:
        self.expirer._queue.collect()
        while self.expirer._expire_batch():
            pass
        self.expirer._tidy()
        self.expirer._queue.arm()
        for number, db in enumerate(self.keyspace.databases):
            assert set(db.values) == set(self.live(number)), "what is due is gone, and nothing else"

    @invariant()
    def deadlines_are_those_set(self) -> None:
        for number, db in enumerate(self.keyspace.databases):
            wanted = {key: deadline for key, deadline in self.live(number).items() if deadline is not None}
            assert {key: db.deadlines[key] for key in wanted} == wanted

    @invariant()
    def the_thread_would_wake_in_time(self) -> None:
        """Every deadline has an entry that is not later, in the heap or on its way there."""
        queue = self.expirer._queue
        entries = [*queue._heap, *queue._incoming]
        for db in self.keyspace.databases:
            for key, deadline in db.deadlines.items():
                assert any(at <= deadline and where is db and of == key for at, _, where, of in entries)
                assert deadline >= queue._wakes_at or queue.wake.is_set()


test_expiring = Expiring.TestCase
test_expiring.settings = settings(max_examples=200)


@contextmanager
def running(state: State) -> Iterator[Expirer]:
    started = Expirer(state)
    started.start()
    try:
        yield started
    finally:
        state.stopping.set()
        started.stop()
        assert not started._thread.is_alive()


class Gone:
    """Tells when the expiry thread has removed so many keys: the keyspace's listener."""

    def __init__(self, state: State, count: int) -> None:
        self.left = count
        self.event = threading.Event()
        state.keyspace.listener = self

    def changed(self, database: Database, key: bytes, event: str | None) -> None:
        if event == "expired":
            self.left -= 1
            if not self.left:
                self.event.set()

    def announced(self, database: Database, key: bytes, event: str) -> None:
        pass

    def flushed(self, databases: Sequence[Database]) -> None:
        pass

    def swapped(self, first: Database, second: Database) -> None:
        pass


def test_the_thread_removes_what_is_due_by_itself() -> None:
    clock = Clock()
    state = State(Config(), clock)
    gone = Gone(state, 5000)
    with running(state):
        with state.keyspace.lock:
            db = state.keyspace.databases[0]
            for number in range(5000):
                db.put(b"%d" % number, b"v")
                db.expire_at(b"%d" % number, START + 5)
            db.put(b"stays", b"v")
        clock.now += 5
        state.keyspace.expiry.wake.set()  # the real clock would have ended the wait
        assert gone.event.wait(PATIENCE)
    assert list(db.values) == [b"stays"]
    assert not db.deadlines


def test_a_deadline_before_all_others_wakes_the_thread() -> None:
    """By the real clock: the thread sleeps until the far deadline, and a near one ends that."""
    state = State(Config())
    gone = Gone(state, 1)
    with running(state):
        for key, milliseconds in ((b"far", 10**7), (b"near", 20)):
            with state.keyspace.lock:
                state.keyspace.moment = None
                db = state.keyspace.databases[0]
                db.put(key, b"v")
                db.expire_at(key, state.clock() + milliseconds)
        assert gone.event.wait(PATIENCE)
        assert list(db.values) == [b"far"]


def test_the_lock_is_held_for_a_batch_at_a_time() -> None:
    clock = Clock()
    state = State(Config(), clock)
    with state.keyspace.lock:
        db = state.keyspace.databases[0]
        for number in range(1000):
            db.put(b"%d" % number, b"v")
            db.expire_at(b"%d" % number, START + 1)
    clock.now += 1
    once = Expirer(state)
    once._queue.collect()
    rounds = 0
    while db.values:
        before = len(db.values)
        assert once._expire_batch()
        assert before - len(db.values) <= expirer._BATCH
        rounds += 1
    assert rounds == -(-1000 // expirer._BATCH)


def test_clients_have_their_turn_between_two_batches() -> None:
    """The lock is not fair: who gives it up and asks again at once would get it again, before those who wait."""
    clock = Clock()
    state = State(Config(), clock)
    left: list[int] = []

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            assert timeout > 0
            with ThreadPoolExecutor(1) as pool:  # it needs the lock, which is free then
                left.append(pool.submit(count).result(PATIENCE))
            return super().wait(timeout)

    def count() -> int:
        with state.keyspace.lock:
            return len(state.keyspace.databases[0].values)

    state.stopping = Stopping()
    with state.keyspace.lock:
        db = state.keyspace.databases[0]
        for number in range(1000):
            db.put(b"%d" % number, b"v")
            db.expire_at(b"%d" % number, START + 1)
    gone = Gone(state, 1000)
    with running(state):
        clock.now += 1
        state.keyspace.expiry.wake.set()
        assert gone.event.wait(PATIENCE)
    assert left == [*range(1000 - expirer._BATCH, 0, -expirer._BATCH), 0]


def test_the_queue_does_not_grow_with_every_expire_of_the_same_key() -> None:
    state = State(Config(), Clock())
    once = Expirer(state)
    with state.keyspace.lock:
        db = state.keyspace.databases[0]
        db.put(b"k", b"v")
    for number in range(20_000):
        with state.keyspace.lock:
            db.expire_at(b"k", START + 10**6 - number)  # ever earlier, so each is a new entry
        if number % 1000 == 999:
            once._queue.collect()
            once._tidy()
            assert len(once._queue._heap) < 5000
    with state.keyspace.lock:
        for number in range(20_000):
            db.expire_at(b"k", START + 10**7 + number)  # ever later: none is new
    assert not once._queue._incoming


@pytest.mark.parametrize("step", [-(10**9), 10**9])
def test_the_clock_is_set(step: int) -> None:
    clock = Clock()
    state = State(Config(), clock)
    gone = Gone(state, 1)
    with running(state):
        with state.keyspace.lock:
            db = state.keyspace.databases[0]
            db.put(b"k", b"v")
            db.expire_at(b"k", START + 1000)
        clock.now += step
        state.keyspace.expiry.wake.set()
        if step > 0:
            assert gone.event.wait(PATIENCE)
        else:
            clock.now = START + 1000
            state.keyspace.expiry.wake.set()
            assert gone.event.wait(PATIENCE)


@pytest.mark.parametrize("flush", ["database", "keyspace"])
def test_a_flush_takes_the_entries_along(flush: str) -> None:
    """Nothing else would wake the thread before the deadlines of keys that have long been gone."""
    state = State(Config(), Clock())
    once = Expirer(state)
    with state.keyspace.lock:
        db = state.keyspace.databases[0]
        for number in range(5000):
            db.put(b"%d" % number, b"v")
            db.expire_at(b"%d" % number, START + 10**9)
    once._queue.collect()
    once._queue.arm()
    assert not once._queue.wake.is_set()
    with state.keyspace.lock:
        db.flush() if flush == "database" else state.keyspace.flush()
    assert once._queue.wake.is_set()
    once._tidy()
    assert not once._queue._heap


@pytest.mark.parametrize("lose", ["persist", "put", "remove"])
def test_entries_of_lost_deadlines_are_dropped(lose: str) -> None:
    """Each new deadline of a key that had none is an entry; those before it are stale."""
    state = State(Config(), Clock())
    once = Expirer(state)
    db = state.keyspace.databases[0]
    for number in range(20_000):
        with state.keyspace.lock:
            db.put(b"k", b"v")
            db.expire_at(b"k", START + 10**6)
            if lose != "put":
                getattr(db, lose)(b"k")
        if number % 1000 == 999:
            once._queue.collect()
            once._tidy()
            assert len(once._queue._heap) < 5000


def test_many_deadlines_wake_the_thread_however_far_they_are() -> None:
    """So what waits to be sorted is bounded, too, and stale entries are dropped."""
    state = State(Config(), Clock())
    once = Expirer(state)
    db = state.keyspace.databases[0]
    with state.keyspace.lock:
        db.put(b"k", b"v")
        db.expire_at(b"k", START + 1)
    once._queue.collect()
    once._queue.arm()
    for _ in range(5000):
        if once._queue.wake.is_set():
            break
        with state.keyspace.lock:
            db.put(b"j", b"v")
            db.expire_at(b"j", START + 10**9)
    assert once._queue.wake.is_set()


def test_a_pause_expires_nothing_and_ends() -> None:
    clock = Clock()
    state = State(Config(), clock)
    gone = Gone(state, 1)
    state.active_expiry.clear()
    db = state.keyspace.databases[0]
    with state.keyspace.lock:
        db.put(b"k", b"v")
        db.expire_at(b"k", START + 5)
    clock.now += 5
    once = Expirer(state)
    waited = _tell_of_waits(once)
    once.start()
    try:
        for _ in range(3):
            assert waited.wait(PATIENCE)  # it has been round, and found the key due
            waited.clear()
            assert b"k" in db.values
            once._queue.wake.set()
        state.active_expiry.set()
        once._queue.wake.set()
        assert gone.event.wait(PATIENCE)
    finally:
        _end(once, state)


def test_a_client_ends_the_pause() -> None:
    clock = Clock()
    server = kvserver.Server(port=0, clock=clock, debug_command="yes")
    gone = Gone(server._state, 1)
    waited = _tell_of_waits(server._expirer)
    with server, kvclient.connect(server.url) as client:
        client.execute("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        client.execute("SET", "k", "v", "PX", "1")
        clock.now += 1
        waited.clear()
        server._state.keyspace.expiry.wake.set()
        assert waited.wait(PATIENCE)  # it found the key due, and the pause on
        client.execute("DEBUG", "SET-ACTIVE-EXPIRE", "1")
        assert gone.event.wait(expirer._LONGEST_WAIT / 2), "it is not left to the next look at the clock"


def _end(once: Expirer, state: State) -> None:
    state.stopping.set()
    state.active_expiry.set()
    once.stop()


def _tell_of_waits(once: Expirer) -> threading.Event:
    """An event that is set whenever the thread is about to wait."""
    waited = threading.Event()

    class Wake(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.set()
            return super().wait(timeout)

    once._queue.wake = Wake()
    return waited


def test_it_sorts_and_drops_also_during_a_pause() -> None:
    state = State(Config(), Clock())
    state.active_expiry.clear()
    once = Expirer(state)
    waited = _tell_of_waits(once)
    once.start()
    try:
        db = state.keyspace.databases[0]
        for _ in range(20):
            assert waited.wait(PATIENCE)
            with state.keyspace.lock:
                for _ in range(1000):
                    db.put(b"k", b"v")
                    db.expire_at(b"k", START + 10**6)
                waited.clear()
                once._queue.wake.set()
        assert waited.wait(PATIENCE)
        assert len(once._queue._heap) + len(once._queue._incoming) < 5000
    finally:
        _end(once, state)


def test_a_pause_that_begins_while_the_server_stops_does_not_hold_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread finds that it need not stop; then it is told to; then a client's DEBUG SET-ACTIVE-EXPIRE 0 arrives."""
    state = State(Config())
    once = Expirer(state)
    asked, joining = threading.Event(), threading.Event()
    join = once._thread.join

    class Stopping(threading.Event):
        def is_set(self) -> bool:
            before = super().is_set()
            if not before:
                asked.set()
                assert joining.wait(PATIENCE)
                state.active_expiry.clear()
            return before

    def told_to_stop() -> None:
        joining.set()
        join(PATIENCE / 6)

    state.stopping = Stopping()
    monkeypatch.setattr(once._thread, "join", told_to_stop)
    once.start()
    assert asked.wait(PATIENCE)
    state.stopping.set()
    once.stop()
    ended = not once._thread.is_alive()
    state.active_expiry.set()
    join()
    assert ended


def test_a_deadline_set_after_the_last_look_is_not_slept_over() -> None:
    """It comes between sorting and going to sleep, and is still earlier than what the thread sleeps for."""
    state = State(Config(), Clock())
    once = Expirer(state)
    once._queue.collect()
    with state.keyspace.lock:
        db = state.keyspace.databases[0]
        db.put(b"k", b"v")
        db.expire_at(b"k", START + 5)
    once._queue.arm()
    assert once._queue.wake.is_set()


def test_a_key_whose_deadline_was_moved_later_is_met_again() -> None:
    clock = Clock()
    state = State(Config(), clock)
    once = Expirer(state)
    db = state.keyspace.databases[0]
    with state.keyspace.lock:
        db.put(b"k", b"v")
        db.expire_at(b"k", START + 10)
        db.expire_at(b"k", START + 50)  # the entry it has is early enough
    for now, left in ((10, [b"k"]), (50, [])):
        clock.now = START + now
        once._queue.collect()
        once._expire_batch()
        assert list(db.values) == left


def test_of_the_entries_of_a_key_the_earliest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "_WAKE_AFTER", -1)
    clock = Clock()
    state = State(Config(), clock)
    once = Expirer(state)
    db = state.keyspace.databases[0]
    with state.keyspace.lock:
        db.put(b"k", b"v")
        for milliseconds in (50, 10):
            db.expire_at(b"k", START + milliseconds)
    once._queue.collect()
    once._tidy()
    assert len(once._queue._heap) == 1
    clock.now += 10
    once._expire_batch()
    assert not db.values


def test_without_memory_it_rests_and_then_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round that is cut off has entries in hand that are nowhere else."""
    monkeypatch.setattr(expirer, "_AFTER_FAILURE", 0)
    clock = Clock()
    state = State(Config(), clock)
    gone = Gone(state, 500)
    failures = iter([True, False, True])
    expire = Database.expire_if_due

    def fails_at_first(database: Database, key: bytes) -> bool:
        if next(failures, False):
            raise MemoryError
        return expire(database, key)

    monkeypatch.setattr(Database, "expire_if_due", fails_at_first)
    with running(state):
        with state.keyspace.lock:
            db = state.keyspace.databases[0]
            for number in range(500):
                db.put(b"%d" % number, b"v")
                db.expire_at(b"%d" % number, START + 5)
        clock.now += 5
        state.keyspace.expiry.wake.set()
        assert gone.event.wait(PATIENCE)
    assert not db.values
    assert next(failures, None) is None


def test_stale_entries_are_dropped_while_keys_are_due() -> None:
    clock = Clock()
    state = State(Config(), clock)
    once = Expirer(state)
    db = state.keyspace.databases[0]
    with state.keyspace.lock:
        for number in range(20_000):
            db.put(b"%d" % number, b"v")
            db.expire_at(b"%d" % number, START + 10**9)
            db.put(b"%d" % number, b"without a deadline")
        db.put(b"due", b"v")
        db.expire_at(b"due", START + 1)
    clock.now += 1
    once._round()
    assert b"due" not in db.values
    assert not once._queue._heap


def test_a_flush_forgets_when_keys_were_used_in_its_own_database_only() -> None:
    clock = Clock()
    state = State(Config(), clock)
    with state.keyspace.lock:
        first, second = state.keyspace.databases[:2]
        first.idle_ms(b"k")  # from now on uses are recorded
        first.put(b"k", b"v")
        second.put(b"k", b"v")
        clock.now += 1000
        state.keyspace.moment = None
        second.flush()
        assert first.idle_ms(b"k") == 1000
        assert state.keyspace.accessed == {(first, b"k"): START}
