"""What others may want to be told by the store: who listens to changes, and who writes them down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kvserver.store.memory import Database


class Listener(Protocol):
    """Who is told of every change, with the lock held, so in the order of the changes. Must not block."""

    def changed(self, database: Database, key: bytes, event: str | None) -> None:
        """A key was set, edited or removed. ``event`` is the keyspace notification's name; None: not to be notified."""

    def announced(self, database: Database, key: bytes, event: str) -> None:
        """Something to be notified that is no change by itself: a miss, or the name of a change told before."""

    def flushed(self, databases: Sequence[Database]) -> None:
        """These are about to lose every key."""

    def swapped(self, first: Database, second: Database) -> None:
        """Two databases are about to exchange their numbers."""


class Recorder(Protocol):
    """Who writes down every change. Called with the lock held; must not block."""

    def changed(self, database: Database, key: bytes) -> None:
        """A key was set or removed."""

    def edited(self, database: Database, key: bytes, span: tuple[int, int]) -> None:
        """Of a key's value only the bytes from one place to another are new, and zeros before them."""

    def deadline_changed(self, database: Database, key: bytes) -> None:
        """A key was given a deadline, or lost it."""

    def flushed(self, databases: Sequence[Database]) -> None:
        """These are about to lose every key."""

    def swapped(self, first: Database, second: Database) -> None:
        """Two databases are about to exchange their numbers."""
