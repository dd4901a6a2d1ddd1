"""Changes of the keyspace, as commands that have the same effect whenever and wherever they are run again.

What is recorded is the effect and not the request: deadlines are absolute, an expired key is a DEL, a counter is the
number it came to. What happens while the keyspace lock is held becomes visible at once, so only what it comes to is
recorded: a transaction that counts a key a thousand times is one SET.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from kvserver.store.memory import Database

Effect = tuple[bytes, ...]
"""A command, word by word."""


@dataclass(slots=True)
class _Parts:
    """A change of a key that leaves most of it as it was."""

    spans: list[tuple[int, int]] = field(default_factory=list)  # of the value: from, to
    deadline: bool = False


_WHOLE = None
_Change = _Parts | None


class Effects:
    """Records what changes. Every method is called with the keyspace lock held."""

    def __init__(self) -> None:
        self._changes: dict[tuple[Database, bytes], _Change] = {}
        self._before: list[tuple[int | None, Effect]] = []  # what had to be settled before a flush or a swap

    def changed(self, database: Database, key: bytes) -> None:
        """A key was set or removed."""
        self._changes[database, key] = _WHOLE

    def edited(self, database: Database, key: bytes, span: tuple[int, int]) -> None:
        """Bytes of a value were overwritten or added; all others are as they were, or zero where there were none."""
        parts = self._changes.setdefault((database, key), _Parts())
        if parts is not _WHOLE:
            parts.spans.append(span)

    def deadline_changed(self, database: Database, key: bytes) -> None:
        """A key was given a deadline, or lost it."""
        parts = self._changes.setdefault((database, key), _Parts())
        if parts is not _WHOLE:
            parts.deadline = True

    def flushed(self, databases: Sequence[Database]) -> None:
        """These are about to lose every key. What changed in them is of no interest any more."""
        gone = set(databases)
        for place in [place for place in self._changes if place[0] in gone]:
            del self._changes[place]
        self._settle()
        if len(databases) > 1:
            self._before.append((None, (b"FLUSHALL",)))
        else:
            self._before.append((databases[0].index, (b"FLUSHDB",)))

    def swapped(self, first: Database, second: Database) -> None:
        """Two databases are about to exchange their numbers."""
        self._settle()
        self._before.append((None, (b"SWAPDB", b"%d" % first.index, b"%d" % second.index)))

    def _settle(self) -> None:
        self._before += self._present()
        self._changes.clear()

    def take(self) -> list[tuple[int | None, Effect]]:
        """What has changed since the last call: effects, each with the database it is for (None: any)."""
        changes = self._changes
        if len(changes) == 1 and not self._before:  # as most commands do
            (database, key), change = changes.popitem()
            return list(_effects(database, key, change))
        if not changes and not self._before:
            return []
        effects = [*self._before, *self._present()] if self._before else list(self._present())
        self._before.clear()
        self._changes.clear()
        return effects

    def _present(self) -> Iterator[tuple[int | None, Effect]]:
        for (database, key), change in self._changes.items():
            yield from _effects(database, key, change)


def _effects(database: Database, key: bytes, change: _Change) -> Iterable[tuple[int | None, Effect]]:
    """What makes a key what it is now, after a change."""
    value = database.values.get(key)
    if value is None:
        return ((database.index, (b"DEL", key)),)
    if change is _WHOLE or sum(end - start for start, end in change.spans) * 2 > len(value):
        return ((database.index, as_set(key, value, database.deadlines.get(key))),)
    effects: list[Effect] = [(b"SETRANGE", key, b"%d" % start, value[start:end]) for start, end in change.spans]
    if change.deadline:
        effects.append(_deadline(key, database.deadlines.get(key)))
    return [(database.index, effect) for effect in effects]


def as_set(key: bytes, value: bytes, deadline: int | None) -> Effect:
    """The command that makes a key what it is; ``deadline`` in wall-clock milliseconds."""
    if deadline is None:
        return (b"SET", key, value)
    return (b"SET", key, value, b"PXAT", b"%d" % deadline)


def _deadline(key: bytes, deadline: int | None) -> Effect:
    return (b"PERSIST", key) if deadline is None else (b"PEXPIREAT", key, b"%d" % deadline)


def with_databases(effects: Sequence[tuple[int | None, Effect]], selected: int) -> tuple[list[Effect], int]:
    """The effects as one batch of a file in which ``selected`` is the database (-1: none yet), and what it is then.

    More than one effect stand between MULTI and EXEC, so that Redis and Valkey, too, take all of them or none.
    """
    commands: list[Effect] = []
    for index, effect in effects:
        if index is not None and index != selected:
            commands.append((b"SELECT", b"%d" % index))
            selected = index
        commands.append(effect)
    return ([(b"MULTI",), *commands, (b"EXEC",)] if len(effects) > 1 else commands), selected
