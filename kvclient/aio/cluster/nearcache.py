"""The near cache on a cluster, for tasks. How it is kept right: cluster/nearcache.py, two folders up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kvclient.aio.nearcache import AsyncNearCache
from kvclient.serializers import Out

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Sequence

    from kvclient.aio.client import AsyncClient
    from kvclient.aio.cluster.router import AsyncRouter
    from kvclient.cluster.slots import SlotMap
    from kvclient.protocol import Key
    from kvclient.url import Options


class AsyncClusterNearCache(AsyncNearCache[Out]):
    """Reads that are answered from this process while no node tells of a change; see AsyncNearCache."""

    def __init__(
        self,
        client: AsyncClient,
        router: AsyncRouter,
        tls: ssl.SSLContext | None,
        unpack: Callable[[bytes], Out],
        within: bytes,
        prefixes: Iterable[Key],
        max_keys: int,
    ) -> None:
        super().__init__(client, tls, unpack, within, prefixes, max_keys)
        self._router = router
        self._slots: SlotMap | None = None  # whose primaries tell of changes

    def _is_current(self) -> bool:
        is_current = self._router.slots is self._slots
        if not is_current:
            self._lost.set()  # the task that keeps it connects to others
        return is_current

    async def _servers(self) -> Sequence[Options]:
        await self._router.look_again(self._router.slots, time.monotonic() + self._client.options.timeout)
        self._slots = self._router.slots
        return [self._client.options.at(*address) for address in self._slots.primaries]
