"""The dicts: every database of a server, under one lock.

The contract, for all of this file:

* One lock, ``Keyspace.lock``, guards everything. Whoever calls a method of :class:`Database` holds it, for one whole
  command (dispatch does that) or transaction (EXEC does), so each is atomic for every other. Changes assert it. It is
  reentrant for EXEC's sake: a command in a transaction may take what its transaction holds.
* One read does without, of one key (glance.py). For its sake a change that others could see half of, of several keys
  or in several steps, is made within ``Keyspace.steps``.
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
from collections.abc import Callable
from functools import partial
from itertools import islice
from sys import getsizeof

from kvserver.store.eviction import Eviction, Policy
from kvserver.store.expiry import ExpiryQueue
from kvserver.store.glance import Steps
from kvserver.store.leases import Leases
from kvserver.store.lock import Lock, RecordingLock
from kvserver.store.observers import Listener, Recorder
from kvserver.store.outcomes import Outcomes
from kvserver.store.scan import Snapshot, present, still_live

TABLE_BYTES = 48
"""What an entry takes up of its table: of a dict 30 to 60, as it doubles. The table is not weighed itself, since keys
would be evicted by the thousand each time it doubles."""
_ROOMY, _ROOMY_PER_KEY = 4096, 80
"""Beyond so many bytes and so many for each key a table is made smaller, while memory is limited."""
DEADLINE_BYTES = 160 + TABLE_BYTES
"""What a key's deadline takes up: the number, its entry in the expiry queue, and its place in the table."""


