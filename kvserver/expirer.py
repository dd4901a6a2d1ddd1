"""The thread that removes keys whose deadline has passed, so that memory comes back also for keys nobody asks for.

It sleeps until the earliest deadline, not for a fixed interval. The lock is held for a small batch of keys at a time,
and between batches the clients have their turn. Where a command had too many keys to evict, it goes on with them.
"""

from __future__ import annotations

import math
import threading

from kvserver.clock import MovableClock
from kvserver.observe.log import get_logger
from kvserver.state import State
from kvserver.store.memory import Database

_BATCH = 64
"""Keys a lock hold: about 20 microseconds."""
_TURN = 0.0001
"""Seconds between two batches, in which clients get the lock. It goes to whoever asks first once it is released, which
without a pause is this thread again."""
_LONGEST_WAIT = 60.0
"""Seconds. Waits are on the monotonic clock and deadlines on the wall clock, so look again after a while; and keys
that lost their deadlines wake nobody, but their entries take memory."""

_AFTER_FAILURE = 1.0
"""Seconds of rest when there was no memory to go on."""


class Expirer:
    """Active expiry for one server; ``start`` and ``stop`` once each."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._queue = state.keyspace.expiry
        self._entries_lost = False
        self._thread = threading.Thread(target=self._run, name="kvserver-expiry")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the thread; ``state.stopping`` has been set."""
        self._queue.wake.set()
        if self._thread.ident is not None:  # a server whose data could not be loaded has not started it
            self._thread.join()

    def _run(self) -> None:
        while not self._state.stopping.is_set():
            try:
                self._round()
            except MemoryError:
                get_logger().error("expiry.out_of_memory")
                self._state.stopping.wait(_AFTER_FAILURE)
                self._entries_lost = True

    def _round(self) -> None:
        if self._entries_lost:
            self._begin_anew()
        self._queue.collect()
        self._tidy()
        if (self._state.active_expiry.is_set() and self._expire_batch()) or self._make_room():
            self._state.stopping.wait(_TURN)
            return
        wait = self._seconds_until(self._queue.arm())
        # Asked after the queue was armed: whoever stops the thread, or ends a pause, wakes it from here on.
        if not self._state.stopping.is_set():
            self._queue.wake.wait(wait)

    def _begin_anew(self) -> None:
        """After a round that was cut off, which had entries in hand: make them again from the deadlines."""
        keyspace = self._state.keyspace
        with keyspace.lock:
            databases = keyspace.databases
            self._queue.begin_anew(
                (deadline, database, key) for database in databases for key, deadline in database.deadlines.items()
            )
        self._entries_lost = False

    def _seconds_until(self, deadline: float) -> float:
        clock = self._state.clock
        stands_still = isinstance(clock, MovableClock) and clock.stands_still  # who moves it, wakes this thread
        if deadline == math.inf or stands_still or not self._state.active_expiry.is_set():
            return _LONGEST_WAIT
        return min(max(0.0, (deadline - self._state.clock()) / 1000), _LONGEST_WAIT)

    def _expire_batch(self) -> bool:
        """Remove some keys that are due; whether there may be more."""
        keyspace = self._state.keyspace
        due = self._queue.due(self._state.clock(), _BATCH)
        if not due:
            return False
        with keyspace.lock:
            keyspace.moment = None
            for database, key in due:
                if not database.expire_if_due(key) and (deadline := database.deadline(key)) is not None:
                    self._queue.add(deadline, database, key)  # it was moved later; this was its only entry
        return True

    def _make_room(self) -> bool:
        """Go on evicting where a command left off; whether there is more to evict."""
        keyspace = self._state.keyspace
        with keyspace.lock:
            keyspace.moment = None
            return keyspace.eviction.is_over and keyspace.eviction.make_room() and keyspace.eviction.is_over

    def _tidy(self) -> None:
        live = sum(len(database.deadlines) for database in self._state.keyspace.databases)
        self._queue.compact(live, _has_deadline)


def _has_deadline(database: Database, key: bytes) -> bool:
    return key in database.deadlines
