"""The nodes of a cluster: a pool of connections for each, and what is known of who has which slot.

Not here: what follows an error (redirects.py), and which node a command goes to (split.py, client.py).

Locking: `_lock` guards the pools and `_news`; it is held for no input or output. `slots` and what is known of commands
are replaced or added to as a whole, so they are read without it. One thread at a time asks the nodes who has which
slot; others who want to know wait for its answer.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, TypeVar

from kvclient.cluster.atlas import GONE, NO_ANSWER, PATIENCE, WHO_HAS_WHAT, Atlas, info_name, what_is
from kvclient.cluster.slots import Address, SlotMap
from kvclient.connection import Connection
from kvclient.errors import CannotConnectError, ClientClosedError, KVError, ServerError
from kvclient.pool import Pool

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from kvclient.cluster.atlas import Info, Question
    from kvclient.commands.base import Args
    from kvclient.observer import Observer
    from kvclient.protocol import Reply
    from kvclient.url import Options

T = TypeVar("T")
_monotonic = time.monotonic
_every: weakref.WeakSet[Nodes] = weakref.WeakSet()


class Nodes(Atlas):
    """All nodes of one cluster. It lends connections to any of them, as a Pool does to one server.

    Args:
        options: those of the client; `max_connections` is for each node.
        tls: what to encrypt with.
        observer: is told of connections.
    """

    def __init__(self, options: Options, tls: ssl.SSLContext | None, observer: Observer | None) -> None:
        super().__init__(options)
        self._tls, self._observer = tls, observer
        self._pools: dict[tuple[str, int], Pool] = {}  # by address
        self._closed = threading.Event()
        self._reset()
        _every.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._news: threading.Event | None = None  # set once whoever asks for the slots now has them

    def after_fork(self) -> None:
        """Forget, in a forked child, the lock in whatever state it was, and that a thread of the parent was asking."""
        self._reset()
        was_closed, self._closed = self._closed.is_set(), threading.Event()
        if was_closed:
            self._closed.set()

    # ---- connections -----------------------------------------------------------------------------------------

    def pool(self, address: Address) -> Pool:
        """The connections to one node.

        Raises:
            ClientClosedError: the client is closed.
        """
        found = self._pools.get(address)
        if found is not None:
            return found
        with self._lock:
            if self._closed.is_set():
                raise ClientClosedError("this client is closed: make a new one with connect()")
            if address not in self._pools:
                options, tls = self._options.at(*address), self._tls
                self._pools[address] = Pool(
                    lambda: Connection(options, tls), options.max_connections, options.max_idle, self._observer
                )
            return self._pools[address]

    def taken(self, pool: Pool, deadline: float) -> Connection:
        """A connection to one node.

        Raises:
            CannotConnectError, AuthError, PoolTimeoutError: there is none; perhaps the node has left the cluster.
            ClientClosedError: the client is closed.
        """
        try:
            return pool.take(deadline)
        except ClientClosedError:
            if self.is_closed:
                raise
            raise CannotConnectError(GONE) from None

    def take(self, deadline: float, /) -> Connection:
        """A connection to some node that has slots.

        Raises:
            CannotConnectError, AuthError, PoolTimeoutError, ClientClosedError: as a pool.
        """
        self._know(deadline)
        return self.taken(self.pool(self.some_primary()), deadline)

    def give(self, connection: Connection, /) -> None:
        """Take back one whose replies have all been read."""
        pool = self._pools.get(connection.place)
        if pool is None:  # the node has left the cluster meanwhile
            connection.close()
        else:
            pool.give(connection)

    def drop(self, connection: Connection, error: BaseException | None = None, /) -> None:
        """Close one."""
        pool = self._pools.get(connection.place)
        if pool is None:
            connection.close()
        else:
            pool.drop(connection, error)

    def listening(self) -> Connection:
        """A connection to some node, for what the servers send unasked; not open yet."""
        return self.listening_to(self.some_primary())

    def listening_to(self, address: Address) -> Connection:
        """The same to one node."""
        return Connection(self._options.at(*address), self._tls, listens=True)

    def pause(self, seconds: float, /) -> None:
        """Do nothing for so long, or until the client is closed.

        Raises:
            ClientClosedError: it was.
        """
        if self._closed.wait(seconds):
            raise ClientClosedError("this client is closed")

    def close(self) -> None:
        """Close idle connections now, and each one in use when it is given back."""
        self._closed.set()
        with self._lock:
            pools = list(self._pools.values())
        for pool in pools:
            pool.close()

    @property
    def is_closed(self) -> bool:
        """Whether the client has been closed."""
        return self._closed.is_set()

    # ---- who has what ----------------------------------------------------------------------------------------

    def owner(self, slot: int, deadline: float) -> Address:
        """The node that has a slot, as far as is known; any, if nobody has.

        Raises:
            CannotConnectError: no node says who has which.
        """
        self._know(deadline)
        return self.known_owner(slot)

    def _know(self, deadline: float) -> None:
        """Ask who has which slot, if that is not known at all."""
        if not self.slots.primaries:
            self.refresh(self.slots, deadline)

    def refresh(
        self, seen: SlotMap, deadline: float, *, first: Address | None = None, last: Address | None = None
    ) -> None:
        """Ask the nodes who has which slot, unless there is a newer map than `seen` already.

        Args:
            seen: the map that turned out to be old.
            deadline: monotonic seconds.
            first: the node to ask first, since it should know.
            last: the node to ask last, since it may have failed.

        Raises:
            CannotConnectError: no node says.
        """
        with self._lock:
            if self.slots is not seen:
                return
            news, mine = self._news, self._news is None
            if news is None:
                news = self._news = threading.Event()
        if not mine:
            news.wait(max(0.0, deadline - _monotonic()))
            return
        try:
            self.learn(self._asked(self.candidates(first, last), WHO_HAS_WHAT, deadline))
        finally:
            with self._lock:
                self._news = None
            news.set()
        self._forget_others()

    def _asked(self, candidates: Iterable[Address], question: Question[T], deadline: float) -> T:
        """What the first node tells that answers."""
        error: KVError | None = None
        for address in candidates:
            now = _monotonic()
            if now >= deadline:
                break
            try:
                return question.told(self._ask(address, question.payload, min(deadline, now + PATIENCE)), address)
            except NO_ANSWER as failure:
                error = failure
        raise self.nobody_says(question.what, error)

    def _ask(self, address: Address, payload: bytes, deadline: float) -> Reply:
        pool = self.pool(address)
        connection = self.taken(pool, deadline)
        try:
            reply = connection.call(payload, deadline)
        except BaseException as error:
            pool.drop(connection, error)
            raise
        pool.give(connection)
        if isinstance(reply, ServerError):
            raise reply
        return reply

    def _forget_others(self) -> None:
        """Close the connections to nodes that are not part of the cluster any more."""
        members = self.members()
        with self._lock:
            gone = [self._pools.pop(address) for address in [*self._pools] if address not in members]
        for pool in gone:
            pool.close()

    # ---- commands --------------------------------------------------------------------------------------------

    def info(self, words: Args, deadline: float) -> Info:
        """What the servers say of a command; they are asked once for each name.

        Raises:
            KVError: they cannot be asked.
        """
        name = info_name(words)
        info = self.infos.get(name)
        if info is None:
            self._know(deadline)
            info = self._asked(self.candidates(), what_is(name), deadline)
        return self.noted(words, name, info)


def _after_fork_in_child() -> None:
    for nodes in list(_every):
        nodes.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
