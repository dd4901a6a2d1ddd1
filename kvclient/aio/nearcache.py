"""The near cache for tasks. How it is kept right: nearcache.py one folder up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, Self

from kvclient.aio.connection import AsyncConnection
from kvclient.commands.base import prefixed
from kvclient.errors import KVError, ServerError
from kvclient.nearcache import PING, PULSE, Kept, Statistics, check_protocol, tracking
from kvclient.protocol import Push
from kvclient.retry import pause_of
from kvclient.serializers import Out

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Sequence

    from kvclient.aio.client import AsyncClient
    from kvclient.protocol import Key, Reply
    from kvclient.url import Options


class AsyncNearCache(Generic[Out]):
    """Reads that are answered from this process while the server tells of no change; AsyncClient.near_cache() makes it.

    async with client.near_cache(prefixes=["user:"]) as near:
        await near.get("user:7")
    """

    def __init__(
        self,
        client: AsyncClient,
        tls: ssl.SSLContext | None,
        unpack: Callable[[bytes], Out],
        within: bytes,
        prefixes: Iterable[Key],
        max_keys: int,
    ) -> None:
        self._client = client  # outside of all namespaces
        self._tls = tls
        self._unpack = unpack
        self._within = within
        self._prefixes = tuple(prefixed(within, prefix) for prefix in prefixes) or ((within,) if within else ())
        self._kept = Kept(max_keys)
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._connections: list[AsyncConnection] = []

    async def __aenter__(self) -> Self:
        await self._connect()
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        self._kept.forget()
        self._disconnect()

    # ---- reading -------------------------------------------------------------------------------------------

    async def get(self, key: Key) -> Out | None:
        """Return a key's value, or None if there is no such key. As AsyncClient.get(), and its errors."""
        return (await self.mget(key))[0]

    async def mget(self, *keys: Key) -> list[Out | None]:
        """Return the values of several keys in order. What is not kept here, the server is asked for at once."""
        names = [prefixed(self._within, key) for key in keys]
        found = self._kept.look(dict.fromkeys(names))
        wanted = [name for name in dict.fromkeys(names) if name not in found]
        if wanted:
            markers = self._kept.ask(filter(self._is_tracked, wanted)) if self._is_current() else {}
            fresh: dict[bytes, bytes | None] = {}
            try:
                fresh = dict(zip(wanted, await self._client.mget(*wanted), strict=True))
            finally:
                self._kept.answer(markers, fresh if self._is_current() else {})
            found |= fresh
        return [None if (value := found[name]) is None else self._unpack(value) for name in names]

    def _is_tracked(self, name: bytes) -> bool:
        return not self._prefixes or name.startswith(self._prefixes)

    @property
    def statistics(self) -> Statistics:
        """What it has done so far."""
        return self._kept.statistics()

    # ---- the connections that listen -----------------------------------------------------------------------

    def _is_current(self) -> bool:
        """Whether those who tell of changes are all that have keys."""
        return True

    async def _servers(self) -> Sequence[Options]:
        """Those that have keys."""
        return (self._client.options,)

    async def _connect(self) -> None:
        """Connect, and have the servers tell of changes."""
        try:
            for options in await self._servers():
                self._connections.append(await self._told_by(options))
        except BaseException:
            self._disconnect()
            raise
        self._lost.clear()
        self._kept.is_told = all(connection.usable for connection in self._connections)

    async def _told_by(self, options: Options) -> AsyncConnection:
        connection = AsyncConnection(self._take, self._end)
        await connection.open(options, self._tls)
        try:
            check_protocol(connection.protocol)
            (reply,) = await connection.send(tracking(self._prefixes), 1, connection.now() + options.timeout)
            if isinstance(reply, ServerError):
                raise reply
        except BaseException:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()

    def _take(self, reply: Reply) -> None:
        """What the connection calls for all that comes unasked."""
        try:
            self._kept.tell(reply if isinstance(reply, Push) else None)
        except KVError as error:
            self._end(error)

    def _end(self, _error: KVError) -> None:
        """What the connection calls when it is lost."""
        self._kept.forget()
        self._lost.set()

    async def _keep(self) -> None:
        """Ask now and then whether the connection lives; make another when it does not."""
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(PULSE):
                    await self._lost.wait()
            except TimeoutError:
                if self._is_current() and await self._all_live():
                    continue
            self._disconnect()
            self._kept.forget()
            self._lost.set()
            attempt += 1
            try:
                await self._connect()
                attempt = 0
            except KVError:
                await asyncio.sleep(pause_of(attempt))

    async def _all_live(self) -> bool:
        try:
            for connection in self._connections:
                await connection.send(PING, 1, connection.now() + PULSE)
        except KVError:
            return False
        return bool(self._connections)
