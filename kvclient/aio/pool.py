"""The connections of an async client: one that all tasks share, and some that one task has for itself.

Commands of many tasks go over the shared one, which never makes anybody wait for a place. What keeps a connection
for a while (a transaction that watches, a command that blocks by design) borrows one for itself, and there are at
most so many of those; more have to wait.

Not here: what is sent over them.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from kvclient.aio.connection import AsyncConnection
from kvclient.errors import ClientClosedError, PoolTimeoutError
from kvclient.observer import ConnectionEvent, error_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from typing import Literal

    from kvclient.errors import KVError
    from kvclient.observer import Observer
    from kvclient.url import Options


class AsyncPool:
    """The connections to one server. It belongs to the event loop that first uses it."""

    def __init__(self, options: Options, tls: ssl.SSLContext | None, observer: Observer | None = None) -> None:
        self._observer = observer
        self._options = options
        self._tls = tls
        self._opening = asyncio.Lock()  # so that tasks that come together open one connection and no more
        self._free = asyncio.Semaphore(options.max_connections)
        self._idle: list[AsyncConnection] = []
        self._borrowed: set[AsyncConnection] = set()
        self._closed = False
        self.shared: AsyncConnection | None = None

    async def connected(self) -> AsyncConnection:
        """The shared connection, opened if need be.

        Raises:
            CannotConnectError, AuthError: it cannot be opened.
            ClientClosedError: the pool is closed.
        """
        async with self._opening:
            if self.shared is None or not self.shared.usable:
                self.shared = await self._open()
            return self.shared

    async def ready(self, timeout: float) -> AsyncConnection:
        """The same, once the server has taken most of what was sent before.

        Raises:
            CallTimeoutError: it did not in so many seconds, and nothing more was sent.
            CannotConnectError, AuthError, ClientClosedError: as for connected().
        """
        connection = await self.connected()
        await connection.drain(connection.now() + timeout)
        return connection

    @contextlib.asynccontextmanager
    async def borrowed(self, seconds: float) -> AsyncIterator[AsyncConnection]:
        """A connection for one task alone. It is closed if the block is left by an exception.

        Raises:
            PoolTimeoutError: all of them stayed in use for so long.
            CannotConnectError, AuthError, ClientClosedError: as for connected().
        """
        try:
            async with asyncio.timeout(seconds):
                await self._free.acquire()
        except TimeoutError:
            raise PoolTimeoutError(
                f"all {self._options.max_connections} connections stayed busy: give a larger max_connections="
            ) from None
        try:
            connection = self._take_idle() or await self._open()
            self._borrowed.add(connection)
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            finally:
                self._borrowed.discard(connection)
            if self._closed:
                connection.close()
            else:
                self._idle.append(connection)
        finally:
            self._free.release()

    def _take_idle(self) -> AsyncConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _open(self) -> AsyncConnection:
        self._check_open()
        is_open = False
        connection = AsyncConnection(lost=lambda error: self._lost(error) if is_open else None)
        try:
            await connection.open(self._options, self._tls)
        except BaseException as error:
            self._tell("failed", error)
            raise
        is_open = True
        self._tell("opened")
        try:
            self._check_open()  # still
        except ClientClosedError:
            connection.close()
            raise
        return connection

    def _lost(self, error: KVError) -> None:
        """What a connection calls when it has ended."""
        self._tell("closed" if self._closed else "lost", None if self._closed else error)

    def _tell(self, kind: Literal["opened", "failed", "lost", "closed"], error: BaseException | None = None) -> None:
        if self._observer is not None:
            self._observer.connection(ConnectionEvent(kind, self._options.address, error_of(error)))

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError("this client is closed")

    def retire(self) -> None:
        """Open no more connections, and close each one as soon as nobody waits for a reply on it."""
        self._closed = True
        if self.shared is not None:
            self.shared.retire()
        for connection in self._idle:
            connection.close()

    def close(self) -> None:
        """Close all connections. Calls under way raise."""
        self._closed = True
        shared = [] if self.shared is None else [self.shared]
        for connection in (*shared, *self._idle, *self._borrowed):
            connection.close()
