"""What waits in memory for clients, all of them together: input that is not whole, queued commands, replies, messages.

The data has ``maxmemory``; this is the same for everything else that grows with what clients do. Beyond the limit the
connection that holds most is closed, then the next: one that has asked for much, or takes nothing, pays for it, and
the others go on.

Locking: one lock, the innermost of all. Who counts may hold others; who ends connections must hold none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvserver.session import Session

STEP = 16 * 1024
"""Bytes. A connection is counted in these steps, rounded down, so that one with little in its buffers, which is nearly
every one, never comes here. What goes uncounted is at most this for each part of each connection."""


class Part(IntEnum):
    """What is counted apart, because different threads count it."""

    OWN = 0  # by the connection's own thread: input, queued commands, replies being sent, names it keeps
    MESSAGES = 1  # by those who send messages to it


class Buffers:
    """How much each connection holds, and who goes when it is too much.

    Args:
        limit: bytes in all, asked anew each time; 0 for any number.
        end: ends a connection; called without the lock, by whichever thread counted what was too much.
    """

    def __init__(self, limit: Callable[[], int], end: Callable[[Session], object]) -> None:
        self._lock = threading.Lock()
        self._limit = limit
        self._end = end
        self._held: dict[Session, list[int]] = {}  # by Part; only of those that hold anything
        self._ending: set[Session] = set()  # chosen to go, and no longer counted
        self.total = 0  # bytes

    def count(self, session: Session, part: Part, size: int) -> bool:
        """Note how many bytes a part holds now; whether that makes too many, so that :meth:`enforce` is to be called.

        May be called with other locks held.
        """
        with self._lock:
            if session in self._ending:
                return False
            held = self._held.get(session)
            if held is None:
                if not size:
                    return False
                held = self._held[session] = [0, 0]
            self.total += size - held[part]
            held[part] = size
            if not any(held):
                del self._held[session]
            return 0 < self._limit() < self.total

    def enforce(self) -> None:
        """End the connections that hold most until the rest is within the limit. Without any lock held."""
        for session in self._choose():
            self._end(session)

    def _choose(self) -> list[Session]:
        """Who has to go. CLIENT NO-EVICT exempts a connection."""
        chosen: list[Session] = []
        with self._lock:
            while 0 < self._limit() < self.total:
                candidates = [session for session in self._held if not session.no_evict]
                if not candidates:
                    break
                largest = max(candidates, key=lambda session: sum(self._held[session]))
                self.total -= sum(self._held.pop(largest))
                self._ending.add(largest)
                chosen.append(largest)
        return chosen

    def release(self, session: Session) -> None:
        """Forget a connection that has ended."""
        with self._lock:
            self._ending.discard(session)
            self.total -= sum(self._held.pop(session, ()))
