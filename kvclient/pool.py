"""A bounded set of connections that threads share, each connection with one thread at a time.

Not here: what is sent over them. The rules that hold:

- `_lock` guards `_idle`, `_live` and `_waiters`. It is held for a few bytecodes and never while anything
  blocks, so no call waits for another call's network.
- A connection counts against the bound as long as its object lives (`_live` holds weak references). Whoever
  loses one, as KeyboardInterrupt between two bytecodes can do, thereby frees its place: the weak reference's
  callback is one atomic dict.pop(), with no lock, because a callback may run anywhere, in give() too.
- Waiters are served in order: a connection given back goes straight to the oldest, so that a thread in a
  tight loop cannot starve the others.
- After fork() the child starts with an empty pool. Its copies of the parent's sockets are closed, not used.
"""

from __future__ import annotations

import collections
import functools
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final

from kvclient.errors import ClientClosedError, ConnectionLostError, PoolTimeoutError
from kvclient.observer import ConnectionEvent, error_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from kvclient.connection import Connection
    from kvclient.observer import Observer

CHECK_AFTER: Final = 0.001  # seconds idle after which a connection is looked at before it is used again
LOOK_AGAIN: Final = 0.1  # seconds: a place freed by garbage collection wakes nobody, so waiters look

_monotonic = time.monotonic
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class _Waiter:
    """A thread that waits; `ready` is released when it is worth looking again."""

    __slots__ = ("connection", "ready")

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.ready = threading.Lock()
        self.ready.acquire()


class Pool:
    """At most `size` connections made by `make`, opened when needed, the last used one handed out first.

    So those that are not needed any more grow old at the other end, and one that nobody has used for `max_idle` seconds
    is closed when another is given back.
    """

    def __init__(
        self,
        make: Callable[[], Connection],
        size: int,
        max_idle: float = 300.0,
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer
        self._make = make
        self._size = size
        self._max_idle = max_idle
        self._closed = False
        self._reset()
        _pools.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._idle: list[Connection] = []
        self._live: dict[int, weakref.ref[Connection]] = {}
        self._waiters: collections.deque[_Waiter] = collections.deque()

    def __len__(self) -> int:
        """How many connections there are, in use or idle."""
        return len(self._live)

    # ---- taking and giving ---------------------------------------------------------------------------------

    def take(self, deadline: float) -> Connection:
        """A connection that is open and quiet; the caller gives it back or drops it.

        Raises:
            PoolTimeoutError: all stayed busy until `deadline` (monotonic seconds).
            CannotConnectError, AuthError: a new one was needed and could not be opened.
            ClientClosedError: the pool is closed.
        """
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else self._new()
            if connection is None:
                connection = self._wait(deadline)
            if connection.closed:
                self._open(connection, deadline)
            elif _monotonic() - connection.used > CHECK_AFTER and not connection.quiet():
                self.drop(connection, ConnectionLostError("the server closed it, or sent what nobody asked for"))
                continue
            return connection

    def give(self, connection: Connection) -> None:
        """Return a connection whose replies have all been read."""
        connection.used = now = _monotonic()
        with self._lock:
            if not self._waiters and not self._closed:
                idle = self._idle
                idle.append(connection)
                if now - idle[0].used < self._max_idle:
                    return
                connection = idle.pop(0)
            elif not self._closed:
                self._hand(self._waiters.popleft(), connection)
                return
        self.drop(connection)

    def drop(self, connection: Connection, error: BaseException | None = None) -> None:
        """Close a connection and free its place. `error` is why, unless it is merely not needed any more."""
        was_open = not connection.closed
        connection.close()
        if self._observer is not None and was_open:
            kind: Literal["lost", "closed"] = "closed" if error is None else "lost"
            self._observer.connection(ConnectionEvent(kind, connection.address, error_of(error)))
        with self._lock:
            self._live.pop(id(connection), None)
            if self._waiters:
                self._hand(self._waiters.popleft(), None)

    def pause(self, seconds: float) -> None:
        """Do nothing for so long, or until the pool is closed.

        Raises:
            ClientClosedError: it was.
        """
        if self._ended.wait(seconds):
            raise ClientClosedError("this client is closed")

    def close(self) -> None:
        """Close idle connections now, and each one in use when it is given back."""
        self._ended.set()
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            while self._waiters:
                self._hand(self._waiters.popleft(), None)
        for connection in idle:
            self.drop(connection)

    # ---- inside --------------------------------------------------------------------------------------------

    def _new(self) -> Connection | None:
        """A connection that is yet to be opened, if there is a place for it. The caller holds the lock."""
        if self._closed:
            raise ClientClosedError("this client is closed: make a new one with connect()")
        if self._waiters or len(self._live) >= self._size:
            return None
        return self._registered()

    def _registered(self) -> Connection:
        connection = self._make()
        key = id(connection)
        forget = functools.partial(_forget, self._live, key)
        self._live[key] = weakref.ref(connection, forget)
        return connection

    def _open(self, connection: Connection, deadline: float) -> None:
        try:
            connection.open(deadline)
        except BaseException as error:
            self.drop(connection)
            if self._observer is not None:
                self._observer.connection(ConnectionEvent("failed", connection.address, error_of(error)))
            raise
        if self._observer is not None:
            self._observer.connection(ConnectionEvent("opened", connection.address))

    @staticmethod
    def _hand(waiter: _Waiter, connection: Connection | None) -> None:
        """Wake a waiter, with a connection or to look for itself. The caller holds the lock."""
        waiter.connection = connection
        if waiter.ready.locked():
            waiter.ready.release()

    def _wait(self, deadline: float) -> Connection:
        """Queue for a connection."""
        waiter = _Waiter()
        with self._lock:
            self._waiters.append(waiter)
        try:
            while True:
                with self._lock:
                    found = self._found(waiter)
                if found is not None:
                    return found
                waiter.ready.acquire(timeout=min(self._left(deadline), LOOK_AGAIN))
        except BaseException:
            self._leave(waiter)
            raise

    def _left(self, deadline: float) -> float:
        """Seconds until `deadline`."""
        left = deadline - _monotonic()
        if left <= 0:
            raise PoolTimeoutError(f"all {self._size} connections stayed busy: raise max_connections= or timeout=")
        return left

    def _found(self, waiter: _Waiter) -> Connection | None:
        """What a waiter can have now. The caller holds the lock."""
        if waiter.connection is not None:
            connection, waiter.connection = waiter.connection, None
            return connection
        if self._closed:
            raise ClientClosedError("this client was closed while the call waited for a connection")
        queued = waiter in self._waiters
        if queued and self._waiters[0] is not waiter:
            return None
        if not self._idle and len(self._live) >= self._size:
            if not queued:  # woken for a place that is taken again; it stays the oldest
                self._waiters.appendleft(waiter)
            return None
        if queued:
            self._waiters.popleft()
        return self._idle.pop() if self._idle else self._registered()

    def _leave(self, waiter: _Waiter) -> None:
        """Give up waiting; what was handed over meanwhile goes to the next."""
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            connection, waiter.connection = waiter.connection, None
            if connection is None and self._waiters:
                self._hand(self._waiters.popleft(), None)
        if connection is not None:
            self.give(connection)

    def after_fork(self) -> None:
        """Forget, in a forked child, every connection of the parent, and the lock in whatever state it was."""
        live = list(self._live.values())
        self._reset()
        for reference in live:
            connection = reference()
            if connection is not None:
                connection.close()


def _forget(live: dict[int, weakref.ref[Connection]], key: int, _: weakref.ref[Connection]) -> None:
    live.pop(key, None)


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
