"""The keys that cost most: one collection at a time, begun and ended by HOTKEYS.

It costs nothing while none runs. While one does, its memory is bounded: of each metric only so many keys are counted,
and a new one takes the place and the count of the least (the Space-Saving algorithm of Metwally, Agrawal and El Abbadi,
2005). So a key's figure is never too low, and too high at most by the figure of the least key counted.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass

_COUNTED_PER_KEY = 16  # keys that are counted for each that is reported


class TopKeys:
    """The keys with the largest sums, about."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._sums: dict[bytes, int] = {}

    def add(self, key: bytes, amount: int) -> None:
        """Add to a key's sum."""
        sums = self._sums
        if key not in sums and len(sums) >= self._count * _COUNTED_PER_KEY:
            least = min(sums, key=sums.__getitem__)
            sums[key] = sums.pop(least)
        sums[key] = sums.get(key, 0) + amount

    def largest(self) -> list[tuple[bytes, int]]:
        """Keys and sums, the largest first."""
        return sorted(self._sums.items(), key=lambda entry: -entry[1])[: self._count]


@dataclass(frozen=True)
class Plan:
    """What HOTKEYS START asked for."""

    cpu: bool
    net: bool
    count: int = 10
    duration: int = 0  # seconds; 0: until HOTKEYS STOP
    sample: int = 1  # one in so many commands is counted for its keys


class Collection:
    """What one collection has counted. Any thread may add."""

    def __init__(self, plan: Plan, now: int) -> None:
        self.plan = plan
        self.started = now  # wall-clock milliseconds
        self.ended: int | None = None
        self.nanoseconds = self.bytes = 0  # of all commands
        self.by_time = TopKeys(plan.count)
        self.by_bytes = TopKeys(plan.count)
        self._lock = threading.Lock()
        self._cpu_before = os.times()
        self._cpu_after: os.times_result | None = None

    def add(self, keys: Sequence[bytes], nanoseconds: int, size: int) -> None:
        """Count a command: how long it took and the bytes of its request and reply, shared out among its keys."""
        sampled = self.plan.sample == 1 or random.randrange(self.plan.sample) == 0  # noqa: S311 - a sample, no secret
        with self._lock:
            self.nanoseconds += nanoseconds
            self.bytes += size
            if not sampled:
                return
            for key in keys:
                if self.plan.cpu:
                    self.by_time.add(key, nanoseconds // len(keys))
                if self.plan.net:
                    self.by_bytes.add(key, size // len(keys))

    def end(self, now: int) -> None:
        """Count no more."""
        with self._lock:
            if self.ended is None:
                self.ended = now
                self._cpu_after = os.times()

    def is_over(self, now: int) -> bool:
        """Whether the time it was given has passed."""
        return bool(self.plan.duration) and now >= self.started + self.plan.duration * 1000

    def cpu_milliseconds(self) -> tuple[int, int]:
        """The process' time in user mode and in the kernel since the start."""
        after = self._cpu_after or os.times()
        before = self._cpu_before
        return round((after.user - before.user) * 1000), round((after.system - before.system) * 1000)

    def largest(self) -> tuple[list[tuple[bytes, int]], list[tuple[bytes, int]]]:
        """The keys that took most time (nanoseconds), and those that took most bytes."""
        with self._lock:
            return self.by_time.largest(), self.by_bytes.largest()
