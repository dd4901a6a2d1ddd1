"""ACL LOG: what was denied lately. Its lock is held for a look and a change of one list."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

from kvserver.access.rules import Denial

_SAME_WITHIN = 60_000
"""Milliseconds in which the same denial is one entry, counted up."""


@dataclass(slots=True)
class Entry:
    """Something that was denied, once or several times."""

    number: int
    denial: Denial
    context: str
    username: bytes
    client: bytes  # whose it was last
    created: int  # milliseconds since the epoch
    updated: int
    count: int = 1


class DenialLog:
    """The newest denials, newest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque()
        self._numbers = 0

    def add(self, denial: Denial, context: str, username: bytes, client: bytes, *, now: int, limit: int) -> None:
        """Note a denial, keeping at most ``limit`` entries."""
        with self._lock:
            for entry in self._entries:
                if (entry.denial, entry.context, entry.username) == (denial, context, username) and (
                    now - entry.updated <= _SAME_WITHIN
                ):
                    entry.count, entry.updated, entry.client = entry.count + 1, now, client
                    self._entries.remove(entry)
                    self._entries.appendleft(entry)
                    break
            else:
                self._entries.appendleft(Entry(self._numbers, denial, context, username, client, now, now))
                self._numbers += 1
            self._trim(limit)

    def _trim(self, limit: int) -> None:
        while len(self._entries) > limit:
            self._entries.pop()

    def newest(self, count: int) -> Iterable[Entry]:
        """Up to ``count`` entries, as they are now."""
        with self._lock:
            return [replace(entry) for entry in islice(self._entries, max(0, count))]

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries.clear()
