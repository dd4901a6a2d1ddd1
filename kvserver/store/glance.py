"""Reading one key without the keyspace lock, and what keeps such readers away from half of a change: a seqlock.

To take a value out of a dict is one step, so a reader needs no lock for it, as long as what it sees has been there at
one moment. A change of one key's value in one step is. Any other, of several keys or in several steps, is made within
:class:`Steps`, whose number the reader looks at before and after. In doubt it takes the lock, as everybody else does.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvserver.store.memory import Keyspace


class Busy(Enum):
    """What :func:`glance` says when it cannot tell."""

    BUSY = 0


BUSY = Busy.BUSY


class Steps:
    """Tells readers that a change of several steps is being made.

    A context manager, for the one thread that holds the lock; within itself it does nothing. ``number`` is odd inside,
    and another one behind than before.
    """

    __slots__ = ("_depth", "number")

    def __init__(self) -> None:
        self._depth = 0
        self.number = 0

    def __enter__(self) -> None:
        if self._depth == 0:
            self.number += 1
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.number += 1


def glance(keyspace: Keyspace, index: int, key: bytes) -> bytes | Busy | None:
    """The value of a key in a database; BUSY if the lock is needed to know, or to tell others. It counts nothing.

    The lock is needed while a change is made in steps, for a key that is due, while uses of keys are noted or misses
    notified, and with a journal, whose newest number has to cover what a reply tells of.
    """
    number = keyspace.steps.number
    if number & 1 or keyspace.observed or keyspace.listener is not None or keyspace.recorder is not None:
        return BUSY
    database = keyspace.databases[index]
    deadline = database.deadlines.get(key)
    if deadline is not None and deadline <= keyspace.clock():
        return BUSY
    value = database.values.get(key)
    return value if keyspace.steps.number == number else BUSY
