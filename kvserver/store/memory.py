"""The dicts: every database of a server, under one lock.

The contract, for all of this file:

* One lock, ``Keyspace.lock``, guards everything. Whoever calls a method of :class:`Database` holds it, for one whole
  command (dispatch does that) or transaction (EXEC does), so each is atomic for every other. Changes assert it. It is
  reentrant for EXEC's sake: a command in a transaction may take what its transaction holds.
* It is the outermost lock: whoever holds another one does not take it.
* Nothing here blocks, and nobody does input or output while holding the lock.
* A value is immutable, so it may be handed out and used after the lock is released.
* A key with a deadline in the past is already gone, whether or not it has been removed: no method shows it.

A single lock, not stripes: a command holds it for about a microsecond, while the system calls around a command take
ten; stripes would make MSET, RENAME and transactions collect locks in order, for nothing that can be measured.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Protocol

from kvserver.store.expiry import ExpiryQueue
from kvserver.store.lock import Lock, RecordingLock
from kvserver.store.scan import Snapshot


class Edited(bytes):
    """A value that a command changed in place (APPEND, SETRANGE): the same bytes, but reported as ``raw``."""

    __slots__ = ()


class Formatted(bytes):
    """A number that a command wrote as text (INCRBYFLOAT): the same bytes, but not reported as ``int``."""

    __slots__ = ()


class Listener(Protocol):
    """Who is told of every change, with the lock held, so in the order of the changes. Must not block."""

    def changed(self, database: Database, key: bytes, event: str | None) -> None:
        """A key was set, edited or removed. ``event`` is the keyspace notification's name; None: not to be notified."""

    def announced(self, database: Database, key: bytes, event: str) -> None:
        """Something to be notified that is no change by itself: a miss, or the name of a change told before."""

    def flushed(self, databases: Sequence[Database]) -> None:
        """These are about to lose every key."""

    def swapped(self, first: Database, second: Database) -> None:
        """Two databases are about to exchange their numbers."""


class Recorder(Protocol):
    """Who writes down every change. Called with the lock held; must not block."""

    def changed(self, database: Database, key: bytes) -> None:
        """A key was set or removed."""

    def edited(self, database: Database, key: bytes, span: tuple[int, int]) -> None:
        """Of a key's value only the bytes from one place to another are new, and zeros before them."""

    def deadline_changed(self, database: Database, key: bytes) -> None:
        """A key was given a deadline, or lost it."""

    def flushed(self, databases: Sequence[Database]) -> None:
        """These are about to lose every key."""

    def swapped(self, first: Database, second: Database) -> None:
        """Two databases are about to exchange their numbers."""


class Keyspace:
    """All databases, what they share, and the lock.

    Args:
        databases: how many there are.
        clock: wall-clock milliseconds since the epoch; injected, so that tests move time instead of waiting.
        max_value: the longest value that APPEND and SETRANGE may make, in bytes.
        durable: whether changes will be recorded.
    """

    def __init__(
        self, databases: int, clock: Callable[[], int], max_value: int = 512 * 1024**2, *, durable: bool = False
    ) -> None:
        self.lock: Lock
        self.held: Callable[[], bool]  # whether the calling thread holds the lock
        self._recording: RecordingLock | None = None
        if durable:
            self.lock = self._recording = RecordingLock()
            self.held = self._recording.is_owned
        else:
            self.lock = threading.RLock()
            # There is no public way to ask; threading's own Condition asks so.
            self.held = self.lock._is_owned  # type: ignore[attr-defined]  # noqa: SLF001
        self.recorder: Recorder | None = None
        self.max_value = max_value
        self.clock = clock
        self.moment: int | None = None  # ``now`` of the command that holds the lock, once it has asked
        self.started_at = clock()
        self.expiry: ExpiryQueue[Database] = ExpiryQueue(self.lock)
        self.databases = [Database(self, index) for index in range(databases)]
        self.listener: Listener | None = None  # while anybody wants to know; nobody else pays for it
        # Access times exist once someone has asked for one, so that reading costs nothing until then.
        self.accessed: dict[tuple[Database, bytes], int] | None = None
        self.touching = True  # false while a client with NO-TOUCH runs a command
        self.hits = self.misses = self.expired = 0
        self.snapshots = 0  # taken so far, which orders them

    def record(self, recorder: Recorder | None, commit: Callable[[], object] | None) -> None:
        """Have every change recorded from now on, and ``commit`` called before the lock is released; None: no more."""
        assert self._recording is not None
        with self.lock:
            self.recorder = recorder
            self._recording.commit = commit

    @property
    def now(self) -> int:
        """Wall-clock milliseconds, the same during one command. Lock held; dispatch forgets it between commands."""
        if self.moment is None:
            self.moment = self.clock()
        return self.moment

    def swap(self, first: int, second: int) -> None:
        """Exchange two databases for everyone at once. Lock held."""
        assert self.held()
        these = self.databases
        if first != second:
            for each in (self.listener, self.recorder):
                if each is not None:
                    each.swapped(these[first], these[second])
        these[first], these[second] = these[second], these[first]
        these[first].index, these[second].index = first, second

    def flush(self) -> list[dict[bytes, bytes]]:
        """Empty every database. Lock held; the caller lets the returned contents go after releasing it."""
        for each in (self.listener, self.recorder):
            if each is not None:
                each.flushed(self.databases)
        return [database.empty() for database in self.databases]


