"""Messages on their way to a connection from other threads: published ones, invalidations, what MONITOR sees.

A sender never waits: it appends to the receiver's :class:`PushQueue` and goes on. The receiving connection's own thread
takes the messages out and sends them, as it does everything that concerns its socket; a byte on a socket pair ends its
wait for input. A receiver that takes its messages too slowly is ended, so the queue is bounded.

Locking: one lock a queue; while holding it, only the lock of ``buffers.py`` is taken.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable

from kvserver.buffers import STEP
from kvserver.config import OutputLimit
from kvserver.protocol.encoder import encoding
from kvserver.protocol.replies import Reply


class Message:
    """A reply for one or many receivers, encoded once a protocol version."""

    __slots__ = ("_encoded", "reply")

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self._encoded = {2: encoding(2)[reply.__class__](reply)}

    @property
    def size(self) -> int:
        """In bytes, as counted against the receiver's limit."""
        return len(self._encoded[2])

    def encode(self, protocol: int) -> bytes:
        """The bytes for a receiver that speaks ``protocol``. Two threads may both do the work; the result is one."""
        encoded = self._encoded.get(protocol)
        if encoded is None:
            encoded = self._encoded[protocol] = encoding(protocol)[self.reply.__class__](self.reply)
        return encoded


class PushQueue:
    """What waits to be sent to one connection.

    Args:
        limit: gives the limit in force, asked anew for each message, as CONFIG SET may change it.
        overflow: called, without the lock, by the sender whose message is one too many; must not block.
        count: told how many bytes wait, in steps; whether all connections together now hold too many.
        enforce: called, without the lock, when they do; must not block.

    Raises:
        OSError: there are no descriptors left for the socket pair.
    """

    def __init__(
        self,
        limit: Callable[[], OutputLimit],
        overflow: Callable[[], object],
        count: Callable[[int], bool],
        enforce: Callable[[], object],
    ) -> None:
        self._lock = threading.Lock()
        self._messages: deque[Message] = deque()
        self._limit = limit
        self._overflow = overflow
        self._count = count
        self._enforce = enforce
        self._counted = 0  # bytes, in whole steps
        self._over_since: float | None = None  # when the soft limit was passed; None below it
        self._signalled = False  # a byte is in the socket pair
        self._closed = False
        self._wake, self.woken = socket.socketpair()  # ``woken`` is readable while messages wait
        self._wake.setblocking(False)
        self.size = 0  # bytes waiting

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> None:
        """Append a message, from any thread. Never blocks; after :meth:`close` it does nothing."""
        with self._lock:
            if self._closed:
                return
            self._messages.append(message)
            self.size += message.size
            if not self._signalled:
                # Under the lock, so that nobody closes the descriptor in between; one byte always fits.
                self._signalled = True
                self._wake.send(b"\0")
            overflown = self._is_over_limit()
            if overflown:
                self._closed = True
                self._messages.clear()
            too_much = self._recount()
        if overflown:
            self._overflow()
        if too_much:
            self._enforce()

    def _recount(self) -> bool:
        """Keep the total of all connections right; whether it is too much now."""
        counted = self.size - self.size % STEP
        if counted == self._counted:
            return False
        self._counted = counted
        return self._count(counted)

    def _is_over_limit(self) -> bool:
        limit = self._limit()
        if limit.hard and self.size > limit.hard:
            return True
        if not limit.soft or self.size <= limit.soft:
            self._over_since = None
            return False
        if self._over_since is None:
            self._over_since = time.monotonic()
        return time.monotonic() - self._over_since > limit.seconds

    def take(self, limit: int | None = None) -> list[Message]:
        """Take messages out, oldest first: all, or until ``limit`` bytes are reached. The owner's thread only."""
        taken: list[Message] = []
        size = 0
        with self._lock:
            while self._messages and (limit is None or size < limit):
                message = self._messages.popleft()
                size += message.size
                taken.append(message)
            self.size -= size
            self._recount()
            if self._signalled and not self._messages:
                self._signalled = False
                self.woken.recv(1)
        return taken

    def close(self) -> None:
        """Take no more messages. The owner's thread only, when the connection ends."""
        with self._lock:
            self._closed = True
            self._messages.clear()
            self._wake.close()
            self.woken.close()
