"""Is there an order of these operations that explains what everyone saw? (Wing and Gong's search.)

An operation takes effect at one moment between its call and its return. So whatever has returned before another was
called comes before it; the order of the rest is free. The search tries, at each step, every operation that may be next,
and remembers which sets of remaining operations and states have led nowhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

State = TypeVar("State", bound=Hashable)
Words = tuple[str, ...]
Reply = object


@dataclass(frozen=True)
class Operation:
    """What one client asked and was answered; ``called`` and ``returned`` are places in one order of all events."""

    words: Words
    reply: Reply
    called: int
    returned: int


Step = Callable[[State, Words], tuple[Reply, State]]
"""What a correct store would answer in a state, and the state after that."""


def is_linearizable(history: Sequence[Operation], step: Step[State], initial: State) -> bool:
    """Whether some order that respects time gives every operation the reply it got."""
    dead_ends: set[tuple[int, State]] = set()

    def search(left: int, state: State) -> bool:
        if not left:
            return True
        if (left, state) in dead_ends:
            return False
        remaining = [(1 << place, each) for place, each in enumerate(history) if left >> place & 1]
        first_return = min(each.returned for _, each in remaining)
        for bit, each in remaining:
            if each.called < first_return:
                reply, after = step(state, each.words)
                if reply == each.reply and search(left & ~bit, after):
                    return True
        dead_ends.add((left, state))
        return False

    return search((1 << len(history)) - 1, initial)


class Recorder:
    """Collects a history from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events = count()
        self.history: list[Operation] = []

    def record(self, words: Words, run: Callable[[], Reply]) -> None:
        """Run one operation, and note when it was called and when it returned."""
        with self._lock:
            called = next(self._events)
        reply = run()
        with self._lock:
            self.history.append(Operation(words, reply, called, next(self._events)))
