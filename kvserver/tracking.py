"""Client-side caching: which connections have read which keys, and telling them when such a key changes.

A connection that tracks either reads keys, which are then remembered for it until they change once, or names prefixes,
and is told of every change below them (``BCAST``). An invalidation is appended to the connection's push queue, or to
that of the connection it redirects to; nobody waits.

Everything here is under the keyspace lock: a key is remembered together with the read, so no change is missed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from kvserver.clients import Clients
from kvserver.protocol.replies import Push, Reply
from kvserver.pushes import Message
from kvserver.session import Session

_CHANNEL = b"__redis__:invalidate"
"""Where a RESP2 connection is told, being subscribed to it."""


@dataclass(slots=True)
class Tracked:
    """How one connection tracks. Changed by its own thread, under the keyspace lock."""

    broadcast: bool = False
    opt_in: bool = False  # remember only what is read after CLIENT CACHING YES
    opt_out: bool = False  # remember all but what is read after CLIENT CACHING NO
    no_loop: bool = False  # do not tell of own changes
    redirect: int = 0  # the connection to be told instead, 0 for none
    prefixes: list[bytes] = field(default_factory=list)
    caching: bool | None = None  # CLIENT CACHING, for the next command
    broken: bool = False  # the connection to redirect to has gone
    thread: int = field(default_factory=threading.get_ident)

    @property
    def remembers(self) -> bool:
        """Whether what is read now is to be remembered."""
        if self.broadcast:
            return False
        return self.caching is True if self.opt_in else not (self.opt_out and self.caching is False)


class Tracking:
    """All that is tracked. The keyspace lock is held, for every method."""

    def __init__(self, clients: Clients, most_keys: Callable[[], int]) -> None:
        self._clients = clients
        self._most_keys = most_keys
        self._readers: dict[bytes, set[int]] = {}  # by key: numbers, since a connection may end and stay listed
        self._prefixes: dict[bytes, dict[Session, None]] = {}
        self.sessions: dict[Session, None] = {}

    @property
    def counts(self) -> tuple[int, int, int]:
        """Keys, readers of keys, and prefixes."""
        return len(self._readers), sum(map(len, self._readers.values())), len(self._prefixes)

    def enable(self, session: Session, tracked: Tracked) -> None:
        """Track as ``tracked`` says; prefixes named before stay."""
        session.tracking = tracked
        self.sessions[session] = None
        for prefix in tracked.prefixes:
            self._prefixes.setdefault(prefix, {})[session] = None

    def disable(self, session: Session) -> None:
        """Stop tracking. What was remembered is forgotten when its keys change."""
        tracked = session.tracking
        if tracked is None:
            return
        session.tracking = None
        self.sessions.pop(session, None)
        for prefix in tracked.prefixes:
            del self._prefixes[prefix][session]
            if not self._prefixes[prefix]:
                del self._prefixes[prefix]

    def remember(self, session: Session, keys: Iterable[bytes]) -> None:
        """Note keys that a connection has read just now."""
        for key in keys:
            self._readers.setdefault(key, set()).add(session.id)
        most = self._most_keys()
        while most and len(self._readers) > most:
            self._invalidate(next(iter(self._readers)))

    def changed(self, key: bytes) -> None:
        """A key was set, edited or removed."""
        if key in self._readers:
            self._invalidate(key)
        for prefix, sessions in self._prefixes.items():
            if key.startswith(prefix):
                for session in sessions:
                    self._tell(session, [key])

    def flushed(self) -> None:
        """Many keys went at once: nothing that anybody remembers may be used any more."""
        self._readers.clear()
        for session in self.sessions:
            self._tell(session, None, always=True)

    def _invalidate(self, key: bytes) -> None:
        for number in self._readers.pop(key):
            session = self._clients.find(number)
            if session is not None and session.tracking is not None and not session.tracking.broadcast:
                self._tell(session, [key])

    def _tell(self, session: Session, keys: list[bytes] | None, *, always: bool = False) -> None:
        tracked = session.tracking
        assert tracked is not None
        if tracked.no_loop and not always and tracked.thread == threading.get_ident():
            return
        receiver: Session | None = session
        if tracked.redirect:
            receiver = self._clients.find(tracked.redirect)
            if receiver is None:
                self._report_broken(session, tracked)
                return
        if receiver is None or receiver.pushes is None:
            return
        reply: Reply = None if keys is None else list(keys)
        if receiver.protocol == 3:
            receiver.pushes.put(Message(Push([b"invalidate", reply])))
        elif tracked.redirect and receiver.subscribed:
            receiver.pushes.put(Message(Push([b"message", _CHANNEL, reply])))

    def _report_broken(self, session: Session, tracked: Tracked) -> None:
        tracked.broken = True
        if session.protocol == 3 and session.pushes is not None:
            session.pushes.put(Message(Push([b"tracking-redir-broken", tracked.redirect])))
