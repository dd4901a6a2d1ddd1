"""The thread that removes keys whose deadline has passed, so that memory comes back also for keys nobody asks for.

It sleeps until the earliest deadline, not for a fixed interval. The lock is held for a small batch of keys at a time,
and between batches the clients have their turn.
"""

from __future__ import annotations

import math
import threading

from kvserver.state import State
from kvserver.store.memory import Database

_BATCH = 64
"""Keys a lock hold: about 20 microseconds."""
_LONGEST_WAIT = 3600.0
"""Seconds. Waits are on the monotonic clock and deadlines on the wall clock, so look again after a while."""


class Expirer:
    """Active expiry for one server; ``start`` and ``stop`` once each."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._queue = state.keyspace.expiry
        self._thread = threading.Thread(target=self._run, name="kvserver-expiry")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the thread; ``state.stopping`` has been set."""
        self._queue.wake.set()
        self._state.active_expiry.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._state.stopping.is_set():
            self._state.active_expiry.wait()
            self._queue.collect()
            if self._expire_batch():
                continue
            self._tidy()
            wakes_at = self._queue.arm()
            wait = _LONGEST_WAIT if wakes_at == math.inf else max(0.0, (wakes_at - self._state.clock()) / 1000)
            if not self._state.stopping.is_set():
                self._queue.wake.wait(min(wait, _LONGEST_WAIT))

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

    def _tidy(self) -> None:
        live = sum(len(database.deadlines) for database in self._state.keyspace.databases)
        self._queue.compact(live, _has_deadline)


def _has_deadline(database: Database, key: bytes) -> bool:
    return key in database.deadlines
