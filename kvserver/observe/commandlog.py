"""The commands that took long, or were large: SLOWLOG and COMMANDLOG.

Entries are shortened when they are made, so a log holds little however large the commands were.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from kvserver.observe.redaction import redacted

_MOST_WORDS = 32
_MOST_BYTES = 128


@dataclass(frozen=True, slots=True)
class Entry:
    """One command that was worth noting."""

    number: int
    time: int  # Unix seconds
    amount: int  # microseconds, or bytes
    words: list[bytes]
    address: str
    name: bytes


class CommandLog:
    """The newest entries of one kind, up to a number of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque()
        self._next = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, most: int, time: int, amount: int, words: Sequence[bytes], address: str, name: bytes) -> None:
        """Note a command, and forget the oldest beyond ``most``."""
        shown = _shortened(redacted(words))
        with self._lock:
            self._entries.appendleft(Entry(self._next, time, amount, shown, address, name))
            self._next += 1
            while len(self._entries) > most:
                self._entries.pop()

    def newest(self, count: int) -> list[Entry]:
        """The newest entries, newest first; -1 for all."""
        with self._lock:
            return list(self._entries if count < 0 else islice(self._entries, count))

    def clear(self) -> None:
        """Forget all entries; numbers go on."""
        with self._lock:
            self._entries.clear()


def _shortened(words: list[bytes]) -> list[bytes]:
    shown = words[:_MOST_WORDS]
    if len(words) > _MOST_WORDS:
        shown[-1] = b"... (%d more arguments)" % (len(words) - _MOST_WORDS + 1)
    return [
        word if len(word) <= _MOST_BYTES else b"%b... (%d more bytes)" % (word[:_MOST_BYTES], len(word) - _MOST_BYTES)
        for word in shown
    ]
