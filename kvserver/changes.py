"""Who wants to know that a key has changed: transactions that watch it, caches, subscribers of notifications.

The store calls :class:`Changes` under the keyspace lock at every change, as long as somebody wants to know. Nothing
here blocks, and all of it is guarded by that lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvserver.pubsub import PubSub
from kvserver.session import NAME_COST, Session
from kvserver.store.memory import Database, Keyspace
from kvserver.tracking import Tracked, Tracking

_ALL = "g$lshzxetd"
"""What ``A`` stands for. Classes of types that do not exist here are accepted and never notified."""
_GENERIC = ("del", "expire", "persist", "rename_from", "rename_to", "copy_to", "move_from", "move_to")
_CLASS = dict.fromkeys(_GENERIC, "g") | {"expired": "x", "evicted": "e", "new": "n", "keymiss": "m"}
"""The class of an event; of those not named here ``$``, strings."""


class Changes:
    """The keyspace's listener. Lock held, for every method."""

    def __init__(self, keyspace: Keyspace, pubsub: PubSub, tracking: Tracking) -> None:
        self._keyspace = keyspace
        self._tracking = tracking
        self._pubsub = pubsub
        self._watchers: dict[tuple[int, bytes], dict[Session, None]] = {}
        self._classes: frozenset[str] = frozenset()

    def notify(self, classes: str) -> None:
        """Set which events are notified."""
        self._classes = frozenset(classes.replace("A", _ALL))
        self._listen()

    def _listen(self) -> None:
        wanted = bool(self._watchers or self._tracking.sessions or self._classes & {"K", "E"})
        self._keyspace.listener = self if wanted else None

    # Client-side caching

    def track(self, session: Session, tracked: Tracked) -> None:
        """Begin to tell a session of changes, or go on in another way."""
        self._tracking.enable(session, tracked)
        self._listen()

    def untrack(self, session: Session) -> None:
        """Tell a session no more."""
        self._tracking.disable(session)
        self._listen()

    def remember(self, session: Session, keys: Iterable[bytes]) -> None:
        """Note keys that a tracking session has read just now."""
        self._tracking.remember(session, keys)

    # Transactions

    def watch(self, session: Session, database: Database, key: bytes) -> None:
        """Make the session's next EXEC fail if the key changes before it."""
        place = database.index, key
        if place not in session.watched:
            session.watched[place] = database.peek(key) is not None
            session.kept += NAME_COST + len(key)
            self._watchers.setdefault(place, {})[session] = None
            self._listen()

    def unwatch(self, session: Session) -> None:
        """Forget what the session watches, and that any of it has changed."""
        for place in session.watched:
            watchers = self._watchers[place]
            del watchers[session]
            session.kept -= NAME_COST + len(place[1])
            if not watchers:
                del self._watchers[place]
        session.watched.clear()
        session.dirty = False
        self._listen()

    def is_broken(self, session: Session) -> bool:
        """Whether a key that the session watches has changed, or has expired since."""
        databases = self._keyspace.databases
        return session.dirty or any(
            existed and databases[index].peek(key) is None for (index, key), existed in session.watched.items()
        )

    def _touch(self, place: tuple[int, bytes], *, expired: bool) -> None:
        for session in self._watchers.get(place, ()):
            # A key that had already expired when it was watched has not changed by being removed now.
            if not expired or session.watched[place]:
                session.dirty = True

    # What the store tells

    def changed(self, database: Database, key: bytes, event: str | None) -> None:
        """A key was set, edited or removed."""
        if self._watchers:
            self._touch((database.index, key), expired=event == "expired")
        if self._tracking.sessions:
            self._tracking.changed(key)
        if event is not None:
            self.announced(database, key, event)

    def announced(self, database: Database, key: bytes, event: str) -> None:
        """Notify, if this class of events is to be notified."""
        if _CLASS.get(event, "$") not in self._classes:
            return
        name = event.encode("ascii")
        if "K" in self._classes:
            self._pubsub.publish(b"__keyspace@%d__:%b" % (database.index, key), name)
        if "E" in self._classes:
            self._pubsub.publish(b"__keyevent@%d__:%b" % (database.index, name), key)

    def flushed(self, databases: Sequence[Database]) -> None:
        """All keys are about to go: those that exist change."""
        numbers = {database.index for database in databases}
        for place in self._watchers:
            if place[0] in numbers:
                self._touch(place, expired=True)
        self._tracking.flushed()

    def swapped(self, first: Database, second: Database) -> None:
        """Two databases exchange their numbers: what exists under either number changes."""
        for place in self._watchers:
            index, key = place
            if index in (first.index, second.index):
                other = second if index == first.index else first
                self._touch(place, expired=other.peek(key) is None)
