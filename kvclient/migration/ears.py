"""Hearing of every change at the source: CLIENT TRACKING with BCAST, on a connection of its own to each node.

The server names the changed key and not its database. A connection that is lost takes with it the news of an unknown
number of changes; that it was is told, and what follows is for others to decide.

Not here: what is done about a change (plan.py).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from kvclient.errors import (
    CallTimeoutError,
    CannotConnectError,
    ConnectionLostError,
    KVError,
    ProtocolError,
    ServerError,
)
from kvclient.nearcache import PING, tracking
from kvclient.protocol import Push

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvclient.connection import Connection
    from kvclient.migration.plan import Plan
    from kvclient.protocol import Reply
    from kvclient.waiting import Waker

PULSE: Final = 5.0  # seconds of silence after which it is asked whether the connections live
_MOST_READS: Final = 64
_monotonic = time.monotonic


def take(reply: Reply, plan: Plan) -> bool:
    """Tell the plan what a server has said; whether it was the answer to PING.

    Raises:
        ServerError, ProtocolError: that it will not, or nonsense.
    """
    if isinstance(reply, ServerError):
        raise reply
    if not isinstance(reply, Push):
        return True
    match list(reply):
        case [b"invalidate", None]:
            plan.check()
        case [b"invalidate", list(keys)]:
            plan.tell(key for key in keys if isinstance(key, bytes))
        case _:
            raise ProtocolError("the server sent a tracking connection what is no invalidation")
    return False


class Ears:
    """A tracking connection to each node.

    Args:
        make: makes one to the node with an address; not open yet.
        prefixes: only keys that begin with one of these; all if there are none.
        plan: who is told.
        waker: ends the wait for news.
        timeout: seconds to wait for an answer.

    Attributes:
        lost: the addresses of nodes that are to be listened to, and are not.
    """

    def __init__(
        self,
        make: Callable[[str], Connection],
        prefixes: Sequence[bytes],
        plan: Plan,
        waker: Waker,
        timeout: float,
    ) -> None:
        self._make = make
        self._prefixes = prefixes
        self._plan = plan
        self._waker = waker
        self._timeout = timeout
        self._connections: dict[str, Connection] = {}
        self.lost: set[str] = set()

    @property
    def nodes(self) -> set[str]:
        """The addresses of those that are to be listened to."""
        return {*self._connections, *self.lost}

    def leave(self, node: str) -> None:
        """Listen to a node no longer."""
        self.lost.discard(node)
        if node in self._connections:
            self._connections.pop(node).close()

    def listen(self, node: str) -> None:
        """Have a node tell of changes from now on.

        Raises:
            CannotConnectError: it cannot be reached, or cannot tell of changes.
            ServerError: it refuses.
        """
        connection, deadline = self._make(node), _monotonic() + self._timeout
        try:
            connection.open(deadline)
            if connection.protocol != 3:
                raise CannotConnectError(
                    f"{connection.address} cannot tell of changes: that takes RESP3, which Redis has since version 6"
                )
            connection.send(tracking(self._prefixes), deadline)
            replies = connection.receive(deadline)
            while not replies:
                replies = connection.receive(deadline)
            first, *rest = replies
            if isinstance(first, ServerError):
                raise first
            for reply in rest:
                take(reply, self._plan)
        except BaseException:
            connection.close()
            raise
        self._connections[node] = connection
        self.lost.discard(node)

    def hear(self, seconds: float) -> bool:
        """Take in what is told, waiting so long for the first of it; whether there was any."""
        heard, wait = False, seconds
        for _ in range(_MOST_READS):  # and no more, or a source that never stops would keep all else from being done
            ready = self._waker.wait(list(self._connections.values()), wait)
            if not ready:
                break
            heard, wait = True, 0.0
            for node, connection in list(self._connections.items()):
                if connection in ready:
                    self._read(node, connection)
        return heard

    def settle(self) -> bool:
        """Hear of every change that was made before; whether all nodes are still listened to.

        A server may answer PING before it tells of what was done in the same turn of its loop, so it is asked twice.
        """
        for node, connection in list(self._connections.items()):
            try:
                deadline = _monotonic() + self._timeout
                for _ in range(2):
                    connection.send(PING, deadline)
                    self._until_pong(connection, deadline)
            except KVError:
                self._lose(node)
        return not self.lost

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()

    def _until_pong(self, connection: Connection, deadline: float) -> None:
        has_answered = False
        while not has_answered:
            for reply in connection.receive(deadline):
                has_answered = take(reply, self._plan) or has_answered

    def _read(self, node: str, connection: Connection) -> None:
        try:
            for reply in connection.receive(_monotonic() + self._timeout):
                take(reply, self._plan)
        except CallTimeoutError:  # a part of a record of TLS
            return
        except (ConnectionLostError, ServerError, ProtocolError):
            self._lose(node)

    def _lose(self, node: str) -> None:
        self._connections.pop(node).close()
        self.lost.add(node)