class Database:
    """One numbered database: keys to values, and the deadlines of those keys that have one."""

    __slots__ = ("deadlines", "index", "keyspace", "newest", "snapshot", "values")

    def __init__(self, keyspace: Keyspace, index: int) -> None:
        self.keyspace = keyspace
        self.index = index  # where clients find it now; SWAPDB changes it
        self.values: dict[bytes, bytes] = {}
        self.deadlines: dict[bytes, int] = {}  # wall-clock ms; a key that never expires is not in here
        self.snapshot: Snapshot | None = None  # the newest that SCAN has made, until it is dropped
        self.newest = 0  # its number in the order they were taken in, also once it has been dropped

    # Reading

    def look(self, key: bytes, *, announce: bool = True) -> bytes | None:
        """The value for a command that asks about the key: counts a hit or a miss, but not as an access.

        Without ``announce`` a miss is not notified.
        """
        value = self.peek(key)
        if value is None:
            self._missed(key, announce=announce)
        else:
            self.keyspace.hits += 1
        return value

    def seek(self, key: bytes) -> bytes | None:
        """The value for a command that may change it: counts as an access, but no hit or miss."""
        value = self.peek(key)
        if value is not None and self.keyspace.accessed is not None:
            self.touch(key)
        return value

    def get(self, key: bytes) -> bytes | None:
        """The value for a command that reads: counts a hit or a miss, and as an access."""
        value = self.peek(key)
        keyspace = self.keyspace
        if value is None:
            self._missed(key)
            return None
        keyspace.hits += 1
        if keyspace.accessed is not None:
            self.touch(key)
        return value

    def peek(self, key: bytes) -> bytes | None:
        """The value, without counting anything."""
        if key in self.deadlines and self.expire_if_due(key):
            return None
        return self.values.get(key)

    def deadline(self, key: bytes) -> int | None:
        """When ``key`` expires, in milliseconds; None for never (or for no such key)."""
        return self.deadlines.get(key)

    def live_keys(self) -> Callable[[], list[bytes]]:
        """Take hold of the present keys; the function returned lists them once the lock is released."""
        keys, now = list(self.values), self.keyspace.now
        deadlines = self.deadlines.copy()
        return lambda: [key for key in keys if deadlines.get(key, now + 1) > now] if deadlines else keys

    def take_snapshot(self, *, fresh: bool) -> Callable[[], Snapshot]:
        """The snapshot SCAN walks; the function returned builds it, if need be, once the lock is released.

        One that is kept, or was, is never replaced by an older one: a walk may go on with any snapshot taken after
        it began, and with no other.
        """
        kept = self.snapshot
        if kept is not None and not fresh:
            return lambda: kept
        self.keyspace.snapshots += 1
        serial, present = self.keyspace.snapshots, self.live_keys()

        def build() -> Snapshot:
            new = Snapshot(present())
            with self.keyspace.lock:
                if self.newest < serial:
                    self.snapshot, self.newest = new, serial
            return new

        return build

    def drop_snapshot(self) -> None:
        """Free the snapshot when a walk has ended. Lock not held: a walk that still needs one makes another."""
        self.snapshot = None

    def still_there(self, keys: list[bytes]) -> list[bytes]:
        """Those of the keys that exist. Lock not held: a key that comes or goes just now may be told either way."""
        now, values, deadlines = self.keyspace.clock(), self.values, self.deadlines
        return [key for key in keys if key in values and deadlines.get(key, now + 1) > now]

    def random_key(self) -> bytes | None:
        """Any key; O(n), at the speed of a C loop, because a dict has no random access."""
        while self.values:
            key = next(islice(self.values, random.randrange(len(self.values)), None))  # noqa: S311
            if self.peek(key) is not None:
                return key
        return None

    def average_ttl(self, now: int) -> int:
        """The average time to live in milliseconds of the keys that have one, from a sample of a hundred."""
        sample = list(islice(self.deadlines.values(), 100))
        return max(0, sum(sample) // len(sample) - now) if sample else 0

    # Changing

    def put(self, key: bytes, value: bytes, event: str | None = "set") -> None:
        """Set the value; a deadline the key had is gone. ``event`` names the keyspace notification, here as below."""
        assert self.keyspace.held()
        is_new = key not in self.values
        self.values[key] = value
        if self.deadlines:
            self.deadlines.pop(key, None)
        self._changed(key, event, is_new=is_new)

    def replace(self, key: bytes, value: bytes, event: str | None = "set", span: tuple[int, int] | None = None) -> None:
        """Set the value and keep the deadline. The caller has looked the key up, so an expired one is gone.

        ``span`` says where the value's new bytes begin and end, if the others are as they were; or zero, where there
        were none. It keeps the journal short.
        """
        assert self.keyspace.held()
        is_new = key not in self.values
        self.values[key] = value
        self._changed(key, event, is_new=is_new, span=span)

    def remove(self, key: bytes, event: str | None = "del") -> bool:
        """Delete the key; whether it was there."""
        assert self.keyspace.held()
        if key in self.deadlines and self.expire_if_due(key):
            return False
        if self.values.pop(key, None) is None:
            return False
        self._forget(key, event)
        return True

    def expire_at(self, key: bytes, deadline: int, event: str | None = "expire") -> None:
        """Give an existing key a deadline (ms). One in the past removes it."""
        assert self.keyspace.held()
        if deadline <= self.keyspace.now:
            self.remove(key, "expired")
            return
        before = self.deadlines.get(key)
        self.deadlines[key] = deadline
        if before is None or deadline < before:  # otherwise the entry it has is early enough
            self.keyspace.expiry.add(deadline, self, key)
        self._deadline_changed(key, event)

    def persist(self, key: bytes) -> bool:
        """Take the deadline away; whether there was one."""
        assert self.keyspace.held()
        if self.deadlines.pop(key, None) is None:
            return False
        self._deadline_changed(key, "persist")
        return True

    def expire_if_due(self, key: bytes) -> bool:
        """Remove the key if its deadline has passed; whether it has."""
        deadline = self.deadlines.get(key)
        if deadline is None or deadline > self.keyspace.now:
            return False
        del self.values[key]
        self.keyspace.expired += 1
        self._forget(key, "expired")
        return True

    def flush(self) -> dict[bytes, bytes]:
        """Empty the database; returns the old contents, for the caller to let go outside the lock."""
        for each in (self.keyspace.listener, self.keyspace.recorder):
            if each is not None:
                each.flushed([self])
        return self.empty()

    def empty(self) -> dict[bytes, bytes]:
        """As :meth:`flush`, without telling anyone."""
        assert self.keyspace.held()
        if self.deadlines:
            self.keyspace.expiry.wake.set()  # to drop the entries of keys that are gone
        values, self.values, self.deadlines, self.snapshot = self.values, {}, {}, None
        if (accessed := self.keyspace.accessed) is not None:
            self.keyspace.accessed = {place: moment for place, moment in accessed.items() if place[0] is not self}
        return values

    def announce(self, key: bytes, event: str) -> None:
        """Notify of a change that was made without naming its event, because the order of events asks for it."""
        if self.keyspace.listener is not None:
            self.keyspace.listener.announced(self, key, event)

    def _changed(self, key: bytes, event: str | None, *, is_new: bool, span: tuple[int, int] | None = None) -> None:
        keyspace = self.keyspace
        if keyspace.recorder is not None:
            if span is None:
                keyspace.recorder.changed(self, key)
            else:
                keyspace.recorder.edited(self, key, span)
        if keyspace.accessed is not None:
            self.touch(key)
        if keyspace.listener is not None:
            if is_new:
                keyspace.listener.announced(self, key, "new")
            keyspace.listener.changed(self, key, event)

    def _deadline_changed(self, key: bytes, event: str | None) -> None:
        keyspace = self.keyspace
        if keyspace.recorder is not None:
            keyspace.recorder.deadline_changed(self, key)
        if keyspace.listener is not None:
            keyspace.listener.changed(self, key, event)

    def _missed(self, key: bytes, *, announce: bool = True) -> None:
        self.keyspace.misses += 1
        if announce and self.keyspace.listener is not None:
            self.keyspace.listener.announced(self, key, "keymiss")

    def _forget(self, key: bytes, event: str | None) -> None:
        self.deadlines.pop(key, None)
        if self.keyspace.accessed is not None:
            self.keyspace.accessed.pop((self, key), None)
        if self.keyspace.recorder is not None:
            self.keyspace.recorder.changed(self, key)
        if self.keyspace.listener is not None:
            self.keyspace.listener.changed(self, key, event)

    # Access times

    def touch(self, key: bytes) -> None:
        """Note an access, if access times are kept and this client's accesses count."""
        keyspace = self.keyspace
        if keyspace.accessed is not None and keyspace.touching:
            keyspace.accessed[self, key] = keyspace.now

    def idle_ms(self, key: bytes) -> int:
        """Milliseconds since the key was last used.

        The first call begins to record. A key not used since then has been idle for no longer than the server
        has run, and that is what is answered.
        """
        keyspace = self.keyspace
        if keyspace.accessed is None:
            keyspace.accessed = {}
        return keyspace.now - keyspace.accessed.get((self, key), keyspace.started_at)
