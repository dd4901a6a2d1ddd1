"""The connections that are open now: who they are, and how another thread ends one.

The lock here is held for a look-up or a copy, never across input or output. A connection is in the list from before
its thread starts until just before its socket is closed; ending one while it is listed therefore never touches a
descriptor number that has been closed and used again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvserver.session import Session


class Clients:
    """Every open connection's session, and the function that wakes and ends its thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, tuple[Session, Callable[[], None]]] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._open)

    def next_id(self) -> int:
        """A new connection's number: ever growing, from 1."""
        with self._lock:
            self._last_id += 1
            return self._last_id

    def add(self, session: Session, end: Callable[[], None]) -> None:
        """List a connection. ``end`` must not block; it makes the connection's thread finish."""
        with self._lock:
            self._open[session.id] = (session, end)

    def remove(self, session: Session) -> None:
        """Take a connection off the list, before its socket is closed."""
        with self._lock:
            self._open.pop(session.id, None)

    def find(self, number: int) -> Session | None:
        """The connection with a number, if it is open and has not been ended."""
        with self._lock:
            entry = self._open.get(number)
        return None if entry is None or entry[0].dropped else entry[0]

    def sessions(self) -> list[Session]:
        """All open connections, oldest first."""
        with self._lock:
            return [session for session, _ in self._open.values()]

    def end(self, session: Session) -> bool:
        """End another connection; whether it was still open, and nobody had ended it before."""
        with self._lock:
            entry = self._open.get(session.id)
            if entry is None or session.dropped:
                return False
            entry[1]()
            return True
