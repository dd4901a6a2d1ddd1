"""When something took longer than the operator finds acceptable: LATENCY, for ``latency-monitor-threshold``."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

_SAMPLES = 160


@dataclass(slots=True)
class Event:
    """The spikes of one kind: Unix seconds and milliseconds, at most one a second."""

    samples: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_SAMPLES))
    worst: int = 0
    total: int = 0
    count: int = 0


class Latency:
    """Spikes by event: ``command``, and ``fast-command`` for those that are O(1)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, Event] = {}

    def add(self, name: str, time: int, milliseconds: int) -> None:
        """Note a spike. Of several in a second the worst is kept."""
        with self._lock:
            event = self._events.setdefault(name, Event())
            event.worst = max(event.worst, milliseconds)
            event.total += milliseconds
            event.count += 1
            if event.samples and event.samples[-1][0] == time:
                milliseconds = max(milliseconds, event.samples.pop()[1])
            event.samples.append((time, milliseconds))

    def latest(self) -> dict[str, Event]:
        """A copy of every event."""
        with self._lock:
            return {
                name: Event(event.samples.copy(), event.worst, event.total, event.count)
                for name, event in self._events.items()
            }

    def history(self, name: str) -> list[tuple[int, int]]:
        """The samples of one event, oldest first."""
        with self._lock:
            return list(self._events[name].samples) if name in self._events else []

    def reset(self, names: set[str]) -> int:
        """Forget some events, or all if none is named; how many there were."""
        with self._lock:
            gone = [name for name in self._events if not names or name in names]
            for name in gone:
                del self._events[name]
            return len(gone)