def size_of(key: bytes, value: bytes) -> int:
    """Bytes that a key takes up with its value: of both Python's header and the text, rounded up to 16; and a place."""
    return (len(key) + 48 & -16) + (len(value) + 48 & -16) + TABLE_BYTES


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
        self.steps = Steps()
        self.recorder: Recorder | None = None
        self.max_value = max_value
        self.clock = clock
        self.moment: int | None = None  # ``now`` of the command that holds the lock, once it has asked
        self.started_at = clock()
        self.expiry: ExpiryQueue[Database] = ExpiryQueue(self.lock)
        self.data_bytes = 0  # what keys, values and deadlines take up
        self.policy_bytes = 0  # what the order of eviction takes up beside it
        self.peak_bytes = 0  # the most that was seen
        self.databases = [Database(self, index) for index in range(databases)]
        self.listener: Listener | None = None  # while anybody wants to know; nobody else pays for it
        # Access times exist once someone has asked for one, so that reading costs nothing until then.
        self.accessed: dict[tuple[Database, bytes], int] | None = None
        self.eviction = Eviction(self)
        self.outcomes = Outcomes()
        self.observed = False  # uses of keys are noted, or memory is limited: nobody else pays for either
        self.touching = True  # false while a client with NO-TOUCH runs a command
        self.hits = self.misses = self.expired = 0
        self.can_swap = True  # a cluster has one database
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

    @property
    def used(self) -> int:
        """Bytes that the data takes up, and what is needed to evict it. Lock held."""
        return self.data_bytes + self.policy_bytes

    def mind(self) -> None:
        """Note whether uses and sizes are to be observed at every command. Lock held."""
        self.observed = self.accessed is not None or self.eviction.limit > 0 or self.eviction.is_at_work

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

    __slots__ = (
        "data_bytes", "deadlines", "index", "keyspace", "leases", "newest", "policy", "policy_bytes", "snapshot",
        "values",
    )  # fmt: skip

    def __init__(self, keyspace: Keyspace, index: int) -> None:
        self.keyspace = keyspace
        self.index = index  # where clients find it now; SWAPDB changes it
        self.values: dict[bytes, bytes] = {}
        self.deadlines: dict[bytes, int] = {}  # wall-clock ms; a key that never expires is not in here
        self.snapshot: Snapshot | None = None  # the newest that SCAN has made, until it is dropped
        self.newest = 0  # its number in the order they were taken in, also once it has been dropped
        self.policy: Policy | None = None  # which key goes first, while memory is limited
        self.data_bytes = self.policy_bytes = 0  # as the keyspace's, which are the sums
        self.leases = Leases()

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
        if value is not None and self.keyspace.observed:
            self.touch(key)
        return value

    def get(self, key: bytes) -> bytes | None:
        """The value for a command that reads: counts a hit or a miss, and as an access."""
        value = None if key in self.deadlines and self.expire_if_due(key) else self.values.get(key)  # as peek
        keyspace = self.keyspace
        if value is None:
            self._missed(key)
            return None
        keyspace.hits += 1
        if keyspace.observed:
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
        return partial(still_live, list(self.values), self.deadlines.copy(), self.keyspace.now)

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
        return present(keys, self.values, self.deadlines, self.keyspace.clock())

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
        keyspace = self.keyspace
        assert keyspace.held()
        before = self.values.get(key)
        self.values[key] = value
        if self.deadlines and self.deadlines.pop(key, None) is not None:
            self._grow(-DEADLINE_BYTES)
        if before is None or len(before) != len(value):  # a value of the same length, as a counter's, is quickest
            self._weigh_change(key, before, value)
        if self.leases:
            self.leases.void(key)  # what is being computed for it may be old by now
        if keyspace.recorder is not None or keyspace.listener is not None or keyspace.observed:
            self._changed(key, event, is_new=before is None)

    def replace(self, key: bytes, value: bytes, event: str | None = "set", span: tuple[int, int] | None = None) -> None:
        """Set the value and keep the deadline. The caller has looked the key up, so an expired one is gone.

        ``span`` says where the value's new bytes begin and end, if the others are as they were; or zero, where there
        were none. It keeps the journal short.
        """
        keyspace = self.keyspace
        assert keyspace.held()
        before = self.values.get(key)
        self.values[key] = value
        if before is None or len(before) != len(value):
            self._weigh_change(key, before, value)
        if self.leases:
            self.leases.void(key)  # what is being computed for it may be old by now
        if keyspace.recorder is not None or keyspace.listener is not None or keyspace.observed:
            self._changed(key, event, is_new=before is None, span=span)

    def load(self, key: bytes, value: bytes, deadline: int | None) -> None:
        """Set a key as :meth:`put` does, while nobody is to be told: the data is being loaded."""
        before = self.values.get(key)
        self.values[key] = value
        self._weigh_change(key, before, value)
        if deadline is not None:
            if key not in self.deadlines:
                self._grow(DEADLINE_BYTES)
            self.deadlines[key] = deadline
        elif self.deadlines and self.deadlines.pop(key, None) is not None:
            self._grow(-DEADLINE_BYTES)

    def remove(self, key: bytes, event: str | None = "del") -> bool:
        """Delete the key; whether it was there."""
        assert self.keyspace.held()
        if self.leases:
            self.leases.void(key)  # what is being computed for it may be old by now
        if key in self.deadlines and self.expire_if_due(key):
            return False
        value = self.values.pop(key, None)
        if value is None:
            return False
        self._forget(key, value, event)
        return True

    def evict(self, key: bytes) -> None:
        """Delete an existing key to make room."""
        self._forget(key, self.values.pop(key), "evicted")
        self.weigh_policy()

    def expire_at(self, key: bytes, deadline: int, event: str | None = "expire") -> None:
        """Give an existing key a deadline (ms). One in the past removes it."""
        assert self.keyspace.held()
        if deadline <= self.keyspace.now:
            self.remove(key, "expired")
            return
        before = self.deadlines.get(key)
        self.deadlines[key] = deadline
        if before is None:
            self._grow(DEADLINE_BYTES)
        if before is None or deadline < before:  # otherwise the entry it has is early enough
            self.keyspace.expiry.add(deadline, self, key)
        if self.policy is not None and self.policy.live is self.deadlines:
            self.policy.add(key)
            self.weigh_policy()
        self._deadline_changed(key, event)

    def persist(self, key: bytes) -> bool:
        """Take the deadline away; whether there was one."""
        assert self.keyspace.held()
        if self.deadlines.pop(key, None) is None:
            return False
        self._grow(-DEADLINE_BYTES)
        self._deadline_changed(key, "persist")
        return True

    def expire_if_due(self, key: bytes) -> bool:
        """Remove the key if its deadline has passed; whether it has."""
        deadline = self.deadlines.get(key)
        if deadline is None or deadline > self.keyspace.now:
            return False
        self.keyspace.expired += 1
        self._forget(key, self.values.pop(key), "expired")
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
        self.leases.clear()
        self._grow(-self.data_bytes)
        self.set_policy(self.keyspace.eviction.policy_for(self))
        if (accessed := self.keyspace.accessed) is not None:
            self.keyspace.accessed = {place: moment for place, moment in accessed.items() if place[0] is not self}
        return values

    def set_policy(self, policy: Policy | None) -> None:
        """Say which key goes first."""
        self.policy = policy
        self.weigh_policy()

    def weigh_policy(self) -> None:
        """Note what the policy takes up, after it has changed."""
        size = 0 if self.policy is None else self.policy.footprint()
        self.keyspace.policy_bytes += size - self.policy_bytes
        self.policy_bytes = size

    def _tighten(self) -> None:
        """Make the tables smaller if they have far more room than keys, as they do when keys come and go.

        A dict that is full, of removed keys too, grows to three to six times its keys. Copied when it has four times
        as much room or more, it comes out with two to three times, so that it is some while until the next time.
        """
        values, deadlines, policy = self.values, self.deadlines, self.policy
        if getsizeof(values) > _ROOMY + _ROOMY_PER_KEY * len(values):
            self.values = dict(values)
        if getsizeof(deadlines) > _ROOMY + _ROOMY_PER_KEY * len(deadlines):
            self.deadlines = dict(deadlines)
        if policy is not None:
            policy.live = self.values if policy.live is values else self.deadlines

    def _weigh_change(self, key: bytes, before: bytes | None, value: bytes) -> None:
        """Count what a value takes up more than the one before; with its key, if there was none."""
        self._grow(size_of(key, value) if before is None else (len(value) + 48 & -16) - (len(before) + 48 & -16))

    def _grow(self, more: int) -> None:
        self.data_bytes += more
        keyspace = self.keyspace
        keyspace.data_bytes += more
        if keyspace.data_bytes > keyspace.peak_bytes:
            keyspace.peak_bytes = keyspace.data_bytes

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
        if keyspace.observed:
            self._observe(key, is_new=is_new)
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

    def _forget(self, key: bytes, value: bytes, event: str | None) -> None:
        has_deadline = self.deadlines and self.deadlines.pop(key, None) is not None
        self._grow(-size_of(key, value) - (DEADLINE_BYTES if has_deadline else 0))
        if self.keyspace.accessed is not None:
            self.keyspace.accessed.pop((self, key), None)
        if self.keyspace.recorder is not None:
            self.keyspace.recorder.changed(self, key)
        if self.keyspace.listener is not None:
            self.keyspace.listener.changed(self, key, event)

    # Uses of keys

    def _observe(self, key: bytes, *, is_new: bool) -> None:
        """Note that a key was set."""
        if not is_new:
            self.touch(key)
            return
        if self.keyspace.accessed is not None:
            self.keyspace.accessed[self, key] = self.keyspace.now
        if self.policy is not None and self.policy.live is self.values:
            self.policy.add(key)
            self.weigh_policy()
        self._tighten()

    def touch(self, key: bytes) -> None:
        """Note an access, if accesses are kept and this client's count."""
        keyspace = self.keyspace
        if not keyspace.touching:
            return
        if keyspace.accessed is not None:
            keyspace.accessed[self, key] = keyspace.now
        if self.policy is not None:
            self.policy.touch(key)

    def idle_ms(self, key: bytes) -> int:
        """Milliseconds since the key was last used.

        The first call begins to record. A key not used since then has been idle for no longer than the server
        has run, and that is what is answered.
        """
        keyspace = self.keyspace
        if keyspace.accessed is None:
            keyspace.accessed = {}
            keyspace.mind()
        return keyspace.now - keyspace.accessed.get((self, key), keyspace.started_at)
