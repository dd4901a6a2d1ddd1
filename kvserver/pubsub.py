"""Who is subscribed to what, and the way of a published message to all of them.

Locking: one lock guards the tables, held for a look-up and for appending to the receivers' queues, which never blocks.
A session's own lists of subscriptions are changed under it too. It may be taken under the keyspace lock (keyspace
notifications), never the other way round.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from kvserver.protocol.replies import Push, Reply
from kvserver.pushes import Message
from kvserver.session import NAME_COST, Kind, Session
from kvserver.store.glob import compile_glob


class PubSub:
    """The subscriptions of one server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: tuple[dict[bytes, dict[Session, None]], ...] = ({}, {}, {})
        self._matchers: dict[bytes, Callable[[bytes], bool]] = {}

    def subscribe(self, session: Session, kind: Kind, names: Iterable[bytes]) -> list[Reply]:
        """Subscribe; returns a confirmation a name. The session's own thread only; it has a push queue."""
        confirmations: list[Reply] = []
        matchers = {name: compile_glob(name) for name in names} if kind is Kind.PATTERN else {}
        with self._lock:
            for name in names:
                if name not in session.subscriptions[kind]:
                    session.subscriptions[kind][name] = None
                    session.kept += NAME_COST + len(name)
                self._subscribers[kind].setdefault(name, {})[session] = None
                if kind is Kind.PATTERN:
                    self._matchers.setdefault(name, matchers[name])
                confirmations.append(Push([kind.prefix + b"subscribe", name, _count(session, kind)]))
        return confirmations

    def unsubscribe(self, session: Session, kind: Kind, names: Iterable[bytes]) -> list[Reply]:
        """Unsubscribe from some, or without names from all; returns what was published before, and confirmations.

        The session's own thread only. Messages that wait are among the replies, since none may follow its channel's
        confirmation.
        """
        word = kind.prefix + b"unsubscribe"
        confirmations: list[Reply] = []
        with self._lock:
            for name in list(names) or list(session.subscriptions[kind]):
                self._remove(session, kind, name)
                confirmations.append(Push([word, name, _count(session, kind)]))
            waiting = session.pushes.take() if session.pushes else []
        if not confirmations:
            confirmations.append(Push([word, None, _count(session, kind)]))
        return [message.reply for message in waiting] + confirmations

    def leave(self, session: Session) -> None:
        """Drop all of a session's subscriptions."""
        with self._lock:
            for kind in Kind:
                for name in list(session.subscriptions[kind]):
                    self._remove(session, kind, name)

    def _remove(self, session: Session, kind: Kind, name: bytes) -> None:
        if name not in session.subscriptions[kind]:
            return
        del session.subscriptions[kind][name]
        session.kept -= NAME_COST + len(name)
        subscribers = self._subscribers[kind][name]
        del subscribers[session]
        if not subscribers:
            del self._subscribers[kind][name]
            self._matchers.pop(name, None) if kind is Kind.PATTERN else None

    def publish(self, channel: bytes, payload: bytes, *, shard: bool = False) -> int:
        """Send to every subscriber of the channel, and of a pattern that matches it; how many messages that made.

        Never waits for a receiver. All receivers get the messages of all publishers in one and the same order.
        """
        kind = Kind.SHARD if shard else Kind.CHANNEL
        with self._lock:
            receivers = self._subscribers[kind].get(channel, ())
            count = _send(receivers, Push([kind.prefix + b"message", channel, payload])) if receivers else 0
            if not shard:
                for pattern, matches in self._matchers.items():
                    if matches(channel):
                        message = Push([b"pmessage", pattern, channel, payload])
                        count += _send(self._subscribers[Kind.PATTERN][pattern], message)
        return count

    def channels(self, pattern: bytes | None, *, shard: bool = False) -> list[bytes]:
        """The channels that have a subscriber, of those that match a glob pattern."""
        with self._lock:
            names = list(self._subscribers[Kind.SHARD if shard else Kind.CHANNEL])
        return names if pattern is None else list(filter(compile_glob(pattern), names))

    def subscribers(self, channel: bytes, *, shard: bool = False) -> int:
        """How many are subscribed to a channel by its name."""
        return len(self._subscribers[Kind.SHARD if shard else Kind.CHANNEL].get(channel, ()))

    def count(self, kind: Kind) -> int:
        """How many different channels or patterns have a subscriber."""
        return len(self._subscribers[kind])


def _count(session: Session, kind: Kind) -> int:
    """What a confirmation counts: channels and patterns together, shard channels by themselves."""
    channels, patterns, shards = map(len, session.subscriptions)
    return shards if kind is Kind.SHARD else channels + patterns


def _send(receivers: Iterable[Session], reply: Push) -> int:
    message, count = Message(reply), 0
    for session in receivers:
        if session.pushes is not None:
            session.pushes.put(message)
            count += 1
    return count
