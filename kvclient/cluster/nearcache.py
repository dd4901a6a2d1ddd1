"""The near cache on a cluster: every primary tells of changes of its keys, over a connection of its own.

When one of them is lost, or other nodes have slots than those that tell, everything is forgotten, and those that have
slots now are asked to tell. A key that moves is deleted where it was, which is told; where it is now, nobody may tell
of it yet, and so nothing is kept from the moment at which the client has learned of the move.

Not here: what is kept (nearcache.py, one folder up), and the same for tasks (aio/cluster/nearcache.py).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kvclient import nearcache
from kvclient.errors import CallTimeoutError, ConnectionLostError
from kvclient.nearcache import PING, NearCache
from kvclient.serializers import Out
from kvclient.waiting import Waker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kvclient.client import Client
    from kvclient.cluster.router import Router
    from kvclient.cluster.slots import SlotMap
    from kvclient.connection import Connection
    from kvclient.protocol import Key

_monotonic = time.monotonic


class ClusterNearCache(NearCache[Out]):
    """Reads that are answered from this process while no node tells of a change; see NearCache."""

    def __init__(
        self,
        client: Client,
        router: Router,
        unpack: Callable[[bytes], Out],
        within: bytes,
        prefixes: Iterable[Key],
        max_keys: int,
    ) -> None:
        # The one connection of the base is never opened: here there are several.
        super().__init__(
            client, lambda: router.listening_to(next(iter(router.members()))), unpack, within, prefixes, max_keys
        )
        self._router = router
        self._waker = Waker()
        self._slots: SlotMap | None = None  # whose primaries tell of changes
        self._connections: dict[Connection, float] = {}  # to them, and when each was last heard

    def close(self) -> None:
        """Forget everything, and end the thread."""
        super().close()
        self._waker.close()

    def _is_current(self) -> bool:
        is_current = self._router.slots is self._slots
        if not is_current:
            self._waker.wake()  # the thread connects to others
        return is_current

    @property
    def _is_connected(self) -> bool:
        return bool(self._connections)

    def _interrupt(self) -> None:
        for connection in tuple(self._connections):
            connection.shutdown()
        self._waker.wake()

    def _disconnect(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections = {}

    def _connect(self) -> None:
        """Have every primary tell of changes."""
        self._router.look_again(self._router.slots, _monotonic() + self._client.options.timeout)
        slots, told = self._router.slots, []
        self._connections = dict.fromkeys(map(self._router.listening_to, slots.primaries), _monotonic())
        try:
            for connection in self._connections:
                if self._ended.is_set():
                    raise ConnectionLostError("this near cache is closed")
                told += self._begin(connection)
        except BaseException:
            self._disconnect()
            raise
        with self._lock:
            self._slots = slots
            self._kept.is_told = True
            for reply in told:
                self._kept.tell(reply)

    def _take_in(self) -> None:
        """Until a connection is lost, or other nodes have slots.

        Raises:
            KVError: so it is.
        """
        asked: set[Connection] = set()  # whether they live
        while not self._ended.is_set():
            if self._router.slots is not self._slots:
                raise ConnectionLostError("other nodes have slots now")
            now = _monotonic()
            for connection, heard in self._connections.items():
                if now - heard > 2 * nearcache.PULSE:
                    raise ConnectionLostError("a tracking connection has fallen silent")
                if now - heard > nearcache.PULSE and connection not in asked:
                    connection.send(PING, now + nearcache.PULSE)
                    asked.add(connection)
            for connection in self._waker.wait([*self._connections], nearcache.PULSE / 2):
                self._hear(connection)
                asked.discard(connection)

    def _hear(self, connection: Connection) -> None:
        try:
            replies = connection.receive(_monotonic() + nearcache.PULSE)
        except CallTimeoutError:  # a part of a record of TLS
            return
        self._connections[connection] = _monotonic()
        with self._lock:
            for reply in replies:
                self._kept.tell(reply)
