"""When keys fall due: a queue between the commands that set deadlines and the one thread that expires keys.

Commands only append to a list. The heap belongs to the consumer alone, so ordering a million deadlines costs no
command anything and needs no lock. The invariant that makes this enough:

    every key with a deadline has at least one entry that is not later than its deadline.

An entry is a hint, never the truth: the consumer asks the database whether the key is really due. So a deadline
that is moved later needs no new entry, and one that is removed leaves a stale entry behind, which is dropped when
it is met, or when stale entries outnumber the real ones.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from kvserver.store.lock import Lock

Where = TypeVar("Where")
_Entry = tuple[int, int, Where, bytes]

_WAKE_AFTER = 1024
"""Unsorted entries at which the consumer is woken to sort them, however far away they are."""


class ExpiryQueue(Generic[Where]):
    """Deadlines in wall-clock milliseconds.

    Locking: ``add`` and ``take`` are called with the lock given here held; the heap is the consumer's own.
    """

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._incoming: list[_Entry[Where]] = []
        self._heap: list[_Entry[Where]] = []
        self._wakes_at: float = math.inf
        self._serial = 0  # breaks ties, so that entries never compare what they point at
        self.wake = threading.Event()

    def add(self, deadline: int, where: Where, key: bytes) -> None:
        """Note that ``key`` may fall due at ``deadline``. Lock held."""
        self._serial += 1
        self._incoming.append((deadline, self._serial, where, key))
        if deadline < self._wakes_at or len(self._incoming) >= _WAKE_AFTER:
            self.wake.set()

    def collect(self) -> None:
        """Move what has been added into the heap. Consumer only, lock not held."""
        with self._lock:
            incoming, self._incoming = self._incoming, []
        for entry in incoming:
            heapq.heappush(self._heap, entry)

    def begin_anew(self, deadlines: Iterable[tuple[int, Where, bytes]]) -> None:
        """Forget all entries and take these, one for each key that has a deadline. Consumer only, lock held."""
        self._heap, self._incoming = [], []
        for deadline, where, key in deadlines:
            self._serial += 1
            self._incoming.append((deadline, self._serial, where, key))

    def due(self, now: int, limit: int) -> list[tuple[Where, bytes]]:
        """Take up to ``limit`` entries that are due. Consumer only."""
        entries: list[tuple[Where, bytes]] = []
        while self._heap and self._heap[0][0] <= now and len(entries) < limit:
            _, _, where, key = heapq.heappop(self._heap)
            entries.append((where, key))
        return entries

    def arm(self) -> float:
        """Say when the consumer will look again: the earliest deadline in milliseconds, or infinity.

        Consumer only, lock not held. An entry added after this and due earlier sets ``wake``.
        """
        with self._lock:
            self.wake.clear()
            self._wakes_at = self._heap[0][0] if self._heap else math.inf
            if self._incoming:
                self.wake.set()
            return self._wakes_at

    def compact(self, live: int, is_live: Callable[[Where, bytes], bool]) -> None:
        """Drop stale entries once they outnumber the ``live`` keys. Consumer only, lock not held."""
        if len(self._heap) > 2 * live + _WAKE_AFTER:
            self._heap = list(_earliest(entry for entry in self._heap if is_live(entry[2], entry[3])))
            heapq.heapify(self._heap)


def _earliest(entries: Iterable[_Entry[Where]]) -> Iterable[_Entry[Where]]:
    """One entry a key, the earliest: the invariant needs no more."""
    earliest: dict[tuple[int, bytes], _Entry[Where]] = {}
    for entry in entries:
        place = (id(entry[2]), entry[3])
        if place not in earliest or entry < earliest[place]:
            earliest[place] = entry
    return earliest.values()
